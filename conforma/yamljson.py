"""YAML and JSON documents as plain JSON values, read the way the Go tool reads them.

Go reads both with one YAML parser and then treats the result as JSON
(``sigs.k8s.io/yaml`` over yaml.v2), so its reading is the contract: YAML 1.1
words such as ``yes`` and ``off`` are booleans, ``0644`` is octal, ``12:30`` and
dates stay text, keys become strings, and only the first document counts.

Unlike the Go tool, a key that stands twice in one mapping is refused unless
the caller asks for ``last``: which of the two was meant cannot be known.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from typing import Any, Final, Literal

from msgspec import Struct, field

from conforma import gojson
from conforma.errors import InputError
from conforma.gotext import quoted

# Far beyond what people write and well within what every later step can
# handle without exhausting a stack.
DEEPEST: Final = 500
# How much of the result may come from repeating anchored parts, in nodes and
# characters; a few kilobytes of "billion laughs" exceed it at once.
MOST_REPEATED: Final = 10_000_000

_WORDS: Final[dict[str, bool | float | None]] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE"), True),
    **dict.fromkeys(("on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE"), False),
    **dict.fromkeys(("off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}
_INTEGER: Final = re.compile(
    r"(?P<sign>[-+]?)(?:0[xX](?P<x>[0-9a-fA-F]+)|0[bB](?P<b>[01]+)|0[oO]?(?P<o>[0-7]+)"
    r"|(?P<d>0|[1-9][0-9]*))",
    re.ASCII,
)
_BASES: Final = {"x": 16, "b": 2, "o": 8, "d": 10}
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_TAG: Final = "tag:yaml.org,2002:"
# int() refuses longer texts (CVE-2020-10735); such a number stays text.
_MOST_DIGITS: Final = 4000


def parse(text: str | bytes, *, duplicate_keys: Literal["refuse", "last"] = "refuse") -> Any:
    """The document of ``text`` as a JSON value; ``None`` if there is none.

    With ``duplicate_keys="last"``, as in data files, what follows the first
    document is not looked at, as in Go.

    Raises ``InputError`` whose message starts with ``error converting YAML to
    JSON: `` for text that is neither YAML nor JSON, for a key that is no
    scalar, for duplicate keys, for a second document, for nesting beyond ``DEEPEST`` and for aliases
    that would repeat more than ``MOST_REPEATED``.
    """
    source = _decoded(text)
    if source.lstrip()[:1] in ("{", "["):
        try:
            return _json(source, duplicate_keys)
        except (ValueError, RecursionError):
            pass  # perhaps YAML in flow style; its parser also words the error
    return _yaml(source, duplicate_keys)[0]


def parse_all(text: str | bytes) -> tuple[Any, ...]:
    """Every YAML document of ``text`` but empty ones, in order; of equal keys the last counts.

    Raises ``InputError`` as ``parse`` does.
    """
    return tuple(_yaml(_decoded(text), "last", every=True))


def _decoded(text: str | bytes) -> str:
    try:
        return text.decode("utf-8-sig") if isinstance(text, bytes) else text.lstrip("\ufeff")
    except UnicodeDecodeError as cause:
        raise _failed("yaml: invalid leading UTF-8 octet") from cause


def parse_json(text: str | bytes) -> Any:
    """The one JSON value that ``text`` is. Raises ``InputError`` for anything else.

    Also for duplicate keys and for nesting beyond ``DEEPEST``, as ``parse`` does.
    """
    try:
        source = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        return _json(source, "refuse")
    except RecursionError as cause:
        raise InputError("json: too deep") from cause
    except ValueError as cause:
        raise InputError(f"json: {cause}") from cause


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


def _constant(name: str) -> Any:
    raise ValueError(name)


def _decimal(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(text)  # too large to be one; YAML makes it text
    return number


_json_decoders: Final = {
    "refuse": json.JSONDecoder(
        object_pairs_hook=_members, parse_constant=_constant, parse_float=_decimal
    ),
    "last": json.JSONDecoder(parse_constant=_constant, parse_float=_decimal),
}


def _json(source: str, duplicate_keys: str) -> Any:
    if source.startswith("\ufeff"):
        raise json.JSONDecodeError("Unexpected UTF-8 BOM (decode using utf-8-sig)", source, 0)
    value = _json_decoders[duplicate_keys].decode(source)
    depth, level = 0, [value] if isinstance(value, dict | list) else []
    while level := [
        inner
        for outer in level
        for inner in (outer.values() if isinstance(outer, dict) else outer)
        if isinstance(inner, dict | list)
    ]:
        depth += 1
        if depth >= DEEPEST:
            raise ValueError("too deep")
    return value


def _yaml(source: str, duplicate_keys: str, *, every: bool = False) -> list[Any]:
    """The first document, or ``every`` one that is not empty."""
    import yaml

    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    found: list[Any] = []
    builder = _Builder(duplicate_keys)
    try:
        events = iter(yaml.parse(source, Loader=loader))
        for event in events:
            if not isinstance(event, yaml.DocumentEndEvent):
                builder.take(event)
            elif not every:
                break
            elif builder.root is not None:
                found.append(builder.root)
                builder = _Builder(duplicate_keys)
        # What is configuration must be read whole; the Go library stops after
        # the first document. An empty one at the end is only a last "---".
        if duplicate_keys == "refuse":
            _expect_the_end(events)
    except yaml.reader.ReaderError as cause:
        raise _failed(f"yaml: {cause.reason}") from cause
    except yaml.MarkedYAMLError as cause:
        mark = cause.problem_mark
        if mark is None or mark.line == 0:
            mark = cause.context_mark
        line = mark.line if mark is not None else 0
        if line and isinstance(cause, yaml.scanner.ScannerError):
            line += 1
        where = f"line {line}: " if line else ""
        problem = cause.problem or "unknown problem parsing YAML content"
        raise _failed(f"yaml: {where}{problem}") from cause
    return found if every else [builder.root]


class _Open(Struct):
    """A collection whose end has not come yet."""

    value: dict[str, Any] | list[Any]
    anchor: str | None
    size: int = 1
    key: str | None = None
    merging: bool = False
    merges: list[dict[str, Any]] = field(default_factory=list)


class _Builder:
    """Makes a value of parser events, without recursion."""

    def __init__(self, duplicate_keys: str) -> None:
        self.root: Any = None
        self._refuse = duplicate_keys == "refuse"
        self._open: list[_Open] = []
        self._anchored: dict[str, tuple[Any, int]] = {}
        self._repeated = 0

    def take(self, event: Any) -> None:
        """Use one event. Raises ``InputError``."""
        kind = type(event).__name__
        if kind == "ScalarEvent":
            self._scalar(event)
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            if len(self._open) >= DEEPEST:
                raise _failed(f"yaml: exceeded max depth of {DEEPEST}")
            if self._expects_key():
                raise _failed(f"yaml: {_line(event)}unsupported map key: it is no scalar")
            empty: dict[str, Any] | list[Any] = {} if kind.startswith("Map") else []
            self._open.append(_Open(empty, event.anchor))
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            self._close()
        elif kind == "AliasEvent":
            self._alias(event)

    def _expects_key(self) -> bool:
        if not self._open:
            return False
        top = self._open[-1]
        return isinstance(top.value, dict) and top.key is None and not top.merging

    def _scalar(self, event: Any) -> None:
        plain = event.implicit[0] and event.tag is None
        if self._expects_key():
            top = self._open[-1]
            if plain and event.value == "<<":
                top.merging = True
            else:
                value = _scalar_value(event, plain)
                self._remember(event.anchor, value, 1)
                top.key = self._checked_key(value, event)
            return
        value = _scalar_value(event, plain)
        size = 1 + len(event.value)
        self._remember(event.anchor, value, size)
        self._put(value, size)

    def _alias(self, event: Any) -> None:
        if event.anchor not in self._anchored:
            open_ones = {frame.anchor for frame in self._open}
            what = (
                f"anchor '{event.anchor}' value contains itself"
                if event.anchor in open_ones
                else f"unknown anchor '{event.anchor}' referenced"
            )
            raise _failed(f"yaml: {what}")
        value, size = self._anchored[event.anchor]
        if self._expects_key():
            self._open[-1].key = self._checked_key(value, event)
            return
        self._repeated += size
        if self._repeated > MOST_REPEATED:
            raise _failed("yaml: document contains excessive aliasing")
        self._put(value, size)

    def _close(self) -> None:
        frame = self._open.pop()
        value = frame.value
        if isinstance(value, dict):
            # Keys of the mapping itself win over merged ones, earlier merges over later.
            for merged in frame.merges:
                for key, inherited in merged.items():
                    value.setdefault(key, inherited)
        self._remember(frame.anchor, value, frame.size)
        self._put(value, frame.size)

    def _remember(self, anchor: str | None, value: Any, size: int) -> None:
        if anchor is not None:
            self._anchored[anchor] = (value, size)

    def _put(self, value: Any, size: int) -> None:
        if not self._open:
            self.root = value
            return
        top = self._open[-1]
        top.size += size
        if isinstance(top.value, list):
            top.value.append(value)
        elif top.merging:
            top.merging = False
            sources = value if isinstance(value, list) else [value]
            if not all(isinstance(source, dict) for source in sources):
                raise _failed("yaml: map merge requires map or sequence of maps as the value")
            top.merges.extend(sources)
        elif top.key is not None:
            top.value[top.key] = value
            top.key = None

    def _checked_key(self, value: Any, event: Any) -> str:
        key = _key(value, event)
        members = self._open[-1].value
        if self._refuse and isinstance(members, dict) and key in members:
            raise _failed(
                "yaml: unmarshal errors:\n  "
                f"line {event.start_mark.line + 1}: key {quoted(key)} already set in map"
            )
        return key


def _key(value: Any, event: Any) -> str:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return gojson.number(value)
        case _:
            raise _failed(f"yaml: {_line(event)}unsupported map key: it is empty or no scalar")


def _scalar_value(event: Any, plain: bool) -> Any:
    text: str = event.value
    tag = event.tag or ""
    if tag == f"{_TAG}binary":
        try:
            return base64.b64decode(text, validate=False).decode()
        except (binascii.Error, UnicodeDecodeError) as cause:
            raise _failed("yaml: !!binary value contains invalid base64 data") from cause
    if not plain and tag not in {_TAG + name for name in ("bool", "int", "float", "null")}:
        return text
    value = plain_value(text)
    if tag == f"{_TAG}float" and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    expected = {"bool": bool, "int": int, "float": float, "null": type(None)}
    if tag and type(value) is not expected[tag.removeprefix(_TAG)]:
        name = tag.removeprefix(_TAG)
        raise _failed(f"yaml: cannot decode !!{_tag_of(value)} `{text[:100]}` as a !!{name}")
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        name = "NaN" if value != value else "+Inf" if value > 0 else "-Inf"
        raise _failed(f"json: unsupported value: {name}")
    return value


def _tag_of(value: Any) -> str:
    names: dict[type, str] = {bool: "bool", int: "int", float: "float", type(None): "null"}
    return names.get(type(value), "str")


def plain_value(text: str) -> Any:
    """What a plain scalar stands for: ``text`` itself if it is a text."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "0123456789+-." or len(text) > _MOST_DIGITS:
        return text
    digits = text if text[0] == "." else text.replace("_", "")
    if match := _INTEGER.fullmatch(digits):
        base = next(name for name in _BASES if match[name] is not None)
        number = int(match[base], _BASES[base])
        if base != "d" and number >= 1 << 64:
            return text  # Go reads no such number; decimal ones become floats there
        return -number if match["sign"] == "-" else number
    if _FLOAT.fullmatch(digits):
        decimal = float(digits)
        return decimal if abs(decimal) != float("inf") else text
    return text


def _line(event: Any) -> str:
    line: int = event.start_mark.line
    return f"line {line + 1}: " if line else ""


def _expect_the_end(events: Iterator[Any]) -> None:
    import yaml

    for event in events:
        if isinstance(event, yaml.ScalarEvent) and event.value == "":
            continue
        if isinstance(event, yaml.NodeEvent):
            raise _failed(f"yaml: {_line(event)}a second document follows the first")


def _failed(reason: str) -> InputError:
    return InputError(f"error converting YAML to JSON: {reason}")
