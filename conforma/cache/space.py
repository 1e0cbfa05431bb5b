"""How much the directory holds, and making room: least recently used first.

One evictor works at a time. It removes nothing that somebody has open: a
reader pins its file with a shared kernel lock, and the evictor takes the
exclusive one before it removes the name. A reader that loses that race has
the file open all the same, or finds nothing and fetches it: a miss, no error.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

from conforma.cache import fs
from conforma.cache.disk import AREAS, PART, Key, LayerStore
from conforma.cache.index import Fact, Index
from conforma.cache.locks import EntryLock
from conforma.cache.stats import Counters
from conforma.cancellation import Cancellation

_LOW_WATER: Final = 0.9
_LEAST_FREED: Final = 64 << 20
_BLOCK: Final = 512
_NEXT_LOOK: Final = 0.02  # seconds


class Stored(Struct, frozen=True):
    """A file in the cache. ``used`` and ``modified`` are in seconds since the epoch."""

    path: Path
    key: Key | None
    size: int
    modified: float
    used: float

    @property
    def is_partial(self) -> bool:
        """Whether it is being written, or was left by somebody who was killed."""
        return self.path.name.endswith(PART)


class Usage(Struct, frozen=True):
    """What the directory holds: numbers of entries and bytes on disk, partials included."""

    entries: int
    bytes: int
    partials: int
    quarantined: int


class Space:
    """Watches over the size of one store.

    ``max_bytes`` of 0 means no limit. ``grace`` is how many seconds leftovers
    are kept.
    """

    def __init__(
        self, store: LayerStore, index: Index, counters: Counters, max_bytes: int, grace: float
    ) -> None:
        self._store = store
        self._index = index
        self._counters = counters
        self._max_bytes = max_bytes
        self._grace = grace
        self._lock = threading.Lock()
        self._estimate: int | None = None
        self._unseen = 0  # bytes we added since the directory was last looked at
        self._running = False

    def usage(self) -> Usage:
        """What is there now, by looking."""
        files = list(self.files())
        quarantined = sum(1 for f in files if f.key is None and not f.is_partial)
        partials = sum(f.is_partial for f in files)
        return Usage(
            len(files) - partials - quarantined, sum(f.size for f in files), partials, quarantined
        )

    def added(self, size: int) -> None:
        """Note that ``size`` bytes were published; makes room, beside the caller, if need be."""
        if not self._max_bytes or not self._store.writable:
            return
        with self._lock:
            self._unseen += size
            # Others add as well, so look again now and then.
            due = self._estimate is None or self._unseen > self._max_bytes // 20
            full = self._estimate is not None and self._estimate + self._unseen > self._max_bytes
            if self._running or not (due or full):
                return
            self._running = True
        threading.Thread(target=self._collect_once, name="cache eviction", daemon=True).start()

    def collect(self, cancellation: Cancellation | None = None) -> int:
        """Remove old leftovers, then entries until the limit is kept; returns bytes freed.

        While another evictor is at it, in whatever process, nothing happens; with a
        ``cancellation`` its end is waited for: it may have looked before the last bytes came.
        """
        while (freed := self._collect(0)) is None:
            if cancellation is None:
                return 0
            cancellation.wait(_NEXT_LOOK)
        return freed

    def clear(self) -> int:
        """Remove every file that nobody reads or writes; returns bytes freed."""
        freed = 0
        for file in list(self.files()):
            if self._store.writable and self._remove(file):
                freed += file.size
                if file.key is not None and not file.is_partial:
                    self._index.forget(file.key)
        return freed

    def make_room(self) -> None:
        """The disk is full: free a part of what we hold, whatever the limit says."""
        with suppress(OSError):  # what cannot even be looked at
            self._collect(_LEAST_FREED)

    def _collect_once(self) -> None:
        try:
            with suppress(OSError):
                self._collect(0)
        finally:
            with self._lock:
                self._running = False

    def _collect(self, at_least: int) -> int | None:
        """Bytes freed; ``None`` if another evictor is at it."""
        if not self._store.writable:
            return 0
        lock = EntryLock.named(self._store, "evict")
        if not lock.try_acquire():
            return None
        try:
            self._drop_locks()
            files = list(self.files())
            freed = sum(f.size for f in files if self._is_rubbish(f) and self._remove(f))
            total = sum(f.size for f in files) - freed
            target = total
            if self._max_bytes and total > self._max_bytes:
                target = int(self._max_bytes * _LOW_WATER)
            if at_least:
                target = min(target, total - max(at_least, total // 10))
            now = time.time()
            for file in sorted(files, key=lambda f: abs(now - f.used), reverse=True):
                if total <= target:
                    break
                if file.key is not None and not file.is_partial and self._remove(file):
                    total -= file.size
                    freed += file.size
                    self._counters.add("evictions")
                    self._index.forget(file.key)
            with self._lock:
                self._estimate, self._unseen = total, 0
            return freed
        finally:
            lock.release()

    def _drop_locks(self) -> None:
        """Remove lock files that nobody used lately: else there is one for each digest there ever was.

        A file goes while we have its lock; who had opened it finds that it has no name any more,
        and tries again.
        """
        locks = self._directories(self._store.root).get("locks")
        for area in self._directories(locks).values():
            for prefix in self._directories(area).values():
                for entry in self._store.files.names(prefix):
                    with suppress(OSError):
                        if self._is_old(entry.stat(follow_symlinks=False).st_mtime):
                            self._drop_lock(Path(entry.path))

    def _drop_lock(self, path: Path) -> None:
        lock = EntryLock.named(self._store, str(path.relative_to(self._store.root / "locks")))
        if not lock.try_acquire():
            return
        try:
            with self._store.files.directory(path.parent, self._store.root) as directory:
                self._store.files.unlink(path, directory)
        finally:
            lock.release()

    def _is_rubbish(self, file: Stored) -> bool:
        return (file.is_partial or file.key is None) and self._is_old(file.modified)

    def _is_old(self, modified: float) -> bool:
        # Compared both ways, so that a clock that jumped does not keep it for ever.
        return abs(time.time() - modified) > self._grace

    def _remove(self, file: Stored) -> bool:
        """Remove a file unless somebody reads or writes it; whether it is gone."""
        lock = None
        if file.is_partial and file.key is not None:
            lock = EntryLock(self._store, file.key)
            if not lock.try_acquire():
                return False
        try:
            with self._store.files.directory(file.path.parent, self._store.root) as directory:
                return self._remove_unused(file.path, directory)
        except OSError:
            return False
        finally:
            if lock is not None:
                lock.release()

    def _remove_unused(self, path: Path, directory: int) -> bool:
        try:
            descriptor = self._store.files.open(path, directory)
        except OSError as error:
            # A symlink, which nobody ever reads: the name goes, and what it leads to stays.
            return error.errno == errno.ELOOP and self._store.files.unlink(path, directory)
        try:
            if not fs.is_unused(descriptor):
                return False
            named = os.stat(path.name, dir_fd=directory, follow_symlinks=False)
            if named.st_ino != os.fstat(descriptor).st_ino:
                return False
            return self._store.files.unlink(path, directory)
        finally:
            os.close(descriptor)

    def files(self) -> Iterator[Stored]:
        """Every file that is there, entries and leftovers."""
        facts = self._index.facts()
        places = self._directories(self._store.root)
        for area in AREAS:
            for algorithm, place in self._directories(places.get(area)).items():
                for prefix in self._directories(place).values():
                    for entry in self._store.files.names(prefix):
                        key = Key(area, algorithm, entry.name.partition(".")[0])
                        yield from self._stored(entry, key, facts.get(str(key)))
        if (quarantine := places.get("quarantine")) is not None:
            for entry in self._store.files.names(quarantine):
                yield from self._stored(entry, None, None)

    def _directories(self, path: Path | None) -> dict[str, Path]:
        """What is below ``path``; a symlink is none, wherever it leads (LC-26)."""
        found = self._store.files.names(path) if path is not None else []
        return {e.name: Path(e.path) for e in found if e.is_dir(follow_symlinks=False)}

    def _stored(
        self, entry: os.DirEntry[str], key: Key | None, fact: Fact | None
    ) -> Iterator[Stored]:
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            return
        now, used = time.time(), status.st_mtime
        if fact is not None and abs(now - fact.used) < abs(now - used):
            used = fact.used  # the nearer one: a clock may have been ahead when either was written
        yield Stored(Path(entry.path), key, status.st_blocks * _BLOCK, status.st_mtime, used)
