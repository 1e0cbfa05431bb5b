"""The plain tar of a layer, made once from its blob and checked against the DiffID."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from conforma.cache.aside import Aside
from conforma.cache.cores import Cores
from conforma.cache.disk import DiskTrouble, Key, LayerStore
from conforma.cache.follow import Follower
from conforma.cache.handles import SharedFile
from conforma.cache.link import Link, check_claim, is_plain
from conforma.cache.options import CacheOptions
from conforma.cache.singleflight import Flight
from conforma.cache.sink import CacheSink
from conforma.cache.space import Space
from conforma.cache.stats import Counters
from conforma.cache.tables import TableMaker, Tables
from conforma.cache.toc import Toc
from conforma.cache.turns import Produced
from conforma.errors import IntegrityError
from conforma.oci.digest import DiffID, Digest, Hasher
from conforma.oci.inflate import inflated

_LONGEST_LINK: Final = 1024
_MOST_LINKS: Final = 10_000


class Found(Struct, frozen=True):
    """A plain tar in the store. ``doubtful`` if it may have lost data since it was written."""

    key: Key
    file: SharedFile
    link: Link
    doubtful: bool


def current_boot() -> str:
    """An identifier of the running system that changes with every start."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class Derivation:
    """Makes plain tars and links in one store."""

    def __init__(
        self,
        store: LayerStore,
        options: CacheOptions,
        counters: Counters,
        space: Space,
        tables: Tables,
    ) -> None:
        self._store = store
        self._tables = tables
        self._options = options
        self._counters = counters
        self._space = space
        self._boot = current_boot()
        self._cores = Cores()
        self._links: dict[Digest, Link] = {}

    def link(self, digest: Digest) -> Link | None:
        """What ``digest`` is known to inflate to."""
        known = self._links.get(digest)
        if known is not None:
            return known
        key = Key.of("links", digest)
        handle = self._store.open(key, None)
        if handle is None:
            return None
        link = Link.parse(handle.read_at(0, _LONGEST_LINK), digest)
        if link is None:
            self._store.quarantine(key, handle)
        else:
            self._remember(digest, link)
        return link

    def _remember(self, digest: Digest, link: Link) -> None:
        # What a digest inflates to stays true, whatever becomes of the file.
        if len(self._links) >= _MOST_LINKS:
            self._links.clear()
        self._links[digest] = link

    def find(self, digest: Digest, claimed: DiffID | None) -> Found | None:
        """The plain tar of ``digest`` if it is here. Raises ``DigestMismatch``."""
        link = self.link(digest)
        if link is None:
            return None
        check_claim(digest, claimed, link.diff_id)
        if is_plain(digest, link.diff_id):
            key, doubtful = Key.of("blobs", digest), False
        else:
            key, doubtful = Key.of("layers", link.diff_id), link.boot not in ("", self._boot)
        file = self._store.open(key, link.size)
        return None if file is None else Found(key, file, link, doubtful)

    def settle(self, digest: Digest, found: Found) -> None:
        """Record that content from an earlier run of the system was checked, and sync it."""
        if self._store.sync(found.key):
            settled = replace(found.link, boot="")
            self._remember(digest, settled)
            self._publish_link(digest, settled)

    def make(
        self,
        digest: Digest,
        claimed: DiffID | None,
        media_type: str,
        source: Follower,
        flight: Flight[Produced[SharedFile]],
    ) -> SharedFile:
        """Inflate the blob while it comes in, check it, and publish tar, table and link.

        Nothing is published before the blob itself is verified. Raises what
        ``source`` raises, ``DigestMismatch``, ``BadArchive``, ``TooLarge``.
        """
        what = f"layer {digest}"
        link_key = Key.of("links", digest)
        hasher = Hasher(claimed or DiffID(digest.algorithm, digest.hex))
        maker = TableMaker(what)
        sink = CacheSink(
            self._store, link_key, strict=self._options.strict, make_room=self._space.make_room
        )

        def take(piece: bytes) -> None:
            hasher.update(piece)
            maker.feed(piece)
            sink.write(piece)

        try:
            try:
                with (
                    self._cores.one(flight.raise_if_abandoned) as core,
                    Aside(take, self._cores.spare) as taking,
                ):
                    blocks = source.blocks(core.rest)
                    for piece in inflated(blocks, media_type, self._options.limits, what):
                        flight.raise_if_abandoned()
                        taking.feed(piece)
                    taking.finish()
            except IntegrityError:
                source.finish()  # a download that went wrong explains it better
                raise
            source.finish()
            found = DiffID(hasher.expected.algorithm, hasher.hex)
            check_claim(digest, claimed, found)
            table = maker.table()
            if is_plain(digest, found):
                sink.discard()
                self._keep_table(found, table)
                self._publish_link(digest, Link(found, hasher.size, self._boot))
                return source.source
            handle = sink.publish(Key.of("layers", found), durable=False)
        except BaseException:
            sink.discard()
            raise
        self._counters.add("derived")
        self._keep_table(found, table)
        if sink.stored:
            self._counters.add("disk_bytes", handle.size)
            self._space.added(handle.size)
            self._publish_link(digest, Link(found, hasher.size, self._boot))
        return handle

    def _keep_table(self, diff_id: DiffID, table: Toc | None) -> None:
        if table is not None:
            self._tables.put(diff_id, table)

    def _publish_link(self, digest: Digest, link: Link) -> None:
        if not self._store.writable:
            return
        key = Key.of("links", digest)
        try:
            partial = self._store.begin(key)
            try:
                partial.write(link.as_bytes(digest))
                partial.store_as(key, durable=self._options.durable)
            finally:
                partial.discard()
        except DiskTrouble:
            pass  # without the link the layer is inflated again next time
