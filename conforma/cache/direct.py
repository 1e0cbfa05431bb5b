"""DirectLayers: the same layers without a cache, for ``--no-cache`` and unusable directories.

Each view is fetched when it is asked for, into an anonymous temporary file
that is gone when its last reader closes. Nothing is shared and nothing stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Self

from conforma.cache.contents import Contents
from conforma.cache.handles import BlockReader, SharedFile
from conforma.cache.layers import UNKNOWN, Fetch, SafeLayer
from conforma.cache.link import check_claim
from conforma.cache.sink import Spill
from conforma.cache.stats import CacheStats, Counters
from conforma.cache.tables import table_of
from conforma.cancellation import Cancellation
from conforma.errors import SizeMismatch
from conforma.oci.digest import DiffID, Digest, Hasher
from conforma.oci.inflate import Limits, inflated
from conforma.oci.layer import pieces_of
from conforma.oci.manifest import Descriptor

if TYPE_CHECKING:
    from conforma.cache.origins import Origins


class DirectLayers:
    """Stands in for :class:`~conforma.cache.safe_cache.SafeCache` where there is no directory."""

    def __init__(
        self,
        cancellation: Cancellation | None = None,
        limits: Limits | None = None,
        *,
        origins: Origins | None = None,
    ) -> None:
        self._origins = origins
        self._cancellation = cancellation
        self._limits = limits or Limits()
        self._counters = Counters()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing to do: nothing is kept."""

    @property
    def stats(self) -> CacheStats:
        """The counters; every request is a pass-through."""
        return self._counters.snapshot("off")

    def content(self) -> None:
        """Nothing is kept for later runs."""

    def layer(
        self,
        descriptor: Descriptor,
        diff_id: DiffID | None,
        fetch: Fetch,
        *,
        origin: str = "",
        image: str = "",
        offers: Callable[[], bool] | None = None,
    ) -> SafeLayer:
        """A layer that is fetched each time somebody reads it. No I/O happens here."""
        return SafeLayer(self, descriptor, diff_id, fetch, origin, image=image, offers=offers)

    def put(
        self,
        descriptor: Descriptor,
        fetch: Fetch,
        *,
        diff_id: DiffID | None = None,
        origin: str = "",
    ) -> SafeLayer:
        """The same as :meth:`layer`: there is no place to put anything."""
        return self.layer(descriptor, diff_id, fetch, origin=origin)

    def verified_at(self, digest: Digest) -> float:
        """Nothing is kept that could have been hashed before."""
        del digest
        return 0.0

    def get(self, digest: Digest) -> None:
        """Nothing is ever here."""

    def compressed(self, layer: SafeLayer, cancellation: Cancellation | None = None) -> SharedFile:
        """The blob, verified, in a temporary file."""
        self._counters.finish("pass_through")
        self._counters.add("transfers")
        cancellation = cancellation or self._cancellation
        spill = Spill()
        hasher = Hasher(layer.digest)
        what = f"blob {layer.digest}"
        with layer.fetch(0) as chunks:
            for chunk in chunks:
                if cancellation is not None:
                    cancellation.raise_if_cancelled()
                self._counters.add("network_bytes", len(chunk))
                if layer.size != UNKNOWN and hasher.size + len(chunk) > layer.size:
                    raise SizeMismatch(f"{what}: more bytes than the {layer.size} declared")
                hasher.update(chunk)
                spill.write(chunk)
        if layer.size not in (UNKNOWN, hasher.size):
            raise SizeMismatch(f"{what}: got {hasher.size} bytes where {layer.size} were declared")
        hasher.check(what)
        if self._origins is not None:
            self._origins.used(
                layer.digest, hasher.size, layer.media_type, "pass_through", layer.image
            )
        return spill.finish()

    def uncompressed(
        self, layer: SafeLayer, cancellation: Cancellation | None = None
    ) -> SharedFile:
        """The plain tar, checked, in a temporary file."""
        blob = self.compressed(layer, cancellation)
        spill = Spill()
        hasher = Hasher(layer.diff_id or DiffID(layer.digest.algorithm, layer.digest.hex))
        for piece in self._pieces(layer, blob, cancellation):
            hasher.update(piece)
            spill.write(piece)
        check_claim(layer.digest, layer.diff_id, DiffID(hasher.expected.algorithm, hasher.hex))
        return spill.finish()

    def stream(self, layer: SafeLayer, cancellation: Cancellation | None = None) -> BlockReader:
        """The blob, once it is verified: without a cache there is nothing to follow."""
        return self.compressed(layer, cancellation).raw_reader()

    def contents(self, layer: SafeLayer, cancellation: Cancellation | None = None) -> Contents:
        """The files; the plain tar stays open, and on disk, while the result is in use."""
        plain = self.uncompressed(layer, cancellation)
        what = f"layer {layer.digest}"
        return Contents(table_of(plain, what), lambda: plain, lambda _file: None, what)

    def reads_again(self, layer: SafeLayer) -> bool:  # noqa: ARG002 - as its protocol has it
        """Nothing is kept between two questions. Used by :class:`SafeLayer`."""
        return False

    def contents_at_hand(self, layer: SafeLayer) -> None:
        """Nothing is ever here."""

    def _pieces(
        self, layer: SafeLayer, blob: SharedFile, cancellation: Cancellation | None
    ) -> Iterator[bytes]:
        with blob.reader() as source:
            for piece in inflated(
                pieces_of(source), layer.media_type, self._limits, f"layer {layer.digest}"
            ):
                if cancellation is not None:
                    cancellation.raise_if_cancelled()
                yield piece
