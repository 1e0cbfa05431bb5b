"""What items need first is made ready while every worker is busy with what comes after.

The evidence of a component is small and many requests; its rules then wait for
layers. With workers alone the evidence of later components would be read when
the layers are there, with nothing else to do: a second tail as long as the
first head. Here it is read in between, by threads that never compete with a worker
that is making its own item ready, and that stop at a bound on what they hold. Workers
take turns at it, too, as long as answers come at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from conforma.cancellation import Cancellation
from conforma.validate.growth import Growth

T = TypeVar("T")
P = TypeVar("P")

# What may wait for a worker: so many items, and no new one when so many bytes wait.
_MOST_ITEMS: Final = 64
_MOST_BYTES: Final = 8 * 1024 * 1024


class Lookahead(Generic[T, P]):
    """``prepare`` for each item, once, by whoever comes first: its worker or a thread ahead.

    Items are told apart by identity. ``size`` says how many bytes a prepared
    item holds. As a context manager it starts ``threads`` threads, and has them end.
    """

    def __init__(
        self,
        items: Sequence[T],
        prepare: Callable[[T], P],
        size: Callable[[P], int],
        cancellation: Cancellation,
        *,
        threads: int,
    ) -> None:
        self._items = items
        self._prepare = prepare
        self._size = size
        self._cancellation = cancellation
        self._threads = threads
        self._changed = threading.Condition()
        # Guarded by the condition: items that somebody prepares or has prepared; of those
        # the ones that threads ahead are at, and what they hold; and how many workers prepare.
        self._claimed: set[int] = set()
        self._under_way: set[int] = set()
        self._held: dict[int, tuple[P | Exception, int]] = {}
        self._bytes = 0
        self._preparing = 0
        # Workers that may prepare at the same time: where answers come at once, those that do
        # are all ready late, where one alone is at its rules, and layers on their way, at once.
        self._most = 1
        self._growth = Growth()
        self._next_look = time.monotonic() + self._growth.pause
        self._stopped = False

    def __enter__(self) -> Self:
        self._unregister = self._cancellation.on_cancel(self._stop)
        for number in range(self._threads):
            try:
                name = f"lookahead-{number}"
                threading.Thread(target=self._run, name=name, daemon=True).start()
            except RuntimeError:
                break  # no more to be had; workers can do all of it
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._unregister()
        self._stop()

    def take(self, item: T) -> P:
        """The prepared item; raises what ``prepare`` raised."""
        key = id(item)
        with self._changed:
            self._wait_for(key)
            if (held := self._held.pop(key, None)) is not None:
                self._bytes -= held[1]
                self._changed.notify_all()
            else:
                self._claimed.add(key)
                self._preparing += 1
        if held is not None:
            if isinstance(held[0], Exception):
                raise held[0]
            return held[0]
        try:
            return self._prepare(item)
        finally:
            with self._changed:
                self._preparing -= 1
                self._changed.notify_all()

    def _wait_for(self, key: int) -> None:
        """Wait until the item is prepared, or its worker may prepare it."""
        while key not in self._held:
            if key in self._under_way:
                self._changed.wait()
            elif self._stopped or self._preparing < self._most:
                return
            else:
                self._changed.wait(self._growth.pause)
                self._look()

    def _look(self) -> None:
        now = time.monotonic()
        if now >= self._next_look and self._preparing >= self._most:
            self._most = self._growth.wanted(self._most)
            self._next_look = now + self._growth.pause

    def _run(self) -> None:
        for item in self._items:
            if not self._claim(item):
                continue
            prepared: P | Exception
            try:
                prepared = self._prepare(item)
                size = self._size(prepared)
            except Exception as error:
                prepared, size = error, 0
            with self._changed:
                self._under_way.remove(id(item))
                self._held[id(item)] = (prepared, size)
                self._bytes += size
                self._changed.notify_all()
            del prepared

    def _claim(self, item: T) -> bool:
        """Wait until there is time and room to prepare ``item``; false if it is not to be done."""
        with self._changed:
            while not self._stopped and id(item) not in self._claimed and self._must_wait():
                self._changed.wait()
            if self._stopped or id(item) in self._claimed:
                return False
            self._claimed.add(id(item))
            self._under_way.add(id(item))
            return True

    def _must_wait(self) -> bool:
        return (
            not self._claimed  # the workers go first
            or self._preparing > 0
            or len(self._held) >= _MOST_ITEMS
            or self._bytes >= _MOST_BYTES
        )

    def _stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
