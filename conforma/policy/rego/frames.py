"""Frames, as the engine and we write them to each other.

A frame is two big-endian 32-bit lengths, a JSON header and a body of plain
bytes, so that large documents are never quoted inside JSON.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, Final, Protocol

from msgspec import Struct

from conforma import gojson

_LENGTHS = struct.Struct(">II")
_SMALL = 1 << 16
_header_text = json.JSONEncoder(separators=(",", ":")).encode

Bytes = bytes | bytearray | memoryview


class UndefinedType:
    """The type of :data:`Undefined`."""

    def __repr__(self) -> str:
        return "Undefined"


Undefined: Final = UndefinedType()
"""What a builtin returns to have no value, in the sense of Rego."""


class Reader(Protocol):
    """A stream to read from, which may give less than there is room for."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill some of ``buffer``; 0 at the end."""


class RawWriter(Protocol):
    """An unbuffered stream to write to."""

    def write(self, data: memoryview, /) -> int | None:
        """Write some of ``data`` and say how much."""


class Frame(Struct, frozen=True):
    """One message."""

    header: Mapping[str, Any]
    body: bytearray


def read_frame(stream: Reader) -> Frame | None:
    """The next frame; ``None`` when the stream has ended, even amid one."""
    lengths = _exactly(stream, _LENGTHS.size)
    if lengths is None:
        return None
    header_length, body_length = _LENGTHS.unpack(lengths)
    header, body = _exactly(stream, header_length), _exactly(stream, body_length)
    if header is None or body is None:
        return None
    return Frame(json.loads(header), body)


def write_frame(stream: RawWriter, header: Mapping[str, Any], *body: Bytes) -> None:
    """Write one frame; the body's parts follow each other, large ones without a copy.

    Raises ``OverflowError`` for a body that does not fit, ``OSError`` as the stream does.
    """
    text = _header_text(header).encode()
    size = sum(len(part) for part in body)
    if size > 0xFFFFFFFF:
        raise OverflowError(f"a message of {size} bytes is too large for the policy engine")
    head = _LENGTHS.pack(len(text), size) + text
    parts = (b"".join((head, *body)),) if size <= _SMALL else (head, *body)
    for part in parts:
        rest = memoryview(part)
        while rest:
            rest = rest[stream.write(rest) or 0 :]


def encode_answer(value: Any) -> tuple[str, Bytes]:
    """What a builtin returned, for the wire; bytes and text are strings in Rego."""
    if value is Undefined:
        return "undefined", b""
    if isinstance(value, Bytes):
        return "text", value
    if isinstance(value, str):
        return "text", value.encode(errors="surrogateescape")
    return "json", gojson.encode(value, escape_html=False)


def _exactly(stream: Reader, size: int) -> bytearray | None:
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        got = stream.readinto(rest)
        if not got:
            return None
        rest = rest[got:]
    return data
