"""The short way for most members of an archive: nothing unusual in the header, and all of it here.

Reading tens of thousands of headers with all the rules of the formats takes
longer than inflating the layer. Nine of ten members are files, directories and
symlinks with an ordinary ustar or GNU header; those are read here in one loop,
with what repeats from header to header (owners, times, checksums) remembered.
Whatever is not plainly ordinary, or is wrong, is left to the walker.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache
from struct import Struct
from typing import Final

from conforma.oci.inflate import gzip_module
from conforma.oci.tar_entry import BLOCK, Kind, TarEntry
from conforma.oci.tar_fields import Fields, text

# POSIX.1-2017 pax, "ustar Interchange Format": name, mode to gid, size and how it
# ends, time, checksum, type flag, link name, magic, first byte of the name's prefix.
_HEADER: Final = Struct("100s24s11sc12s8sc100s8s80xc166x")
_KINDS: Final[dict[bytes, Kind]] = {b"0": "file", b"5": "directory", b"2": "symlink"}
_MAGICS: Final = (b"ustar\x0000", b"ustar  \x00")
_ENDS: Final = (b"\0", b" ")
_REMEMBERED: Final = 4096
# Over what is longer than this the interpreter lock is given up for a moment, and getting it back
# from threads that unpack other layers takes longer than the sum; a large member is worth it.
_AT_ONCE: Final = 5 * 1024
_MANY: Final = 128 * 1024
_MODULUS: Final = 65521  # of Adler-32 (RFC 1950, 8.2)


class OrdinaryMembers:
    """Reads ordinary members for one walker and gives them to ``on_entry``."""

    def __init__(self, fields: Fields, on_entry: Callable[[TarEntry], None]) -> None:
        self._on_entry = on_entry
        self._owner = lru_cache(_REMEMBERED)(fields.owner)
        self._time = lru_cache(_REMEMBERED)(fields.time)
        self._crc32 = gzip_module().crc32

    def take(self, data: bytes, at: int, base: int) -> int:
        """Read members of ``data`` from ``at``, a header, on; return where the first other is.

        ``base`` is the position of ``data`` in the archive. Raises what
        ``on_entry`` raises, and ``BadArchive`` for numbers that are none.
        """
        view, end = memoryview(data), len(data)
        unpack, adler32, crc32 = _HEADER.unpack_from, zlib.adler32, self._crc32
        # Called as it is, since a tuple's own _make is Python, for tens of thousands of them.
        on_entry, make = self._on_entry, tuple.__new__
        while (body := at + BLOCK) <= end:
            name, owner, digits, ending, time, stated, flag, link, magic, prefix = unpack(data, at)
            kind = _KINDS.get(flag)
            if (
                kind is None or magic not in _MAGICS or ending not in _ENDS
                or not digits.isdigit() or (prefix != b"\0" and magic == _MAGICS[0])
                or adler32(view[at:body]) & 0xFFFF != _adler_of(stated)
            ):  # fmt: skip
                return at
            try:
                size = int(digits, 8) if kind == "file" else 0
            except ValueError:
                return at
            name = name.partition(b"\0")[0]
            after = body + size
            if after > end or (kind == "file" and name.endswith(b"/")):
                return at
            mode, uid, gid = self._owner(owner)
            path = name.decode("utf-8", "surrogateescape")
            target = text(link).decode("utf-8", "surrogateescape") if link[0] else ""
            content = view[body:after]
            if _AT_ONCE < size <= _MANY:
                crc = crc32(content[:_AT_ONCE])
                for start in range(_AT_ONCE, size, _AT_ONCE):
                    crc = crc32(content[start : start + _AT_ONCE], crc)
            else:
                crc = crc32(content)
            on_entry(
                make(TarEntry, (path, kind, mode, uid, gid, size, base + body, target,
                                self._time(time), crc, None))
            )  # fmt: skip
            at = after + -size % BLOCK
        return at


@lru_cache(_REMEMBERED)
def _adler_of(stated: bytes) -> int:
    """The lower half of Adler-32 of a header with this checksum field; -1 if it is malformed."""
    digits = stated.strip(b" \0")
    if not digits.isdigit():
        return -1
    # It is the sum of all bytes plus one; the checksum counts its own field as blanks.
    try:
        return (int(digits, 8) + 1 - sum(b" " * len(stated)) + sum(stated)) % _MODULUS
    except ValueError:
        return -1
