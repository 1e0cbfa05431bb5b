"""Work on many things at once with a bounded number of threads that can always be left behind.

The threads are daemons and nobody joins them for ever, so that a thread that
is stuck in a system call cannot delay the end of an interrupted run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from conforma.cancellation import Cancellation
from conforma.errors import ConformaError
from conforma.validate.growth import Growth

T = TypeVar("T")
R = TypeVar("R")

# How long threads have to unwind once the run is to stop, in seconds.
_GRACE: Final = 0.5


def in_parallel(
    items: Sequence[T],
    work: Callable[[T], R],
    *,
    workers: int,
    cancellation: Cancellation,
    growth: Growth | None = None,
) -> list[R | Exception]:
    """What ``work`` returned or raised for each item, in the order of the items.

    At most ``workers`` threads (at least one) run at the same time, and with
    enough items exactly that many, if the machine has them; with ``growth``
    one begins, and as many more as it wants from time to time. When the run is
    to stop, no further item is begun, and an item without an answer gets the
    error that says why.
    """
    if not items:
        return []
    pool = _Pool(items, work, cancellation)
    unregister = cancellation.on_cancel(pool.wake.set)
    try:
        most = min(max(workers, 1), len(items))
        wanted = most if growth is None else 1
        while pool.man(wanted) and wanted < most and growth is not None:
            if pool.wake.wait(growth.pause):
                break
            wanted = min(growth.wanted(wanted), most)
        pool.wake.wait()
        if cancellation.cancelled:
            pool.finished.wait(_GRACE)
    finally:
        unregister()
    return pool.outcomes()


class _Pool(Generic[T, R]):
    """The items not yet begun and the answers so far; ``_lock`` guards both."""

    def __init__(
        self, items: Sequence[T], work: Callable[[T], R], cancellation: Cancellation
    ) -> None:
        self._items = items
        self._work = work
        self._cancellation = cancellation
        self._lock = threading.Lock()
        self._next = 0
        self._answers: dict[int, R | Exception] = {}
        self._threads = 0
        self._stopped = False
        self.finished = threading.Event()
        self.wake = threading.Event()

    def man(self, threads: int) -> bool:
        """Whether so many threads run now; those that do run do all the work.

        Raises ``RuntimeError`` if there is not even one to be had.
        """
        while self._threads < threads:
            name = f"worker-{self._threads}"
            try:
                threading.Thread(target=self._run, name=name, daemon=True).start()
            except RuntimeError:
                if self._threads == 0:
                    raise
                return False
            self._threads += 1
        return True

    def _run(self) -> None:
        """Take one item after the other until there are none or the run is to stop."""
        while (index := self._take()) is not None:
            try:
                answer: R | Exception = self._work(self._items[index])
            except Exception as error:
                answer = error
            self._put(index, answer)

    def outcomes(self) -> list[R | Exception]:
        """One answer for each item; later ones are no longer taken."""
        with self._lock:
            self._stopped = True
            answers = dict(self._answers)
        missing: Exception | None = None
        if len(answers) < len(self._items):
            try:
                self._cancellation.raise_if_cancelled()
            except ConformaError as error:
                missing = error
            assert missing is not None, "the pool woke up too early"
        return [
            answers[index] if index in answers or missing is None else missing
            for index in range(len(self._items))
        ]

    def _take(self) -> int | None:
        with self._lock:
            if self._stopped or self._next == len(self._items) or self._cancellation.cancelled:
                return None
            self._next += 1
            return self._next - 1

    def _put(self, index: int, answer: R | Exception) -> None:
        with self._lock:
            if self._stopped:
                return
            self._answers[index] = answer
            complete = len(self._answers) == len(self._items)
        if complete:
            self.finished.set()
            self.wake.set()
