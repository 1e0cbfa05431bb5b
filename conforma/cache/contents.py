"""A layer's files: its table of contents, and their bytes from the plain tar."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

from conforma.cache.handles import SharedFile
from conforma.cache.toc import Row, Toc
from conforma.errors import DigestMismatch, TooLarge
from conforma.oci.layer import walk
from conforma.oci.tar_entry import TarEntry


class Contents:
    """What is in one layer.

    ``plain`` opens the plain tar when the first byte is wanted; ``distrust``
    is told about a tar whose bytes do not fit the table.
    """

    def __init__(
        self,
        toc: Toc,
        plain: Callable[[], SharedFile],
        distrust: Callable[[SharedFile], None],
        what: str,
    ) -> None:
        self.toc = toc
        self._plain = plain
        self._distrust = distrust
        self._what = what

    def members(self) -> Iterator[TarEntry]:
        """All members of the archive, in its order."""
        with self._plain().reader() as source:
            yield from walk(source, self._what)

    def read(self, row: Row, path: str, limit: int) -> bytes:
        """The bytes of a file, checked against the table.

        Raises ``TooLarge`` when it is longer than ``limit`` bytes, and
        ``DigestMismatch`` when even a freshly made tar does not fit.
        """
        if row.size > limit:
            raise TooLarge(
                f"{self._what}: {path} has {row.size} bytes, over the limit of {limit} for one file"
            )
        stored = row.size
        if row.fragments is not None:
            stored = sum(fragment.length for fragment in row.fragments)
        for _ in range(2):
            plain = self._plain()
            data = plain.read_at(row.offset, stored)
            if len(data) == stored and zlib.crc32(data) == row.crc:
                return data if row.fragments is None else _expanded(row, data)
            self._distrust(plain)
        raise DigestMismatch(f"{self._what}: the bytes of {path} are not those of the layer")


def _expanded(row: Row, data: bytes) -> bytes:
    """A sparse file in full length."""
    content = bytearray(row.size)
    at = 0
    for start, length in row.fragments or ():
        content[start : start + length] = data[at : at + length]
        at += length
    return bytes(content)
