"""Bells: each wakes one thread, and threads that wait for the same news wake each other in turn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial


class Bell:
    """Rings once for the one thread that waits, or will. Any thread may ring it.

    What ``threading.Event`` does, at half its price: ringing is releasing a lock
    that only the waiter takes. An event makes a new lock for each wait and wakes
    all of any number of waiters; with 64 followers of one download that was half
    of what waking them cost.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.next: Callable[[], None] | None = None
        self.clear()

    def set(self) -> None:
        """Ring. Never blocks; safe to call from a signal handler."""
        with suppress(RuntimeError):  # it has rung already
            self._lock.release()

    def clear(self) -> None:
        """Forget that it rang."""
        self._lock.acquire(blocking=False)

    def wait(self, seconds: float) -> bool:
        """Wait until it rings, and forget that it did; whether it has rung in time."""
        return self._lock.acquire(timeout=seconds)

    def pass_on(self) -> None:
        """Wake whoever is next, if it was this one's turn: the news has been read."""
        following, self.next = self.next, None
        if following is not None:
            following()


class Queue:
    """Bells of those who wait for the same news. Thread safe.

    A round wakes them one after the other: each, when it has what it was woken for, passes it on.
    If all were woken at once they would only wait for each other, at the interpreter and at
    whatever the first of them makes for the rest. One that fails to pass the round on
    costs the others nothing but its time: the next round is a new one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Bell, None] = {}

    def enter(self, bell: Bell) -> None:
        """Be woken by the next round."""
        with self._lock:
            self._waiting[bell] = None

    def leave(self, bell: Bell) -> None:
        """Be woken no more. It may have been this one's turn already: see :meth:`Bell.pass_on`."""
        with self._lock:
            self._waiting.pop(bell, None)

    def ring(self) -> None:
        """Start a round among those who wait now."""
        with self._lock:
            bells = iter(tuple(self._waiting))
        self._ring_next(bells)

    def _ring_next(self, bells: Iterator[Bell]) -> None:
        with self._lock:
            bell = next((bell for bell in bells if bell in self._waiting), None)
            if bell is None:
                return
            del self._waiting[bell]
            bell.next = partial(self._ring_next, bells)
        bell.set()
