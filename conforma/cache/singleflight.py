"""One run of a piece of work for all who want its result at the same moment.

The work runs in a thread of its own, which belongs to no caller: so a caller
that is cancelled, or stops waiting, takes nothing away from the others, and
no worker pool can fill up with waiters while the work they wait for is queued
behind them. The work ends early only when nobody wants it any more.
"""

from __future__ import annotations

import contextvars
import copy
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar

from conforma.cache.bell import Bell, Queue
from conforma.cache.forked import renew_in_children
from conforma.cancellation import Cancellation
from conforma.errors import CacheError, Interrupted

T = TypeVar("T")

# Seconds between two rounds of waking, for each of those who follow. Waking costs the
# interpreter, which the work needs as well, so it gets little of the time; yet one that
# follows a fast download finds pieces worth being woken for. Followers look by themselves
# every third of a second, all at once, so a round comes sooner. After so many bytes waking
# costs less than that they wait, because they find them in memory only for a while (see recent.py).
_PAUSE_EACH: Final = 0.004
_LONGEST_PAUSE: Final = 0.25
_ENOUGH: Final = 6 << 20

_filling = threading.local()


class Abandoned(Interrupted):
    """Nobody waits for this work any more."""


@contextmanager
def filling(key: object) -> Iterator[None]:
    """Mark this thread as producing ``key``; until then it may ask for nothing else."""
    _filling.key = key
    try:
        yield
    finally:
        del _filling.key


def refuse_reentry(wanted: object) -> None:
    """Raise ``CacheError`` when this thread is inside a fill: it would wait for itself."""
    current = getattr(_filling, "key", None)
    if current is not None:
        raise CacheError(
            f"{wanted} was requested from inside the fill of {current}",
            hint="a fetch callback must not read from the cache it fills",
        )


class Flight(Generic[T]):
    """One running piece of work and those who wait for it."""

    def __init__(self, group: SingleFlight[T], key: Hashable, label: object = None) -> None:
        self._group = group
        self.key = key
        self.label = label
        self.interested = 1
        self.result: T | None = None
        self.error: BaseException | None = None
        self.done = False
        self.sight: Any = None
        """What followers may see of the result while it is being made; see :meth:`show`."""
        self.waiters: list[threading.Event | Bell] = []
        self.followers: list[Bell] = []
        self.queue = Queue()
        """Those of the followers who wait for more to be shown."""
        self._woken = 0.0  # when the followers were, in seconds
        self._woken_at = 0  # and how far the work was then, in bytes
        self.afterwards: list[Callable[[Flight[T]], None]] = []

    def raise_if_abandoned(self) -> None:
        """Raise :class:`Abandoned`, once and for all, if nobody is interested any more.

        Whoever asks for the key after that starts a new flight.
        """
        with self._group.lock:
            if self.interested > 0:
                return
            self._group.forget(self)
        raise Abandoned("nobody waits for this download any more")

    def show(self, sight: Any, reached: int, *, final: bool = False) -> None:
        """Let followers see how far the work has come, ``reached`` bytes.

        They are woken now if it is ``final``, or if it is long enough, or far enough,
        since the last time; else by the next sight, or they look by themselves.
        """
        self.sight = sight
        now = time.monotonic()
        if (
            final
            or reached - self._woken_at >= _ENOUGH
            or now - self._woken >= min(_PAUSE_EACH * max(1, len(self.followers)), _LONGEST_PAUSE)
        ):
            self._woken, self._woken_at = now, reached
            self.queue.ring()

    def wait(self, seconds: float) -> None:
        """Sleep as a part of the work; raises :class:`Abandoned`."""
        self.raise_if_abandoned()
        threading.Event().wait(seconds)
        self.raise_if_abandoned()


