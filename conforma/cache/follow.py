"""Following a download: its bytes as they come, and the last ones when they are proven.

A follower reads the file that the download is written to, so any number of
them cost the download nothing, and a slow one keeps nobody waiting. Until the
digest has matched the last block is held back: what was read before the end
was reported may have any content.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from conforma.cache.bell import Bell
from conforma.cache.handles import BlockReader, SharedFile
from conforma.cancellation import Cancellation
from conforma.errors import DigestMismatch

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

HELD_BACK: Final = 32 * 1024
"""Bytes at the end of a blob that nobody sees before the whole of it is verified."""
_LOOK: Final = 0.35  # seconds after which a follower looks without having been woken
_PIECE: Final = 1 << 20


class Sight(NamedTuple):
    """A file that holds the first ``upto`` bytes of a blob; all of them if ``verified``."""

    file: SharedFile
    upto: int
    verified: bool = False


class Diverged(DigestMismatch):
    """A download was started anew, and what it brings is not what was read before."""


class Ride(Protocol):
    """One follower's place in a download."""

    def look(self) -> Sight | None:
        """What can be seen now; from now on the bell rings when there is more.

        Raises the error that the download ended with.
        """
        ...

    def seen(self) -> None:
        """It is enough: the bell need not ring before the next look."""
        ...

    def leave(self) -> None:
        """Nobody follows here any more."""
        ...


class Follower(BlockReader):
    """A position in a blob that is on its way. For one thread at a time.

    ``board`` is called once, with the bell that says that there is more to
    see. ``check`` is called now and then while there is not; what it raises ends the reading.
    """

    def __init__(
        self,
        board: Callable[[Bell], Ride],
        size: int,
        what: str,
        cancellation: Cancellation | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._size = size
        self._what = what
        self._position = 0
        self._delivered = 0  # everything before it was given to the reader
        self._source: SharedFile | None = None
        self._wake = Bell()
        self._cancellation = cancellation
        self._check = check
        self._idle: Callable[[], AbstractContextManager[None]] = nullcontext
        self._unregister = (
            cancellation.on_cancel(self._wake.set) if cancellation is not None else lambda: None
        )
        self._ride: Ride | None = board(self._wake)

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always; what is sought is waited for when it is read."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """What is there, or what comes next; 0 at the verified end."""
        target = memoryview(buffer).cast("B")
        source, upto = self._await(self._position + 1)
        target = target[: max(0, upto - self._position)]
        try:
            return self._advance(source.read_into(target, self._position), len(target))
        finally:
            self._wake.pass_on()

    def blocks(
        self, idle: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> Iterator[bytes]:
        """The rest as it comes, in pieces of at most 1 MiB that all followers share.

        ``idle`` is entered whenever nothing has come, for as long.
        """
        self._idle = idle
        while True:
            source, upto = self._await(self._position + 1)
            if upto <= self._position:
                self._wake.pass_on()
                return
            try:
                if self._wake.next is not None:
                    source.share(self._position, upto)
            finally:
                self._wake.pass_on()
            while self._position < upto:
                block = source.block_at(self._position, upto)
                self._advance(len(block), 1)
                yield block

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move; relative to the end of a blob of unknown size it waits for the end."""
        base = self._position if whence == os.SEEK_CUR else 0
        if whence == os.SEEK_END:
            base = self._size if self._size >= 0 else self.finish()
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """The position, in bytes."""
        return self._position

    @property
    def source(self) -> SharedFile:
        """The complete file, once :meth:`finish` has returned."""
        assert self._source is not None
        return self._source

    def finish(self) -> int:
        """Wait for the end, reading nothing; returns the blob's length.

        Raises the error that the download ended with.
        """
        length = self._await(None)[1]
        self._wake.pass_on()
        return length

    def close(self) -> None:
        """Be interested no more."""
        ride, self._ride = getattr(self, "_ride", None), None
        if ride is not None:
            self._unregister()
            ride.leave()
            self._wake.pass_on()
        self._source = None
        super().close()

    def _await(self, wanted: int | None) -> tuple[SharedFile, int]:
        """A file with the first ``wanted`` bytes, or all there are, and how far it may be read."""
        if self._ride is None:
            raise ValueError("I/O operation on closed file")
        try:
            found = self._look_until(self._ride, wanted)
        except BaseException:
            self._ride.seen()
            self._wake.pass_on()
            raise
        self._ride.seen()
        return found

    def _look_until(self, ride: Ride, wanted: int | None) -> tuple[SharedFile, int]:
        while True:
            self._wake.clear()
            sight = None  # whoever keeps an error does not keep the file open
            if self._cancellation is not None:
                self._cancellation.raise_if_cancelled()
            sight = ride.look()
            if sight is not None:
                upto = sight.upto if sight.verified else self._presentable(sight.upto)
                needed = wanted or 0
                if sight.file is not self._source:
                    needed = max(needed, self._delivered)
                if sight.verified or (wanted is not None and upto >= needed):
                    return self._changed_to(sight.file), upto
            self._wake.pass_on()
            self._check()
            with self._idle():
                self._wake.wait(_LOOK)

    def _advance(self, count: int, wanted: int) -> int:
        if wanted and not count:
            raise Diverged(f"{self._what}: somebody cut off the file that it was written to")
        self._position += count
        self._delivered = max(self._delivered, self._position)
        return count

    def _presentable(self, written: int) -> int:
        if self._size < 0:
            return written - HELD_BACK
        return min(written, self._size - HELD_BACK)

    def _changed_to(self, file: SharedFile) -> SharedFile:
        old = self._source
        if file is not old:
            # Another attempt, perhaps of another process, has taken over.
            if old is not None and self._delivered and old.inode != file.inode:
                self._compare(old, file)
            self._source = file
        return file

    def _compare(self, old: SharedFile, new: SharedFile) -> None:
        at = 0
        while at < self._delivered:
            length = min(_PIECE, self._delivered - at)
            if old.read_at(at, length) != new.read_at(at, length):
                raise Diverged(f"{self._what}: was downloaded again and is not what it was before")
            at += length
