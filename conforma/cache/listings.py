"""The table of contents of a layer: found, or made on the way to its plain tar."""

from __future__ import annotations

from conforma.cache.derive import Derivation
from conforma.cache.disk import Key
from conforma.cache.handles import SharedFile
from conforma.cache.index import Index
from conforma.cache.layers import SafeLayer
from conforma.cache.link import check_claim
from conforma.cache.plains import Plains
from conforma.cache.singleflight import SingleFlight
from conforma.cache.tables import Tables, table_of
from conforma.cache.toc import Toc
from conforma.cache.turns import Produced
from conforma.cancellation import Cancellation


class Listings:
    """The tables of the layers of one store."""

    def __init__(
        self, index: Index, tables: Tables, derivation: Derivation, plains: Plains
    ) -> None:
        self._index = index
        self._tables = tables
        self._derivation = derivation
        self._plains = plains
        self._scans: SingleFlight[Toc] = SingleFlight()

    def find(self, layer: SafeLayer) -> Toc | None:
        """The table if it is here. Raises ``DigestMismatch`` if the layer claims another tar."""
        link = self._derivation.link(layer.digest)
        if link is None:
            return None
        check_claim(layer.digest, layer.diff_id, link.diff_id)
        toc = self._tables.get(link.diff_id)
        if toc is not None:
            self._index.used(Key.of("tocs", link.diff_id))
            self._index.used(Key.of("links", layer.digest))
        return toc

    def get(self, layer: SafeLayer, cancellation: Cancellation | None) -> Produced[Toc]:
        """The table, made if need be, and how its layer was come by.

        Raises ``BadArchive`` or ``TooLarge`` if the layer is no tar that can be read, and
        what making the plain tar raises.
        """
        toc = self.find(layer)
        if toc is not None:
            return Produced(toc, "hits")
        plain = self._plains.get(layer, cancellation)  # makes the table on the way, if it can
        toc = self.find(layer)
        if toc is None and not self._plains.holds(layer, plain.value):
            # A table of damaged bytes would vouch for them from now on.
            plain = self._plains.get(layer, cancellation)
            toc = self.find(layer)
        if toc is None:
            toc, _ = self._scans.run(
                Key.of("tocs", layer.digest), lambda _: self._scan(layer, plain.value), cancellation
            )
        return Produced(toc, plain.outcome)

    def _scan(self, layer: SafeLayer, plain: SharedFile) -> Toc:
        toc = table_of(plain, f"layer {layer.digest}")
        link = self._derivation.link(layer.digest)
        if link is not None:
            self._tables.put(link.diff_id, toc)
        return toc
