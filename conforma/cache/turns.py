"""Whose turn it is to produce an entry, over all processes.

Producing happens under the entry's lock. Whoever does not get it watches: for
the entry to appear, for the holder to fail or die, and for the holder to stop
making progress, after which the watcher goes ahead without the lock, because
a lock is an optimisation and waiting for ever is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct

from conforma.cache.disk import Key, LayerStore
from conforma.cache.follow import Sight
from conforma.cache.locks import EntryLock, Note
from conforma.cache.recent import GrowingFile
from conforma.cache.singleflight import Flight, filling
from conforma.cache.stats import Counters, Outcome
from conforma.errors import AccessDenied, NotFound

R = TypeVar("R")

_SHORTEST_WAIT: Final = 0.001
_LONGEST_WAIT: Final = 0.02


def speaks_only_for_its_origin(error: BaseException) -> bool:
    """Whether a failure says nothing about the same content in another repository."""
    return isinstance(error, NotFound | AccessDenied)


class Produced(Struct, Generic[R], frozen=True):
    """An entry and how we came by it."""

    value: R
    outcome: Outcome


class Turns:
    """Takes turns at producing entries of one store."""

    def __init__(self, store: LayerStore, counters: Counters, patience: float) -> None:
        self._store = store
        self._counters = counters
        self._patience = patience

    def produce(
        self,
        key: Key,
        flight: Flight[Produced[R]],
        find: Callable[[], R | None],
        make: Callable[[], Produced[R]],
        origin: str,
    ) -> Produced[R]:
        """What ``find`` finds or else what ``make`` makes, made by one process at a time.

        Raises what ``make`` raises, here or in the process that was at it
        while we waited; raises ``Abandoned`` when the flight is.
        """
        lock = EntryLock(self._store, key)
        watch = _Watch(self._store, key)
        started = time.monotonic()
        delay = _SHORTEST_WAIT
        try:
            while not lock.try_acquire():
                watch.look(lock.note())
                watch.show(flight)
                if watch.stalled_for() > self._patience:
                    self._counters.add("takeovers")
                    with filling(key):
                        return make()
                flight.wait(delay)
                delay = min(delay * 1.5, _LONGEST_WAIT)
                if (found := find()) is not None:
                    self._counters.add("lock_wait", time.monotonic() - started)
                    return Produced(found, "coalesced")
        finally:
            watch.settle()
        try:
            self._counters.add("lock_wait", time.monotonic() - started)
            if (found := find()) is not None:
                return Produced(found, "coalesced" if watch.attempt else "hits")
            self._share_failure(lock.note(), watch, origin)
            with filling(key):
                lock.begin(origin)
                try:
                    return make()
                except BaseException as error:
                    lock.fail(error, origin)
                    raise
        finally:
            lock.release()

    def _share_failure(self, note: Note | None, watch: _Watch, origin: str) -> None:
        if note is None or not watch.attempt or note.attempt != watch.attempt:
            return
        if not note.failed:
            self._counters.add("takeovers")  # it died or lost interest
            return
        error = note.error()
        if note.origin == origin or not speaks_only_for_its_origin(error):
            raise error


class _Watch:
    """What we saw of another process's attempt while we waited for it."""

    def __init__(self, store: LayerStore, key: Key) -> None:
        self._store = store
        self._key = key
        self._sign: tuple[object, ...] = ()
        self._changed = time.monotonic()
        self._looked = 0.0
        self._followed: GrowingFile | None = None
        self.attempt = ""

    def look(self, note: Note | None) -> None:
        """Remember a running attempt and whether it gets on."""
        if note is not None and not note.failed:
            self.attempt = note.attempt
        now = time.monotonic()
        if now - self._looked < 0.2:
            return
        self._looked = now
        sign: tuple[object, ...] = (note, tuple(_size(p) for p in self._partials()))
        if sign != self._sign:
            self._sign, self._changed = sign, now

    def show(self, flight: Flight[Any]) -> None:
        """Let our followers read what the other process has written so far (LC-35)."""
        if not flight.followers:
            return
        if self._followed is None or self._followed.is_nameless:
            self.settle()
            self._followed = None
            for path in self._partials():
                try:
                    descriptor = self._store.files.open(path)
                except OSError:
                    continue
                self._followed = GrowingFile(descriptor, 0)
                break
        if self._followed is not None:
            size = self._followed.stored_bytes
            flight.show(Sight(self._followed, size), size)

    def settle(self) -> None:
        """Nobody needs to have what the other process wrote last in memory any more."""
        if self._followed is not None:
            self._followed.settle()

    def stalled_for(self) -> float:
        """Seconds without a sign of life from whoever holds the lock."""
        return time.monotonic() - self._changed

    def _partials(self) -> list[Path]:
        return self._store.partials(self._key)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
