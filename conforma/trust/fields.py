"""Members of JSON documents that strangers wrote, each of the kind it has to be.

Every function raises ``BadEvidence``, starting with ``what``, for a value of
another kind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from conforma.errors import BadEvidence
from conforma.trust.strict_json import decode_base64

_HEX: Final = re.compile("(?:[0-9a-f]{2})*")
_DIGITS: Final = re.compile("[0-9]{1,20}")
_SAFE_INTEGER: Final = 2**53


def an_object(value: object, what: str) -> Mapping[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise BadEvidence(f"{what}: an object is missing")
    return value


def a_list(value: object, what: str) -> list[Any]:
    """A JSON array; ``null`` and a member that is not there are an empty one."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadEvidence(f"{what}: a list is missing")
    return value


def a_text(value: object, what: str) -> str:
    """A JSON string."""
    if not isinstance(value, str):
        raise BadEvidence(f"{what}: a string is missing")
    return value


def from_base64(value: object, what: str) -> bytes:
    """The bytes of a base64 string."""
    try:
        return decode_base64(a_text(value, what))
    except ValueError as cause:
        raise BadEvidence(f"{what}: {cause}") from cause


def from_hex(value: object, what: str) -> bytes:
    """The bytes of a string of lower-case hexadecimal digits."""
    text = a_text(value, what)
    if not _HEX.fullmatch(text):
        raise BadEvidence(f"{what}: {text[:40]!r} is not lower-case hexadecimal")
    return bytes.fromhex(text)


def an_integer(value: object, what: str) -> int:
    """An index, a size or a time: a number, or its digits in a string as protobuf has it."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _SAFE_INTEGER:
        raise BadEvidence(f"{what}: {str(value)[:40]!r} is not an index, a size or a time")
    return value