class SingleFlight(Generic[T]):
    """Runs work at most once per key at a time, over all threads of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._flights: dict[Hashable, Flight[T]] = {}
        self._threads: dict[threading.Thread, Flight[T]] = {}
        renew_in_children(self)

    def run(
        self,
        key: Hashable,
        work: Callable[[Flight[T]], T],
        cancellation: Cancellation | None = None,
        *,
        label: object = None,
        not_mine: Callable[[BaseException, object], bool] | None = None,
    ) -> tuple[T, bool]:
        """The work's result, and whether this call was the one that started it.

        Raises what the work raised, in every caller, with the original as the
        cause; nothing is remembered, so the next call starts again. Raises
        ``Interrupted`` or ``DeadlineExceeded`` in this caller alone when
        ``cancellation`` says so, and ``CacheError`` when called from inside a
        fill. A caller that joined asks ``not_mine``, with the error and the
        ``label`` of whoever started, whether the failure says nothing about
        its own request; if so, it tries for itself.
        """
        refuse_reentry(key)
        while True:
            flight, started = self._join(key, work, cancellation, label)
            if flight.error is None:
                return flight.result, started  # type: ignore[return-value]
            if started or not_mine is None or not not_mine(flight.error, flight.label):
                raise fresh(flight.error) from flight.error

    def _join(
        self,
        key: Hashable,
        work: Callable[[Flight[T]], T],
        cancellation: Cancellation | None,
        label: object,
    ) -> tuple[Flight[T], bool]:
        arrived = threading.Event()
        flight, started = self.board(key, work, arrived, label=label)
        unregister = cancellation.on_cancel(arrived.set) if cancellation else None
        try:
            arrived.wait()
            if not flight.done and cancellation is not None:
                cancellation.raise_if_cancelled()
        finally:
            if unregister:
                unregister()
            self.leave(flight)
        return flight, started

    def board(
        self,
        key: Hashable,
        work: Callable[[Flight[T]], T],
        wake: threading.Event | Bell,
        *,
        label: object = None,
    ) -> tuple[Flight[T], bool]:
        """Be interested in ``key`` without waiting for it, until :meth:`leave`.

        Returns the flight, and whether this call started it. ``wake`` is set
        when it has landed; whoever gives a bell also hears when it shows more.
        """
        with self.lock:
            flight = self._flights.get(key)
            started = flight is None
            if flight is None:
                flight = self._flights[key] = Flight(self, key, label)
            else:
                flight.interested += 1
            flight.waiters.append(wake)
            if isinstance(wake, Bell):
                flight.followers.append(wake)
        if started:
            self._start(flight, work)
        return flight, started

    def leave(self, flight: Flight[T], wake: Bell | None = None) -> None:
        """Be interested no more; once for each :meth:`board`."""
        with self.lock:
            flight.interested -= 1
            if wake in flight.followers:
                flight.followers.remove(wake)
        if wake is not None:
            flight.queue.leave(wake)

    def afterwards(self, flight: Flight[T], call: Callable[[Flight[T]], None]) -> None:
        """Have ``call`` called when the flight has landed; at once if it has."""
        with self.lock:
            if not flight.done:
                flight.afterwards.append(call)
                return
        call(flight)

    def forget(self, flight: Flight[T]) -> None:
        """Let the next caller start anew. The lock must be held."""
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]

    def join(
        self,
        seconds: float,
        longer: float = 0.0,
        deserves: Callable[[Flight[T]], bool] = lambda _flight: False,
    ) -> None:
        """Wait so long, altogether, for running work to end; ``longer`` for what ``deserves`` it.

        Used when the cache is closed.
        """
        with self.lock:
            # One that has not begun yet, or for which there is no thread, cannot be joined.
            threads = {t: flight for t, flight in self._threads.items() if t.ident is not None}
        deadline = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        deadline = time.monotonic() + longer
        for thread, flight in threads.items():
            if thread.is_alive() and deserves(flight):
                thread.join(max(0.0, deadline - time.monotonic()))

    def _start(self, flight: Flight[T], work: Callable[[Flight[T]], T]) -> None:
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run,
            args=(self._work, flight, work),
            name=f"fill {flight.key}",
            daemon=True,
        )
        with self.lock:
            self._threads[thread] = flight
        try:
            thread.start()
        except BaseException as error:  # no thread to be had: everybody must hear of it
            self._land(flight, None, error)
            self._threads.pop(thread, None)

    def _work(self, flight: Flight[T], work: Callable[[Flight[T]], T]) -> None:
        result, error = None, None
        try:
            result = work(flight)
        except BaseException as caught:
            error = caught
            _forget_locals(error)
        self._land(flight, result, error)
        with self.lock:
            self._threads.pop(threading.current_thread(), None)

    def _land(self, flight: Flight[T], result: T | None, error: BaseException | None) -> None:
        with self.lock:
            # Forgotten and done in one step: who comes later finds no flight.
            self.forget(flight)
            flight.result, flight.error, flight.done = result, error, True
            waiters, flight.waiters = flight.waiters, []
            # Whoever looks from now on sees the result. Cleared, because these
            # refer back to the flight, whose files must not wait for the collector.
            calls, flight.afterwards = flight.afterwards, []
            flight.followers, flight.sight = [], None
        for call in calls:
            call(flight)
        for event in waiters:
            event.set()

    def reset_after_fork(self) -> None:
        """In a forked child the threads that did the work do not exist."""
        self.lock = threading.Lock()
        self._flights = {}
        self._threads = {}


def fresh(error: BaseException) -> BaseException:
    """A copy of ``error`` to raise, as one object must not be raised in many threads."""
    try:
        fresh = copy.copy(error)
    except Exception:
        return error
    return fresh.with_traceback(None)


def _forget_locals(error: BaseException) -> None:
    """Let go of what the functions had open that ``error`` went through.

    Its traceback would keep their files open, and with them pinned against eviction: for as
    long as somebody keeps the error, and, as the flight does, until the collector runs.
    """
    from traceback import clear_frames

    waiting: list[BaseException | None] = [error]
    seen = set()
    while waiting:
        found = waiting.pop()
        if found is not None and id(found) not in seen:
            seen.add(id(found))
            clear_frames(found.__traceback__)
            waiting += (found.__cause__, found.__context__)
