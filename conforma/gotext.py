"""Small pieces of text exactly as Go's standard library writes them.

Messages of the Go tool are part of the contract, and many of them quote what
they complain about or name a point in time.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from conforma import gojson
from conforma.errors import InputError

_TRUE: Final = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE: Final = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_NAMED: Final = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}


def parse_bool(text: str) -> bool:
    """A boolean as ``strconv.ParseBool`` reads it. Raises ``InputError`` with its words."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise InputError(f"strconv.ParseBool: parsing {quoted(text)}: invalid syntax")


def quoted(text: str) -> str:
    """``text`` in double quotes, as ``%q`` prints it: no control character survives."""
    return '"' + "".join(_escaped(char) for char in text) + '"'


def single_quoted(text: str) -> str:
    """``text`` in single quotes with the escapes of :func:`quoted`."""
    inner = quoted(text)[1:-1].replace('\\"', '"').replace("'", "\\'")
    return f"'{inner}'"


def printed(value: object) -> str:
    """A JSON value as ``%v`` prints it."""
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{printed(value[key])}' for key in sorted(value))}]"
    if isinstance(value, list | tuple):
        return f"[{' '.join(map(printed, value))}]"
    if value is None:
        return "<nil>"
    return value if isinstance(value, str) else gojson.dumps(value)


def _escaped(char: str) -> str:
    if char in _NAMED:
        return _NAMED[char]
    if char.isprintable():
        return char
    code = ord(char)
    if 0xD800 <= code < 0xE000:  # undecodable bytes, as os.fsdecode keeps them
        return f"\\x{code & 0xFF:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def rfc3339(moment: datetime) -> str:
    """A moment in UTC to the second, as Go's ``time.RFC3339`` prints it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
