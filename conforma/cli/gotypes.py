"""Flag values as Go's flag library reads them, with its words for what cannot be read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import click

from conforma.errors import InputError
from conforma.gotext import parse_bool, quoted

_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART: Final = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_LONGEST: Final = (1 << 63) - 1


class Duration(float):
    """Seconds that remember how Go writes them: ``5m0s``, ``1.5s``, ``300ms``."""

    def __str__(self) -> str:
        return _go_duration(round(self * 1_000_000_000))


if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # generic only since click 8.3


class GoType(ParamType):
    """A flag type; ``read`` takes one occurrence of the flag and the value so far."""

    def read(self, text: str, before: Any) -> Any:
        """The value after this occurrence. Raises ``InputError`` with Go's reason."""
        raise NotImplementedError

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:  # noqa: ARG002 - click's signature
        """Leave alone what is already a value: defaults and what ``read`` returned."""
        return value


class GoText(GoType):
    """Any text."""

    name = "string"

    def read(self, text: str, before: Any) -> str:  # noqa: ARG002 - the last one wins
        """The text itself."""
        return text


class GoBool(GoType):
    """``--flag``, ``--flag=false``; never a separate word."""

    name = "bool"

    def read(self, text: str, before: Any) -> bool:  # noqa: ARG002 - the last one wins
        """The truth value of Go's spellings."""
        return parse_bool(text)


class GoInt(GoType):
    """A decimal, hexadecimal (``0x``), octal (``0``, ``0o``) or binary (``0b``) integer."""

    name = "int"

    def read(self, text: str, before: Any) -> int:  # noqa: ARG002 - the last one wins
        """The number, which fits into 64 bits."""
        digits = re.sub(r"^([-+]?)0([0-7_]+)$", r"\g<1>0o\2", text)
        try:
            number = int(digits, 0) if digits == digits.strip() else None
        except ValueError:
            number = None
        if number is None:
            raise InputError(f"strconv.ParseInt: parsing {quoted(text)}: invalid syntax")
        if not -_LONGEST - 1 <= number <= _LONGEST:
            raise InputError(f"strconv.ParseInt: parsing {quoted(text)}: value out of range")
        return number


class GoFloat(GoType):
    """A floating-point number."""

    name = "float"

    def read(self, text: str, before: Any) -> float:  # noqa: ARG002 - the last one wins
        """The number."""
        try:
            return float(text if text == text.strip() else "?")
        except ValueError:
            raise InputError(
                f"strconv.ParseFloat: parsing {quoted(text)}: invalid syntax"
            ) from None


class GoDuration(GoType):
    """``300ms``, ``5m``, ``1h30m``; a number without a unit only if it is zero."""

    name = "duration"

    def read(self, text: str, before: Any) -> Duration:  # noqa: ARG002 - the last one wins
        """The duration in seconds."""
        unsigned = text[1:] if text[:1] in ("-", "+") else text
        if unsigned == "0":
            return Duration(0.0)
        if not unsigned:
            raise InputError(f"time: invalid duration {quoted(text)}")
        total = 0.0
        end = 0
        for part in _PART.finditer(unsigned):
            if part.start() != end:
                break
            total += float(part[1]) * _UNITS[part[2]]
            end = part.end()
        if end != len(unsigned):
            raise InputError(_bad_duration(text, unsigned[end:]))
        if total > _LONGEST:
            raise InputError(f"time: invalid duration {quoted(text)}")
        return Duration((-total if text.startswith("-") else total) / 1_000_000_000)


class GoList(GoType):
    """A list: the flag may be repeated, and each value is one line of CSV."""

    name = "strings"

    def read(self, text: str, before: Any) -> tuple[str, ...]:
        """The values so far and those of this occurrence."""
        import csv

        try:
            rows = list(csv.reader([text], strict=True)) if text else []
        except csv.Error as cause:
            raise InputError(f"parse error on line 1: {cause}") from None
        return (*(before or ()), *(value for row in rows for value in row))


class GoTexts(GoType):
    """A list: the flag may be repeated, and each value is taken as it is written."""

    name = "stringArray"

    def read(self, text: str, before: Any) -> tuple[str, ...]:
        """The values so far and this one."""
        return (*(before or ()), text)


def _bad_duration(text: str, rest: str) -> str:
    number = re.match(r"\d+\.?\d*|\.\d+", rest)
    if number is None:
        return f"time: invalid duration {quoted(text)}"
    unit = re.match(r"[^.\d]+", rest[number.end() :])
    if unit is None:
        return f"time: missing unit in duration {quoted(text)}"
    return f"time: unknown unit {quoted(unit[0])} in duration {quoted(text)}"


def _go_duration(nanoseconds: int) -> str:
    sign = "-" if nanoseconds < 0 else ""
    left = abs(nanoseconds)
    if left == 0:
        return "0s"
    for unit, size in (("ns", 1_000), ("µs", 1_000_000), ("ms", 1_000_000_000)):
        if left < size:
            return f"{sign}{_decimal(left, size // 1_000)}{unit}"
    minutes, rest = divmod(left, _UNITS["m"])
    seconds = f"{_decimal(rest, _UNITS['s'])}s"
    if not minutes:
        return sign + seconds
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours}h{minutes}m{seconds}" if hours else f"{sign}{minutes}m{seconds}"


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    return f"{whole}.{rest:0{len(str(unit)) - 1}d}".rstrip("0")
