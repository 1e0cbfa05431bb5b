"""From a layer cache into an OCI image layout, for machines that cannot fetch.

Nothing is fetched: what is not in the cache is named. Every blob is hashed on
its way out; one that is not what its name says leaves the cache, is named, and
holds up nothing else. Blobs are pinned while they are copied, so validations
and evictions may go on meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Final

from msgspec import Struct, field

from conforma.cache.handles import SharedFile
from conforma.cache.upkeep import Upkeep
from conforma.cancellation import Cancellation
from conforma.errors import IntegrityError
from conforma.mirror.cache_parts import (
    LARGEST_MANIFEST,
    Watch,
    described,
    parts_of,
    until_one_fails,
)
from conforma.mirror.destination import Destination
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.manifest import Descriptor
from conforma.oci.reference import Reference
from conforma.oci.upload import Open

_PIECE: Final = 1 << 20
_WORKERS: Final = 4
_REMEMBERED: Final = 64


class Exported(Struct):
    """What an export did. ``missing`` and ``bad`` say what is not at the destination, and why."""

    blobs: int = 0
    bytes: int = 0
    present: int = 0
    images: int = 0
    missing: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


class Export:
    """One export. Say what is wanted, then call :meth:`run` once."""

    def __init__(self, upkeep: Upkeep, destination: Destination) -> None:
        self._upkeep = upkeep
        self._destination = destination
        self._wanted: dict[Digest, Descriptor] = {}
        self._roots: list[tuple[Reference, Descriptor, frozenset[Digest]]] = []
        self._lock = threading.Lock()
        self._failed: set[Digest] = set()
        self._read = lru_cache(maxsize=_REMEMBERED)(self._small)
        self.done = Exported()

    def want_image(self, digest: Digest, name: Reference) -> None:
        """The image, or index, of that digest, listed under ``name``."""
        needed = set()
        for part in parts_of(digest, self._read):
            needed.add(part.descriptor.digest)
            if not self._want(part.descriptor.digest, part.descriptor.media_type):
                self._miss(f"{part.descriptor.digest} ({part.what} of {name})")
        root = self._wanted.get(digest)
        if root is not None and root.media_type != media_types.OCTETS:
            self._roots.append((name, root, frozenset(needed)))

    def want_digest(self, digest: Digest) -> None:
        """The blob and, if it is a manifest, all that belongs to it."""
        if not self._want(digest, media_types.OCTETS):
            self._miss(str(digest))
        elif described(digest, self._read) is not None:
            self.want_image(digest, Reference("", "", None, digest))

    def want_everything(self) -> None:
        """Every blob of the cache; the images among them that are complete are listed."""
        for digest in self._upkeep.digests():
            self._want(digest, media_types.OCTETS)
        for digest in list(self._wanted):
            root = described(digest, self._read)
            if root is None:
                continue
            needed = frozenset(part.descriptor.digest for part in parts_of(digest, self._read))
            self._roots.append((Reference("", "", None, digest), root, needed))

    def run(self, cancellation: Cancellation, watch: Watch) -> Exported:
        """All that is wanted, and right, is at the destination.

        Raises ``DestinationUnusable`` for a disk that is full or fails, and ``Interrupted``.
        """
        wanted = sorted(self._wanted.values(), key=lambda one: -one.size)

        def copy(one: Descriptor) -> None:
            self._copy(one)
            with self._lock:
                counts = self._finished(), len(wanted), self.done.bytes
                watch(*counts)

        workers = min(_WORKERS, self._destination.at_once)
        until_one_fails(wanted, copy, workers, cancellation)
        for name, root, needed in self._roots:
            if needed.isdisjoint(self._failed) and needed <= self._wanted.keys():
                self._destination.put_name(name, root, b"")
                self.done.images += 1
        self._destination.finish()
        return self.done

    def _finished(self) -> int:
        return self.done.blobs + self.done.present + len(self._failed)

    def _copy(self, one: Descriptor) -> None:
        target = Reference("", "", None, one.digest)
        if self._destination.has_blob(target, one):
            with self._lock:
                self.done.present += 1
            return
        handle = self._upkeep.open(one.digest)
        if handle is None:
            self._fail(one.digest, self.done.missing, f"{one.digest} (evicted meanwhile)")
            return
        try:
            self._destination.put_blob(target, one, _opener(handle))
        except IntegrityError as error:
            self._upkeep.distrust(one.digest, handle)
            self._fail(one.digest, self.done.bad, error.message)
            return
        with self._lock:
            self.done.blobs += 1
            self.done.bytes += one.size

    def _fail(self, digest: Digest, where: list[str], text: str) -> None:
        with self._lock:
            self._failed.add(digest)
            where.append(text)

    def _want(self, digest: Digest, media_type: str) -> bool:
        """Whether it is here."""
        known = self._wanted.get(digest)
        if known is None:
            handle = self._upkeep.open(digest)
            if handle is None:
                return False
            known = Descriptor(media_type, digest, handle.size)
        elif known.media_type == media_types.OCTETS:
            known = Descriptor(media_type, digest, known.size)
        self._wanted[digest] = known
        return True

    def _miss(self, text: str) -> None:
        if text not in self.done.missing:
            self.done.missing.append(text)

    def _small(self, digest: Digest) -> bytes | None:
        handle = self._upkeep.open(digest)
        if handle is None or handle.size > LARGEST_MANIFEST:
            return None
        data = handle.read_at(0, handle.size)
        return data if Digest.of(data, digest.algorithm) == digest else None


def _opener(handle: SharedFile) -> Open:
    @contextmanager
    def opened(offset: int) -> Iterator[Iterator[bytes]]:
        yield _pieces(handle, offset)

    return opened


def _pieces(handle: SharedFile, offset: int) -> Iterator[bytes]:
    while piece := handle.read_at(offset, _PIECE):
        offset += len(piece)
        yield piece
