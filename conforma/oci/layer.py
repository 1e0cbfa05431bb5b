"""The plain tar of a layer as a file: its members, and its content in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from conforma.oci.inflate import PIECE_IN
from conforma.oci.tar import TarWalker
from conforma.oci.tar_entry import TarEntry


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
