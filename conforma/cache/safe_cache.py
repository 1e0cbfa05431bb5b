"""SafeCache: layers that are fetched once, however many threads and processes want them.

A view of a layer is handed out only when its file is complete and verified.
Every promise made here is a numbered test; ``DESIGN.md`` has the table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Self, TypeVar

from conforma.cache import fs
from conforma.cache.blobs import Blobs
from conforma.cache.content import StoredContent
from conforma.cache.contents import Contents
from conforma.cache.derive import Derivation
from conforma.cache.directory import mode, prepare
from conforma.cache.disk import Key, LayerStore
from conforma.cache.handles import BlockReader, SharedFile
from conforma.cache.index import Index
from conforma.cache.integrity import Integrity
from conforma.cache.layers import Fetch, SafeLayer
from conforma.cache.listings import Listings
from conforma.cache.options import CacheOptions
from conforma.cache.plains import Plains
from conforma.cache.proofs import Proofs
from conforma.cache.singleflight import refuse_reentry
from conforma.cache.space import Space, Usage
from conforma.cache.stats import CacheStats, Counters, Outcome
from conforma.cache.tables import Tables
from conforma.cache.toc import Toc
from conforma.cache.totals import Totals
from conforma.cache.transfer import Transfer
from conforma.cache.turns import Produced, Turns
from conforma.cancellation import Cancellation
from conforma.errors import CacheError
from conforma.oci import media_types
from conforma.oci.digest import DiffID, Digest
from conforma.oci.inflate import suffix_of
from conforma.oci.manifest import Descriptor

if TYPE_CHECKING:
    from conforma.cache.origins import Origins
    from conforma.cache.upkeep import Upkeep

R = TypeVar("R")


class SafeCache:
    """A directory of layers, shared with everybody who uses the same directory."""

    def __init__(
        self,
        options: CacheOptions,
        store: LayerStore,
        counters: Counters,
        cancellation: Cancellation | None,
        origins: Origins | None = None,
    ) -> None:
        self.options = options
        self.store = store
        self._origins = origins
        self._mode = mode(store.root, store.files, writable=store.writable)
        self._counters = counters
        self._cancellation = cancellation
        self._index = Index(store.root / "index", writable=store.writable)
        self._space = Space(store, self._index, counters, options.max_bytes, options.grace)
        self._content = StoredContent(store, self._index, self._space)
        self._proofs = Proofs(self._content) if options.proof else None
        self._integrity = Integrity(store, self._index, options.verify)
        turns = Turns(store, counters, options.patience)
        transfer = Transfer(store, options, counters, self._space)
        tables = Tables(store)
        self._derivation = Derivation(store, options, counters, self._space, tables)
        self._blobs = Blobs(store, self._index, self._integrity, turns, transfer, counters)
        self._plains = Plains(
            store, self._index, self._integrity, turns, self._blobs, self._derivation
        )
        self._listings = Listings(self._index, tables, self._derivation, self._plains)
        self._told = CacheStats()
        """The counts that have been added to the directory's totals."""

    @classmethod
    def open(
        cls,
        options: CacheOptions,
        cancellation: Cancellation | None = None,
        *,
        before_step: fs.Step = fs.no_step,
        origins: Origins | None = None,
    ) -> SafeCache:
        """Use ``options.directory``, creating it if need be.

        A directory we may only read serves what it has and stores nothing.
        ``origins`` is told what is read, for verdict provenance.
        Raises ``CacheUnusable`` if it cannot serve at all, or must not be
        trusted: a symlink, or writable for everybody.
        """
        root, files, writable = prepare(options.directory, before_step)
        counters = Counters()
        store = LayerStore(
            root,
            files,
            writable=writable,
            on_quarantine=lambda _key: counters.add("quarantines"),
        )
        return cls(options, store, counters, cancellation, origins)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let running fills notice that nobody waits. What is verified is stored."""
        self._plains.close()
        hurry = self._cancellation is not None and self._cancellation.cancelled
        self._blobs.close(hurry=hurry)
        self._content.close()
        counted, self._told = self._told, self.stats
        if self.options.counted and self._told.requests > counted.requests:
            self._index.add(Totals.of(counted, self._told, time.time()))
        self._index.close()

    @property
    def stats(self) -> CacheStats:
        """The counters of this object, as a snapshot."""
        return self._counters.snapshot(self._mode)

    def content(self) -> StoredContent | None:
        """What a registry client keeps here besides layers; ends with this cache.

        Nothing where repositories must prove what they offer: there the
        registry is asked for manifests and evidence in every run.
        """
        return self._content if self._proofs is None else None

    def totals(self) -> Totals:
        """What all runs on this directory that have ended have counted."""
        return self._index.totals()

    def verified_at(self, digest: Digest) -> float:
        """When what is read of this digest was last hashed; 0 if it is gone, or was never here.

        In seconds since the epoch: when it was stored, or checked since.
        """
        link = self._derivation.link(digest)
        keys = [Key.of("blobs", digest), Key.of("links", digest)]
        moments = [self.store.stored_at(key) for key in keys]
        if link is not None:
            keys.append(Key.of("layers", link.diff_id))
        facts = [self._index.fact(key) for key in keys] if any(moments) else []
        return max([*moments, *(fact.checked for fact in facts if fact is not None)])

    def usage(self) -> Usage:
        """What the directory holds now, by looking."""
        return self._space.usage()

    def upkeep(self) -> Upkeep:
        """The operations of ``conforma cache``."""
        from conforma.cache.upkeep import Upkeep

        return Upkeep(self.store, self._index, self._space)

    def collect(self, cancellation: Cancellation | None = None) -> int:
        """Remove old leftovers and what is over the limit; returns the bytes freed.

        With a ``cancellation``, after another evictor that is at it; without, not at all then.
        """
        return self._space.collect(cancellation)

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
        """A layer that will be fetched when somebody reads it. No I/O happens here.

        ``fetch`` is called with a byte offset, in a thread of the cache, and
        must not use the cache. ``origin`` names the repository, so that one
        that denies access does not speak for another, ``image`` is what the layer
        is read as a part of. ``offers`` asks whether the repository has it,
        where that must be proven. Raises ``BadDigest`` if the digest is malformed.
        """
        Key.of("blobs", descriptor.digest)
        if diff_id is not None:
            Key.of("layers", diff_id)
        if self._proofs is not None and origin:
            fetch = self._proofs.watched(fetch, origin, descriptor.digest)
        return SafeLayer(self, descriptor, diff_id, fetch, origin, image=image, offers=offers)

    def put(
        self,
        descriptor: Descriptor,
        fetch: Fetch,
        *,
        diff_id: DiffID | None = None,
        origin: str = "",
    ) -> SafeLayer:
        """Like :meth:`layer`, and the compressed bytes are in the cache afterwards."""
        layer = self.layer(descriptor, diff_id, fetch, origin=origin)
        layer.compressed().close()
        return layer

    def get(self, digest: Digest) -> SafeLayer | None:
        """The layer if its compressed bytes are here and intact, else ``None``.

        The result keeps them, whatever is evicted meanwhile.
        """
        refuse_reentry(digest)
        key = Key.of("blobs", digest)
        handle = self.store.open(key, None)
        # Nothing but the name tells how long it should be, so the content must.
        if handle is None or not self._integrity.holds(key, handle, doubtful=True):
            return None
        fact = self._index.fact(key)
        media_type = fact.media_type if fact and fact.media_type else _sniff(handle)
        descriptor = Descriptor(media_type, digest, handle.size)
        return SafeLayer(self, descriptor, None, _no_fetch(descriptor), "", handle)

    def compressed(self, layer: SafeLayer, cancellation: Cancellation | None = None) -> SharedFile:
        """The layer's blob, complete and verified. Used by :class:`SafeLayer`."""
        return self._demand(self._blobs.get, layer, cancellation)

    def uncompressed(
        self, layer: SafeLayer, cancellation: Cancellation | None = None
    ) -> SharedFile:
        """The layer's plain tar, complete and verified. Used by :class:`SafeLayer`."""
        return self._demand(self._plains.get, layer, cancellation)

    def stream(self, layer: SafeLayer, cancellation: Cancellation | None = None) -> BlockReader:
        """The layer's blob as it comes. Used by :class:`SafeLayer`."""
        if self._proofs is not None and not self._proofs.holds(layer):
            # Somebody else's download may not be followed before there is a proof.
            return self.compressed(layer, cancellation).raw_reader()
        refuse_reentry(layer.digest)
        cancellation = cancellation or self._cancellation

        def done(outcome: Outcome, followed: bool) -> None:
            self._count(layer, outcome)
            if followed:
                self._counters.add("followers")

        return self._blobs.follow(layer, cancellation, done=done)

    def contents(self, layer: SafeLayer, cancellation: Cancellation | None = None) -> Contents:
        """The layer's files. Used by :class:`SafeLayer`."""
        return self._contents(
            layer, self._demand(self._listings.get, layer, cancellation), cancellation
        )

    def contents_at_hand(self, layer: SafeLayer) -> Contents | None:
        """The layer's files if its table is here. Used by :class:`SafeLayer`."""
        refuse_reentry(layer.digest)
        if self._proofs is not None and not self._proofs.holds(layer):
            return None
        toc = self._listings.find(layer)
        if toc is None:
            return None
        self._count(layer, "hits")
        return self._contents(layer, toc, None)

    def reads_again(self, layer: SafeLayer) -> bool:
        """Counts one more use of a layer's contents. Used by :class:`SafeLayer`."""
        self._count(layer, "hits")
        return True

    def _contents(self, layer: SafeLayer, toc: Toc, cancellation: Cancellation | None) -> Contents:
        return Contents(
            toc,
            lambda: self.uncompressed(layer, cancellation),
            lambda plain: self._plains.distrust(layer, plain),
            f"layer {layer.digest}",
        )

    def _demand(
        self,
        view: Callable[[SafeLayer, Cancellation | None], Produced[R]],
        layer: SafeLayer,
        cancellation: Cancellation | None,
    ) -> R:
        refuse_reentry(layer.digest)
        cancellation = cancellation or self._cancellation
        if cancellation is not None:
            cancellation.raise_if_cancelled()
        try:
            produced = view(layer, cancellation)
            if self._proofs is not None:
                self._proofs.require(layer, cancellation)
        except BaseException:
            self._counters.finish("leaders")
            raise
        self._count(layer, produced.outcome)
        return produced.value

    def _count(self, layer: SafeLayer, outcome: Outcome) -> None:
        self._counters.finish(outcome)
        if outcome in ("hits", "coalesced") and layer.size > 0:
            self._counters.add("saved_bytes", layer.size)
        if self._origins is not None:
            self._origins.used(layer.digest, layer.size, layer.media_type, outcome, layer.image)


def _no_fetch(descriptor: Descriptor) -> Fetch:
    def fetch(_offset: int) -> AbstractContextManager[Iterator[bytes]]:
        raise CacheError(f"{descriptor.digest} came from the cache; nobody said where to fetch it")

    return fetch


def _sniff(handle: SharedFile) -> str:
    return media_types.OCI_LAYER + suffix_of(handle.read_at(0, 4))
