"""The moment a component is judged at, as a value (section 2.6).

Which rules are in force depends on it. It is chosen once for the run, and a
component's own moment is computed from its own attestations; nothing is shared
between components, so none can be judged by another's clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from msgspec import Struct

from conforma.errors import InputError
from conforma.gotext import rfc3339
from conforma.policy.timestamps import parse_date, parse_rfc3339

# Clocks of two machines of one pipeline differ by this much.
_GRACE: Final = timedelta(seconds=2)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_DAY: Final = (("2006", r"\d{4}"), ("-", "-"), ("01", r"\d\d"), ("-", "-"), ("02", r"\d\d"))
_CLOCK: Final = (
    ("T", "T"),
    ("15", r"\d\d?"),
    (":", ":"),
    ("04", r"\d\d"),
    (":", ":"),
    ("05", r"\d\d(?:[.,]\d+)?"),
    ("Z07:00", r"Z|[+-]\d\d:\d\d"),
)
_BOUNDS: Final = {"01": ("month", 1, 12), "15": ("hour", 0, 23), "04": ("minute", 0, 59)}


class EffectiveTime(Struct, frozen=True):
    """How the moment is chosen, and the moment itself where it does not depend on the image.

    ``moment`` is in UTC: the time given, or the start of the run.
    """

    kind: Literal["now", "attestation", "given"]
    moment: datetime

    @classmethod
    def parse(
        cls, text: str, *, allow_past: bool = False, now: datetime | None = None
    ) -> EffectiveTime:
        """Read ``now``, ``attestation``, an RFC 3339 time or a date (midnight UTC).

        ``now`` is the start of the run, the clock's time if not given. A time
        more than two seconds before it is refused unless ``allow_past``;
        today's date is not in the past. Raises ``InputError``.
        """
        now = datetime.now(UTC) if now is None else now.astimezone(UTC)
        if text.lower() == "now":
            return cls("now", now)
        if text.lower() == "attestation":
            return cls("attestation", now)
        moment = parse_rfc3339(text)
        day = parse_date(text) if moment is None else None
        chosen = moment or day
        if chosen is None:
            raise InputError(
                "invalid policy time argument: "
                f"{_why_not(text, _DAY + _CLOCK)}\n{_why_not(text, _DAY)}",
                hint="write now, attestation, 2026-01-31 or 2026-01-31T12:00:00Z",
            )
        is_today = day is not None and day.date() == now.date()
        if chosen < now - _GRACE and not allow_past and not is_today:
            raise InputError(
                f"effective time {rfc3339(chosen)} is in the past; "
                "use --allow-past-effective-time to override"
            )
        return cls("given", chosen)

    def for_component(self, statements: Iterable[Mapping[str, Any]] = ()) -> datetime:
        """The moment for one component, in UTC.

        ``statements`` are the documents of its verified attestations. With
        ``attestation`` it is the newest readable end of a build among them
        (SLSA v0.2 ``buildFinishedOn``, v1 ``finishedOn``), the start of the
        run if there is none.
        """
        if self.kind != "attestation":
            return self.moment
        finished = [time for statement in statements if (time := build_finished(statement))]
        return max(finished, default=self.moment)

    def for_report(self, moments: Iterable[datetime]) -> datetime:
        """The one moment a report names: the newest its components were judged at."""
        if self.kind != "attestation":
            return self.moment
        return max(moments, default=self.moment)


def build_finished(statement: Mapping[str, Any]) -> datetime | None:
    """When the build that a SLSA provenance describes ended, if it says so readably."""
    for path in (
        ("predicate", "metadata", "buildFinishedOn"),
        ("predicate", "runDetails", "metadata", "finishedOn"),
    ):
        value: Any = statement
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, str) and (moment := parse_rfc3339(value)) is not None:
            return moment
    return None


def rfc3339_nano(moment: datetime) -> str:
    """A moment in UTC with as many fractional digits as needed (Go's ``time.RFC3339Nano``)."""
    moment = moment.astimezone(UTC)
    fraction = f".{moment.microsecond:06d}".rstrip("0").rstrip(".")
    return f"{moment.strftime('%Y-%m-%dT%H:%M:%S')}{fraction}Z"


def nanoseconds(moment: datetime) -> int:
    """Nanoseconds since 1970, exactly (``data.config.policy.when_ns``)."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def _why_not(text: str, layout: tuple[tuple[str, str], ...]) -> str:
    """Why ``text`` is no time in ``layout``, in the words of Go's ``time.Parse``."""
    rest = text
    for element, pattern in layout:
        match = re.match(pattern, rest, re.ASCII)
        if match is None:
            whole = "".join(name for name, _ in layout)
            return (
                f"parsing time {_quoted(text)} as {_quoted(whole)}: "
                f"cannot parse {_quoted(rest)} as {_quoted(element)}"
            )
        if element == "05" and int(match[0][:2]) > 59:
            return f"parsing time {_quoted(text)}: second out of range"
        if element in _BOUNDS:
            name, low, high = _BOUNDS[element]
            if not low <= int(match[0]) <= high:
                return f"parsing time {_quoted(text)}: {name} out of range"
        if element == "Z07:00" and match[0] != "Z":
            for name, digits, most in (
                ("hour", match[0][1:3], 24),
                ("minute", match[0][4:6], 60),
            ):
                if int(digits) > most:
                    return f"parsing time {_quoted(text)}: time zone offset {name} out of range"
        rest = rest[match.end() :]
    if rest:
        return f"parsing time {_quoted(text)}: extra text: {_quoted(rest)}"
    return f"parsing time {_quoted(text)}: day out of range"


def _quoted(text: str) -> str:
    """As package ``time`` quotes: byte by byte, everything but printable ASCII in hexadecimal."""
    escaped = (
        f"\\{chr(byte)}"
        if byte in b'"\\'
        else chr(byte)
        if 0x20 <= byte < 0x7F
        else f"\\x{byte:02x}"
        for byte in text.encode("utf-8", "surrogateescape")
    )
    return f'"{"".join(escaped)}"'
