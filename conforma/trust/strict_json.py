"""JSON and base64 that strangers wrote, read without a second interpretation.

A document that two parsers may read differently is refused: what was checked
here must be what a policy sees later.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, Final, NoReturn

from conforma.errors import BadEvidence

# Go's encoding/json, which everybody else in this field uses, stops at 10000;
# Python's own limit is near 1000 and shared with the caller's stack.
MAX_DEPTH: Final = 400
_ESCAPED_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def load_json(data: bytes, what: str) -> Any:
    """The JSON document in ``data``.

    Raises ``BadEvidence``, starting with ``what``, for anything but one UTF-8
    document without duplicate keys, without NaN or infinite numbers, and
    nested at most ``MAX_DEPTH`` deep.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as cause:
        raise BadEvidence(f"{what}: not UTF-8 at byte {cause.start}") from cause
    if not text.strip():
        raise BadEvidence(f"{what}: EOF")
    try:
        document = _decoded(text)
    except json.JSONDecodeError as cause:
        raise BadEvidence(f"{what}: {cause.msg} at byte {_offset(text, cause.pos)}") from cause
    except ValueError as cause:
        raise BadEvidence(f"{what}: {cause}") from cause
    except RecursionError as cause:
        raise BadEvidence(f"{what}: nested more than {MAX_DEPTH} deep") from cause
    # Most documents have fewer brackets than that, and counting them is cheaper.
    if text.count("{") + text.count("[") > MAX_DEPTH and _is_too_deep(document):
        raise BadEvidence(f"{what}: nested more than {MAX_DEPTH} deep")
    if _ESCAPED_SURROGATE.search(text) and _SURROGATE.search(
        json.dumps(document, ensure_ascii=False)
    ):
        raise BadEvidence(f"{what}: half of a surrogate pair")
    return document


def decode_base64(text: str) -> bytes:
    """The bytes of standard base64; line breaks are ignored.

    Raises ``ValueError`` worded as Go's ``encoding/base64`` does, with the
    offset of the offending byte, and, unlike Go, also where the last character
    has bits that mean nothing: two texts must not be one signature.
    """
    raw = text.encode("utf-8", "surrogatepass")
    bare = raw.translate(None, b"\r\n") if b"\n" in raw or b"\r" in raw else raw
    try:
        data = binascii.a2b_base64(bare, strict_mode=True)
    except binascii.Error:
        raise ValueError(f"illegal base64 data at input byte {_base64_fault(raw)}") from None
    # Of what decodes strictly, only the last four characters can be spelt in another way.
    last = data[len(data) - (len(data) % 3 or 3) :] if data else b""
    whole = len(bare) == 4 * -(-len(data) // 3)
    if not whole or binascii.b2a_base64(last, newline=False) != bare[-4:]:
        fault = _base64_fault(raw)
        at = fault if fault < len(raw) else len(raw.rstrip(b"=\r\n")) - 1
        raise ValueError(f"illegal base64 data at input byte {at}")
    return data


def encode_base64(data: bytes) -> str:
    """``data`` in standard base64, without line breaks."""
    return base64.b64encode(data).decode("ascii")


def _base64_fault(raw: bytes) -> int:
    alphabet = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    seen = 0
    for offset, byte in enumerate(raw):
        if byte in b"\r\n":
            continue
        if byte in alphabet:
            seen += 1
            continue
        if byte != ord("=") or seen % 4 < 2:
            return offset
        rest = raw[offset + 1 :].lstrip(b"\r\n")
        at = len(raw) - len(rest)
        if seen % 4 == 2:
            if not rest:
                return len(raw)
            if rest[:1] != b"=":
                return at - 1
            rest = rest[1:].lstrip(b"\r\n")
            at = len(raw) - len(rest)
        return at
    return len(raw) - seen % 4


def _is_too_deep(document: Any) -> bool:
    level = [document] if isinstance(document, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"duplicate key {twice[:100]!r}")
    return result


def _not_a_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"number out of range: {text[:40]}")
    return value


_strictly: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_not_a_number, parse_float=_finite
).decode


def _decoded(text: str) -> Any:
    if text.startswith("\ufeff"):
        raise json.JSONDecodeError("Unexpected UTF-8 BOM (decode using utf-8-sig)", text, 0)
    return _strictly(text)


def _offset(text: str, characters: int) -> int:
    return len(text[:characters].encode("utf-8"))
