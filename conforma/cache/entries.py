"""Entries of one kind: found, or else produced once for all who ask, here and in other processes."""

from __future__ import annotations

from collections.abc import Callable

from conforma.cache.bell import Bell
from conforma.cache.disk import Area, Key, LayerStore
from conforma.cache.handles import SharedFile
from conforma.cache.layers import SafeLayer
from conforma.cache.singleflight import Flight, SingleFlight
from conforma.cache.turns import Produced, Turns, speaks_only_for_its_origin
from conforma.cancellation import Cancellation

FileFlight = Flight[Produced[SharedFile]]


class Entries:
    """What an ``area`` of a store has under the digests of layers' blobs.

    ``find`` looks, without waiting. ``make`` produces what was not found, in a
    thread of its own and, where there is a lock to be had, under the entry's.
    """

    def __init__(
        self,
        store: LayerStore,
        turns: Turns,
        area: Area,
        find: Callable[[SafeLayer], SharedFile | None],
        make: Callable[[SafeLayer, FileFlight], Produced[SharedFile]],
    ) -> None:
        self._store = store
        self._turns = turns
        self._area: Area = area
        self._find = find
        self._make = make
        self.flights: SingleFlight[Produced[SharedFile]] = SingleFlight()

    def get(self, layer: SafeLayer, cancellation: Cancellation | None) -> Produced[SharedFile]:
        """The entry, complete and verified. Raises what ``find`` and ``make`` raise."""
        found = self._find(layer)
        if found is not None:
            return Produced(found, "hits")
        produced, started = self.flights.run(
            Key.of(self._area, layer.digest),
            lambda flight: self._fill(layer, flight),
            cancellation,
            label=layer.origin,
            not_mine=not_mine(layer),
        )
        return produced if started else Produced(produced.value, "coalesced")

    def board(self, layer: SafeLayer, wake: Bell) -> tuple[FileFlight, bool]:
        """Join the making of the entry, or start it; see :meth:`SingleFlight.board`."""
        return self.flights.board(
            Key.of(self._area, layer.digest),
            lambda flight: self._fill(layer, flight),
            wake,
            label=layer.origin,
        )

    def _fill(self, layer: SafeLayer, flight: FileFlight) -> Produced[SharedFile]:
        if not self._store.writable:
            return self._make(layer, flight)
        return self._turns.produce(
            Key.of(self._area, layer.digest),
            flight,
            lambda: self._find(layer),
            lambda: self._make(layer, flight),
            layer.origin,
        )


def not_mine(layer: SafeLayer) -> Callable[[BaseException, object], bool]:
    """Whether a failure met for another repository says nothing about this one."""
    return lambda error, origin: origin != layer.origin and speaks_only_for_its_origin(error)
