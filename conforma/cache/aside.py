"""Work on pieces by another thread than the one that makes them, while a core is free for it.

Inflating a layer takes as long as hashing it and listing what is in it. One layer
alone is made faster by a second thread; where several are made at once, the threads
they have keep all cores busy, and more would only take the interpreter from each other.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, Self

_AHEAD: Final = 8
"""Pieces that may wait; a piece of a layer is 1 MiB at most."""


class Cores:
    """How many threads keep the processor busy, against how many it has cores for. Thread safe."""

    def __init__(self, count: int | None = None) -> None:
        self._count = count or _usable()
        self._busy = 0
        self._lock = threading.Lock()

    def take(self) -> None:
        """One more is busy, whether there is a core for it or not."""
        with self._lock:
            self._busy += 1

    def take_spare(self) -> bool:
        """One more is busy if there is a core for it; whether there is."""
        with self._lock:
            if self._busy >= self._count:
                return False
            self._busy += 1
            return True

    def give_back(self) -> None:
        """One fewer is busy."""
        with self._lock:
            self._busy -= 1


class Aside:
    """Gives pieces to ``work``, one after the other, in a thread of its own if a core is free.

    That may be found at any piece but the first: what is small is not worth a thread. The
    maker of the pieces gets at most eight of them ahead. For one thread to use.
    """

    def __init__(self, work: Callable[[bytes], None], cores: Cores) -> None:
        self._work = work
        self._cores = cores
        self._begun = False
        self._thread: threading.Thread | None = None
        self._waiting: SimpleQueue[bytes | None] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self._cores.take()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is not None:
                self._error = self._error or error  # what waits need not be worked on
            self._join()
        finally:
            self._cores.give_back()

    def feed(self, piece: bytes) -> None:
        """Have ``piece`` worked on, now or soon. Raises what that, or an earlier one, raised."""
        if self._thread is None and (not self._begun or not self._start()):
            self._begun = True
            self._work(piece)
            return
        self._room.get()
        if self._error is not None:
            raise self._error
        self._waiting.put(piece)

    def finish(self) -> None:
        """All pieces have been worked on. Raises what that raised."""
        self._join()
        if self._error is not None:
            raise self._error

    def _start(self) -> bool:
        if not self._cores.take_spare():
            return False
        thread = threading.Thread(target=self._run, name="aside", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread to be had: it goes more slowly
            self._cores.give_back()
            return False
        for _ in range(_AHEAD):
            self._room.put(None)
        self._thread = thread
        return True

    def _run(self) -> None:
        while (piece := self._waiting.get()) is not None:
            if self._error is None:
                try:
                    self._work(piece)
                except BaseException as error:
                    self._error = error
            self._room.put(None)

    def _join(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(None)
            thread.join()
            self._cores.give_back()


def _usable() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
