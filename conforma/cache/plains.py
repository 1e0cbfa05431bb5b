"""The uncompressed view: a plain tar found, or made while its blob is still coming."""

from __future__ import annotations

from typing import Final

from conforma.cache.blobs import CLOSING, Blobs
from conforma.cache.derive import Derivation
from conforma.cache.disk import LayerStore
from conforma.cache.entries import Entries, FileFlight
from conforma.cache.follow import Diverged
from conforma.cache.handles import SharedFile
from conforma.cache.index import Index
from conforma.cache.integrity import Integrity
from conforma.cache.layers import UNKNOWN, SafeLayer
from conforma.cache.stats import Outcome
from conforma.cache.turns import Produced, Turns
from conforma.cancellation import Cancellation
from conforma.errors import IntegrityError

_RESTARTS: Final = 3


class Plains:
    """The plain tars of one store."""

    def __init__(
        self,
        store: LayerStore,
        index: Index,
        integrity: Integrity,
        turns: Turns,
        blobs: Blobs,
        derivation: Derivation,
    ) -> None:
        self._store = store
        self._index = index
        self._integrity = integrity
        self._blobs = blobs
        self._derivation = derivation
        self._entries = Entries(store, turns, "links", self.find, self._make)

    def find(self, layer: SafeLayer) -> SharedFile | None:
        """The plain tar if it is here. Raises ``DigestMismatch`` if the layer claims another."""
        found = self._derivation.find(layer.digest, layer.diff_id)
        if found is None:
            return None
        # As for blobs: what only its name is known of is taken at its content.
        doubtful = found.doubtful or layer.descriptor.size == UNKNOWN
        if not self._integrity.holds(found.key, found.file, doubtful=doubtful):
            return None
        if found.doubtful:
            self._derivation.settle(layer.digest, found)
        self._index.used(found.key)
        return found.file

    def get(self, layer: SafeLayer, cancellation: Cancellation | None) -> Produced[SharedFile]:
        """The plain tar, complete and checked."""
        return self._entries.get(layer, cancellation)

    def holds(self, layer: SafeLayer, plain: SharedFile) -> bool:
        """Whether ``plain`` is the layer's tar, whatever the policy; what was found is hashed once."""
        found = self._derivation.find(layer.digest, layer.diff_id)
        if found is None or found.file.inode != plain.inode:
            return True  # just made, and not from what is stored
        return self._integrity.holds(found.key, plain, doubtful=True)

    def distrust(self, layer: SafeLayer, plain: SharedFile) -> None:
        """The bytes of ``plain`` are not those of the layer."""
        found = self._derivation.find(layer.digest, layer.diff_id)
        if found is not None and found.file.inode == plain.inode:
            self._store.quarantine(found.key, plain)

    def close(self) -> None:
        """Let running work notice that nobody waits."""
        self._entries.flights.join(CLOSING)

    def _make(self, layer: SafeLayer, flight: FileFlight) -> Produced[SharedFile]:
        for _ in range(_RESTARTS):
            try:
                return self._inflate(layer, flight)
            except Diverged:
                pass  # what we had read was thrown away upstream of us
            except IntegrityError:
                if not self._blobs.is_damaged(layer):
                    raise
        return self._inflate(layer, flight)

    def _inflate(self, layer: SafeLayer, flight: FileFlight) -> Produced[SharedFile]:
        outcomes: list[Outcome] = []
        if layer.diff_id is None:
            # What a damaged blob unpacks to would be taken for proven.
            self._blobs.is_damaged(layer)
        # This thread holds the lock of the link; the blob's is taken, if need
        # be, by the thread of its own flight, which never waits for a link.
        with self._blobs.follow(
            layer,
            check=flight.raise_if_abandoned,
            done=lambda outcome, _followed: outcomes.append(outcome),
        ) as source:
            file = self._derivation.make(
                layer.digest, layer.diff_id, layer.media_type, source, flight
            )
        return Produced(file, outcomes[0])
