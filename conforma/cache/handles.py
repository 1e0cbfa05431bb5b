"""Open files that cannot change any more, shared by any number of readers.

A hundred readers of one entry need one descriptor: each has its own position
and reads with ``pread``. The descriptor is closed with its last holder.
"""

from __future__ import annotations

import io
import os
from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from conforma.cache import fs

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER: Final = 128 * 1024
BLOCK: Final = 1 << 20
"""The largest block, in bytes. Blocks end at its multiples, so readers come to read the same."""


class SharedFile:
    """A complete file, open for reading and, unless it is read at once, pinned against eviction."""

    __slots__ = ("__weakref__", "_descriptor", "size")

    def __init__(self, descriptor: int, size: int, *, pinned: bool = True) -> None:
        self._descriptor = descriptor
        self.size = size
        if pinned:
            fs.pin(descriptor)

    def __del__(self) -> None:
        os.close(self._descriptor)

    @property
    def inode(self) -> tuple[int, int]:
        """Device and inode number."""
        status = os.fstat(self._descriptor)
        return status.st_dev, status.st_ino

    @property
    def is_nameless(self) -> bool:
        """Whether the file has been removed, and lives on only in open handles."""
        return os.fstat(self._descriptor).st_nlink == 0

    @property
    def stored_bytes(self) -> int:
        """Length of the file as the file system reports it now."""
        return os.fstat(self._descriptor).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; fewer only at the end of the file."""
        parts = []
        while length > 0:
            part = os.pread(self._descriptor, length, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, buffer: WriteableBuffer, offset: int) -> int:
        """Fill ``buffer`` from ``offset``; returns how many bytes there were."""
        return os.preadv(self._descriptor, [buffer], offset)

    def block_at(self, offset: int, upto: int) -> bytes:
        """The bytes from ``offset`` to the next multiple of 1 MiB, or to ``upto`` before it."""
        return self.read_at(offset, min(upto, offset - offset % BLOCK + BLOCK) - offset)

    def share(self, offset: int, upto: int) -> None:
        """Prepare for many readers who will soon want the blocks from ``offset`` to ``upto``."""

    def fileno(self) -> int:
        """The descriptor, for ``sendfile``; it stays ours, and its position has no meaning."""
        return self._descriptor

    def reader(self) -> BinaryIO:
        """An independent handle at position 0."""
        return cast(BinaryIO, io.BufferedReader(self.raw_reader(), BUFFER))

    def raw_reader(self) -> BlockReader:
        """The same without a buffer."""
        return _Reader(self)


class BlockReader(io.RawIOBase):
    """A position in a blob, from which it can also be taken in large pieces."""

    @abstractmethod
    def blocks(self) -> Iterator[bytes]:
        """The rest, in pieces of at most 1 MiB, which other readers may hold as well."""


class _Reader(BlockReader):
    """One reader's position in a :class:`SharedFile`."""

    def __init__(self, file: SharedFile) -> None:
        self._file: SharedFile | None = file
        self._position = 0

    def _open(self) -> SharedFile:
        if self._file is None:
            raise ValueError("I/O operation on closed file")
        return self._file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        count = self._open().read_into(buffer, self._position)
        self._position += count
        return count

    def blocks(self) -> Iterator[bytes]:
        while block := self._open().block_at(self._position, self._open().size):
            self._position += len(block)
            yield block

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._open().size}
        position = base[whence] + offset
        if position < 0:
            raise ValueError("negative seek position")
        self._position = position
        return position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        self._file = None
        super().close()
