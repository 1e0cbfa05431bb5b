"""The compressed view: a blob found, fetched once for everybody, or followed while it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from conforma.cache.bell import Bell
from conforma.cache.disk import Key, LayerStore
from conforma.cache.entries import Entries, FileFlight, not_mine
from conforma.cache.follow import Follower, Ride, Sight
from conforma.cache.handles import SharedFile
from conforma.cache.index import Index
from conforma.cache.integrity import Integrity
from conforma.cache.layers import UNKNOWN, SafeLayer
from conforma.cache.singleflight import fresh
from conforma.cache.stats import Counters, Outcome
from conforma.cache.transfer import Transfer
from conforma.cache.turns import Produced, Turns
from conforma.cancellation import Cancellation
from conforma.oci.manifest import Descriptor

CLOSING: Final = 0.5  # seconds for running fills to notice that nobody waits
_SETTLING: Final = 10.0  # seconds for verified content to reach the disk and get its name


class Blobs:
    """The blobs of one store, and the downloads that bring them."""

    def __init__(
        self,
        store: LayerStore,
        index: Index,
        integrity: Integrity,
        turns: Turns,
        transfer: Transfer,
        counters: Counters,
    ) -> None:
        self._counters = counters
        self._store = store
        self._index = index
        self._integrity = integrity
        self._transfer = transfer
        self._entries = Entries(store, turns, "blobs", self._find, self._make)

    def find(self, descriptor: Descriptor) -> SharedFile | None:
        """The blob if it is here."""
        key = Key.of("blobs", descriptor.digest)
        unknown = descriptor.size == UNKNOWN
        handle = self._store.open(key, None if unknown else descriptor.size)
        if handle is None or not self._integrity.holds(key, handle, doubtful=unknown):
            return None
        self._index.used(key)
        return handle

    def is_damaged(self, layer: SafeLayer) -> bool:
        """Whether the blob is here and was, until now, something else than its name says.

        Asked when what it unpacks to is wrong, or nobody can tell: then either
        the layer is to blame or the disk, and without hashing it cannot be known which.
        """
        key = Key.of("blobs", layer.digest)
        handle = self._store.open(key, None) if layer.held is None else None
        return handle is not None and not self._integrity.recheck(key, handle)

    def get(self, layer: SafeLayer, cancellation: Cancellation | None) -> Produced[SharedFile]:
        """The blob, complete and verified."""
        return self._entries.get(layer, cancellation)

    def follow(
        self,
        layer: SafeLayer,
        cancellation: Cancellation | None = None,
        check: Callable[[], None] = lambda: None,
        done: Callable[[Outcome, bool], None] = lambda _outcome, _followed: None,
    ) -> Follower:
        """The blob's bytes as they come. A download is started if there is none.

        ``check`` is called while there is nothing to read, and may raise.
        ``done`` is told at the end how the blob was come by, and whether
        somebody else's download was followed.
        """

        def board(wake: Bell) -> Ride:
            found = self._find(layer)
            if found is not None:
                return _Standing(found, done)
            return _Boarded(self._entries, layer, wake, done, self._counters)

        return Follower(board, layer.size, f"blob {layer.digest}", cancellation, check)

    def close(self, *, hurry: bool) -> None:
        """Let running fills end, because nobody waits; verified content is still stored."""
        self._entries.flights.join(CLOSING, 0 if hurry else _SETTLING, _is_verified)

    def _find(self, layer: SafeLayer) -> SharedFile | None:
        return layer.held or self.find(layer.descriptor)

    def _make(self, layer: SafeLayer, flight: FileFlight) -> Produced[SharedFile]:
        produced = self._transfer.run(layer.descriptor, layer.fetch, flight)
        if produced.outcome == "leaders":
            self._index.used(Key.of("blobs", layer.digest), layer.media_type)
        return produced


class _Standing:
    """A follower's place at a blob that is complete."""

    def __init__(self, file: SharedFile, done: Callable[[Outcome, bool], None]) -> None:
        self._sight = Sight(file, file.size, verified=True)
        self._done = done

    def look(self) -> Sight:
        return self._sight

    def seen(self) -> None:
        """There is never more to see."""

    def leave(self) -> None:
        self._done("hits", False)


class _Boarded:
    """A follower's place in a running download, or in the next one if that is not for us."""

    def __init__(
        self,
        entries: Entries,
        layer: SafeLayer,
        wake: Bell,
        done: Callable[[Outcome, bool], None],
        counters: Counters,
    ) -> None:
        self._counters = counters
        self._entries = entries
        self._layer = layer
        self._wake = wake
        self._done = done
        self._flight, self._started = self._entries.board(layer, wake)
        self._joined = not self._started

    def look(self) -> Sight | None:
        flight = self._flight
        flight.queue.enter(self._wake)
        if not flight.done:
            sight: Sight | None = flight.sight
            return sight
        error = flight.error
        if error is None:
            assert flight.result is not None
            file = flight.result.value
            return Sight(file, file.size, verified=True)
        if self._started or not not_mine(self._layer)(error, flight.label):
            raise fresh(error) from (error.__cause__ or error)
        self._entries.flights.leave(flight, self._wake)
        self._flight, self._started = self._entries.board(self._layer, self._wake)
        self._flight.queue.enter(self._wake)
        return None

    def seen(self) -> None:
        self._flight.queue.leave(self._wake)

    def leave(self) -> None:
        self._entries.flights.leave(self._flight, self._wake)
        if not self._started:
            self._done("coalesced", self._joined)
        elif self._flight.result is not None:
            self._done(self._flight.result.outcome, self._joined)
        else:
            self._done("leaders", self._joined)
            self._entries.flights.afterwards(self._flight, self._correct)

    def _correct(self, flight: FileFlight) -> None:
        """Verified bytes were read before they were stored, and then could not be stored."""
        if flight.result is not None and flight.result.outcome != "leaders":
            self._counters.recount("leaders", flight.result.outcome)


def _is_verified(flight: FileFlight) -> bool:
    return isinstance(flight.sight, Sight) and flight.sight.verified
