"""A layer's two forms as files: inflate what a registry stores, walk what comes out."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

from conforma.oci.inflate import PIECE_IN, Limits, inflated
from conforma.oci.tar import TarEntry, TarWalker

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


def inflate(fileobj: BinaryIO, media_type: str, limits: Limits | None = None) -> BinaryIO:
    """``fileobj``'s plain bytes as a file that can be read forward. Raises like :func:`inflated`."""
    pieces = inflated(pieces_of(fileobj), media_type, limits)
    return cast(BinaryIO, io.BufferedReader(_IteratorFile(pieces), PIECE_IN))


def walk(fileobj: BinaryIO, what: str = "layer") -> Iterator[TarEntry]:
    """The members of a plain tar, in order, as :class:`~conforma.oci.tar.TarWalker` sees them."""
    found: list[TarEntry] = []
    walker = TarWalker(found.append, what)
    for piece in pieces_of(fileobj):
        walker.feed(piece)
        yield from found
        found.clear()
    walker.finish()


def pieces_of(fileobj: BinaryIO) -> Iterator[bytes]:
    """A file's content in pieces of the size that suits the decoders."""
    while piece := fileobj.read(PIECE_IN):
        yield piece


class _IteratorFile(io.RawIOBase):
    """Pieces from an iterator as a raw file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._rest))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
