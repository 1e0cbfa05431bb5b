"""Where bytes go while they are checked: the cache, or beside it if it cannot take them.

A full disk or an unwritable directory costs the cache an entry, never the
caller an answer: what was written so far moves to an anonymous temporary file
and the download goes on (LC-22).
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from conforma.cache import fs
from conforma.cache.disk import DiskTrouble, Key, LayerStore, Partial
from conforma.cache.handles import SharedFile
from conforma.cache.recent import GrowingFile
from conforma.errors import CacheUnusable

T = TypeVar("T")

# With no disk left at all, this much may live in memory.
_MEMORY: Final = 64 << 20


class Spill:
    """An anonymous temporary file: nobody else sees it, it is gone when closed."""

    def __init__(self) -> None:
        self.size = 0
        try:
            with tempfile.TemporaryFile(prefix="conforma-", buffering=0) as file:
                self._descriptor = os.dup(file.fileno())
            self._room: int | None = None
        except OSError:
            with _no_room():
                self._descriptor = os.memfd_create("conforma")
            self._room = _MEMORY

    def write(self, data: bytes | memoryview) -> None:
        """Append. Raises ``CacheUnusable`` when there is no room anywhere."""
        if self._room is not None and self.size + len(data) > self._room:
            raise CacheUnusable("no disk space for a layer, neither in the cache nor beside it")
        rest = memoryview(data)
        self.size += len(rest)
        with _no_room():
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def follow(self) -> GrowingFile:
        """A handle that sees what is written from now on as well. Raises ``CacheUnusable``."""
        with _no_room():
            return GrowingFile(os.dup(self._descriptor), self.size)

    def finish(self) -> SharedFile:
        """A handle on everything that was written. Raises ``CacheUnusable``."""
        with _no_room():
            return SharedFile(os.dup(self._descriptor), self.size)

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptor", None)
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def _no_room() -> Iterator[None]:
    """What ends the last resort: there is nowhere else to put the bytes."""
    try:
        yield
    except OSError as cause:
        hint = "free some space, or set TMPDIR to a directory that has some"
        if cause.errno in (errno.EMFILE, errno.ENFILE):
            hint = "allow more open files (ulimit -n), or judge fewer components at a time"
        raise CacheUnusable(
            f"cannot write a temporary file: {cause.strerror}", hint=hint
        ) from cause


class CacheSink:
    """Writes to a partial of the store, or spills when the store fails.

    ``make_room`` is tried once before giving the store up. ``strict`` raises
    ``CacheUnusable`` instead of spilling.
    """

    def __init__(
        self, store: LayerStore, key: Key, *, strict: bool, make_room: Callable[[], None]
    ) -> None:
        self._strict = strict
        self._store = store
        self._make_room: Callable[[], None] | None = make_room
        self._partial: Partial | None = None
        self._spill: Spill | None = None
        self._followed: tuple[Spill | Partial, GrowingFile] | None = None
        self._name = str(key)
        try:
            if not store.writable:
                raise DiskTrouble(0, "the directory is read-only")
            self._partial = self._twice(lambda: store.begin(key))
        except DiskTrouble as trouble:
            self._divert(trouble)

    @property
    def stored(self) -> bool:
        """Whether the bytes are still on their way into the cache."""
        return self._spill is None

    @property
    def size(self) -> int:
        """Bytes written so far."""
        target = self._spill or self._partial
        return target.size if target else 0

    def follow(self) -> SharedFile:
        """A handle on what was written and will be; another one once the store has failed us."""
        target = self._spill or self._partial
        assert target is not None
        if self._followed is None or self._followed[0] is not target:
            self.settle()
            try:
                self._followed = (target, target.follow())
            except DiskTrouble as trouble:
                spill = self._divert(trouble)
                self._followed = (spill, spill.follow())
        return self._followed[1]

    def settle(self) -> None:
        """Nobody needs to have the file's last blocks in memory any more."""
        if self._followed is not None:
            self._followed[1].settle()

    def write(self, data: bytes | memoryview) -> None:
        """Append, in the cache if possible. Raises ``CacheUnusable``."""
        spill = self._spill
        if spill is None:
            assert self._partial is not None
            write = self._partial.write
            try:
                return self._twice(lambda: write(data))
            except DiskTrouble as trouble:
                spill = self._divert(trouble)
        spill.write(data)
        return None

    def publish(self, key: Key, *, durable: bool) -> SharedFile:
        """Publish under ``key``, or return the spilled bytes if that cannot be."""
        spill = self._spill
        if spill is None:
            assert self._partial is not None
            try:
                return self._partial.publish(key, durable=durable)
            except DiskTrouble as trouble:
                spill = self._divert(trouble)
        return spill.finish()

    def keep(self) -> None:
        """Leave what was written for a successor."""
        if self._partial is not None and self._spill is None:
            self._partial.keep()

    def discard(self) -> None:
        """Leave nothing."""
        if self._partial is not None:
            self._partial.discard()

    def _twice(self, step: Callable[[], T]) -> T:
        try:
            return step()
        except DiskTrouble as trouble:
            make_room, self._make_room = self._make_room, None
            if make_room is None or trouble.errno not in fs.FULL:
                raise
            make_room()
            return step()

    def _divert(self, trouble: DiskTrouble) -> Spill:
        if self._strict:
            raise CacheUnusable(
                f"cannot store {self._name}: {trouble.strerror}",
                hint="free some space, or allow bytes to bypass the cache",
            ) from trouble
        if self._store.writable:
            self._store.complain(trouble)
        spill = self._spill = Spill()
        if self._partial is not None:
            for piece in self._partial.pieces():
                spill.write(piece)
            self._partial.discard()
        return spill
