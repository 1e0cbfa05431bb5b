"""SafeLayer: a layer as its users see it, whatever stands behind it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, Final, Protocol

from conforma.cache.contents import Contents
from conforma.cache.handles import BUFFER, BlockReader, SharedFile
from conforma.cancellation import Cancellation
from conforma.oci.digest import DiffID, Digest
from conforma.oci.manifest import Descriptor

UNKNOWN: Final = -1
"""The size of a blob about which nothing but its digest is known."""

Fetch = Callable[[int], AbstractContextManager[Iterator[bytes]]]
"""Opens a blob at a byte offset and yields its bytes from there."""


class Source(Protocol):
    """What can produce the two views of a layer."""

    def compressed(self, layer: SafeLayer, cancellation: Cancellation | None = None) -> SharedFile:
        """The bytes as a registry stores them."""
        ...

    def uncompressed(
        self, layer: SafeLayer, cancellation: Cancellation | None = None
    ) -> SharedFile:
        """The plain tar."""
        ...

    def stream(self, layer: SafeLayer, cancellation: Cancellation | None = None) -> BlockReader:
        """The bytes as they come."""
        ...

    def contents(self, layer: SafeLayer, cancellation: Cancellation | None = None) -> Contents:
        """The files."""
        ...

    def contents_at_hand(self, layer: SafeLayer) -> Contents | None:
        """The files, if that costs neither a download nor waiting."""
        ...

    def reads_again(self, layer: SafeLayer) -> bool:
        """Whether the files that were given before still are the layer's; counts if so."""
        ...


class Stream(io.BufferedReader):
    """A reader of a blob. The cheapest way to read all of it is :meth:`blocks`."""

    def __init__(self, source: BlockReader) -> None:
        super().__init__(source, BUFFER)
        self._source = source

    def blocks(self) -> Iterator[bytes]:
        """The rest as it comes, in pieces of at most 1 MiB.

        Readers of one download share them: the bytes of a block are read once, however many
        follow. Raises what reading raises. Read nothing else before the iteration has ended.
        """
        buffered = self._source.tell() - self.tell()
        if buffered:
            yield self.read(buffered)
        try:
            yield from self._source.blocks()
        finally:
            if not self.closed:
                self.tell()  # asks the source, which has moved on


class SafeLayer:
    """One layer: a promise about bytes, and two ways to read them once they are proven."""

    def __init__(
        self,
        source: Source,
        descriptor: Descriptor,
        diff_id: DiffID | None,
        fetch: Fetch,
        origin: str,
        held: SharedFile | None = None,
        image: str = "",
        offers: Callable[[], bool] | None = None,
    ) -> None:
        self._source = source
        self.descriptor = descriptor
        self.diff_id = diff_id
        self.fetch = fetch
        self.origin = origin
        self.held = held
        self.image = image
        self.offers = offers

    @property
    def digest(self) -> Digest:
        """The digest of the compressed bytes."""
        return self.descriptor.digest

    @property
    def size(self) -> int:
        """Length of the compressed bytes."""
        return self.descriptor.size

    @property
    def media_type(self) -> str:
        """The media type the manifest gives the layer."""
        return self.descriptor.media_type

    def compressed(self, cancellation: Cancellation | None = None) -> BinaryIO:
        """The bytes as the registry stores them: complete, and hashed before you see them.

        Raises the error of the download, ``SizeMismatch``, ``DigestMismatch``,
        ``CacheUnusable`` (no room anywhere), ``CacheError`` (called from inside
        a fill), and ``Interrupted`` when ``cancellation``, or else the cache's
        own, says so; that concerns this caller alone.
        """
        return self._source.compressed(self, cancellation).reader()

    def uncompressed(self, cancellation: Cancellation | None = None) -> BinaryIO:
        """The plain tar: complete, and checked against the DiffID if one is known.

        Raises what :meth:`compressed` raises, and ``BadArchive`` or
        ``TooLarge`` when the bytes do not inflate within the limits.
        """
        return self._source.uncompressed(self, cancellation).reader()

    def stream(self, cancellation: Cancellation | None = None) -> Stream:
        """The blob from its beginning while it is still being downloaded, by whomever.

        Any number of readers may follow one download; each has its own
        position, can seek, and belongs to one thread. Nothing that was read is
        proven before the end was reached: the last 32 KiB come only after the
        digest has matched, and reading raises what :meth:`compressed` raises
        if it does not. Close it, or the download runs on for nobody.
        """
        return Stream(self._source.stream(self, cancellation))

    def contents(self, cancellation: Cancellation | None = None) -> Contents:
        """The table of contents, and the files' bytes on demand.

        Raises what :meth:`uncompressed` raises; ``BadArchive`` also when what
        was inflated is not a tar archive.
        """
        return self._source.contents(self, cancellation)

    def contents_at_hand(self) -> Contents | None:
        """The same if it is here already, else ``None`` at once."""
        return self._source.contents_at_hand(self)

    def reads_again(self) -> bool:
        """Whether contents taken before may be used once more instead; that is counted, too."""
        return self._source.reads_again(self)
