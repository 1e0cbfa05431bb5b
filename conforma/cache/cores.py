"""Layers are unpacked by as many threads as there are cores, however many are on their way.

More threads would not unpack faster. They would hand the interpreter lock around among each
other, for every piece of every layer, and take it from whoever has something else to do.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from conforma.cache.forked import renew_in_children

_LOOK: Final = 0.25  # seconds after which a waiting thread asks whether it is still wanted


class Cores:
    """A core for each of ``count`` threads, by default for as many as we may use. Thread safe."""

    def __init__(self, count: int | None = None) -> None:
        self._count = count or _usable()
        self.reset_after_fork()
        renew_in_children(self)

    def spare(self) -> bool:
        """Whether a core has nothing to do: there are several, and one layer alone is on its way."""
        return self._layers == 1 and self._count > 1

    @contextmanager
    def one(self, check: Callable[[], None]) -> Iterator[Core]:
        """A core while inside, waited for if need be; what ``check`` raises ends the waiting."""
        core = Core(self._free, check)
        with self._lock:
            self._layers += 1
        try:
            core.take()
            yield core
        finally:
            core.give_back()
            with self._lock:
                self._layers -= 1

    def reset_after_fork(self) -> None:
        """The threads that had cores do not exist in a forked child."""
        self._free = threading.Semaphore(self._count)
        self._lock = threading.Lock()
        self._layers = 0  # that have a core, wait for one, or wait for bytes


class Core:
    """What one thread has of :class:`Cores`, or waits for."""

    def __init__(self, free: threading.Semaphore, check: Callable[[], None]) -> None:
        self._free = free
        self._check = check
        self._held = False

    @contextmanager
    def rest(self) -> Iterator[None]:
        """Leave the core to others while inside, for waiting; without one nothing happens."""
        if not self._held:
            yield
            return
        self.give_back()
        yield
        self.take()

    def take(self) -> None:
        """Wait for the core. Raises what ``check`` raises."""
        while not self._free.acquire(timeout=_LOOK):
            self._check()
        self._held = True

    def give_back(self) -> None:
        """Let go of the core, if it is held."""
        if self._held:
            self._held = False
            self._free.release()


def _usable() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
