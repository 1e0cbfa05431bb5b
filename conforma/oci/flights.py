"""Equal requests made at the same time become one, and its outcome is everybody's.

Within one process and for small answers; blobs are shared by the cache above.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from conforma.cancellation import Cancellation

V = TypeVar("V")


class _Flight(Generic[V]):
    __slots__ = ("error", "landed", "value")

    def __init__(self) -> None:
        # Made by the first who joins: most flights have one passenger.
        self.landed: threading.Event | None = None
        self.value: V | None = None
        self.error: BaseException | None = None


class Flights(Generic[V]):
    """Runs a function once for each key at a time; nothing is remembered afterwards."""

    def __init__(self, cancellation: Cancellation) -> None:
        self._cancellation = cancellation
        self._lock = threading.Lock()
        self._flights: dict[Hashable, _Flight[V]] = {}
        self.joined = 0

    def run(
        self,
        key: Hashable,
        make: Callable[[], V],
        joined: Callable[[float], None] = lambda _seconds: None,
    ) -> V:
        """What ``make`` returns or raises, from whoever asked first.

        Whoever asked later has ``joined`` called with the seconds it waited.

        ``make`` must not ask for another key of the same kind whose maker may
        be waiting for this one.
        """
        with self._lock:
            flight = self._flights.get(key)
            leading = flight is None
            if flight is None:
                flight = self._flights[key] = _Flight()
            else:
                self.joined += 1
                landed = flight.landed = flight.landed or threading.Event()
        if not leading:
            started = time.monotonic()
            try:
                return self._join(flight, landed)
            finally:
                joined(time.monotonic() - started)
        try:
            flight.value = make()
            return flight.value
        except BaseException as error:
            flight.error = error
            raise
        finally:
            with self._lock:
                del self._flights[key]
            if flight.landed is not None:  # nobody joins any more
                flight.landed.set()

    def _join(self, flight: _Flight[V], landed: threading.Event) -> V:
        unregister = self._cancellation.on_cancel(landed.set)
        try:
            landed.wait()
        finally:
            unregister()
        if flight.error is not None:
            raise flight.error
        if flight.value is None:
            self._cancellation.raise_if_cancelled()
        return flight.value  # type: ignore[return-value]
