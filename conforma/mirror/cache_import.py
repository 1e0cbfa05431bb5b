"""From an OCI image layout into a layer cache, every blob hashed before it gets a name there.

A blob that is not what its name says is named and left out, and holds up
nothing else. Layers of images are unpacked and listed on the way, so that the
first validation finds them as warm as where they came from.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from functools import lru_cache
from typing import Final

from msgspec import Struct, field

from conforma.cache.layers import Fetch
from conforma.cache.safe_cache import SafeCache
from conforma.cancellation import Cancellation
from conforma.errors import (
    BadArchive,
    BadDigest,
    CacheUnusable,
    DigestMismatch,
    IntegrityError,
    NotFound,
    TooLarge,
)
from conforma.mirror.cache_parts import (
    LARGEST_MANIFEST,
    Part,
    Watch,
    parts_of,
    until_one_fails,
)
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.layout import Layout
from conforma.oci.manifest import Descriptor

_WORKERS: Final = 4
_REMEMBERED: Final = 64


class Imported(Struct):
    """What an import did. ``layers`` were unpacked and listed; ``bad`` is what was refused."""

    blobs: int = 0
    bytes: int = 0
    present: int = 0
    layers: int = 0
    bad: list[str] = field(default_factory=list)


class Import:
    """One import of one layout. ``cache`` should be strict, so that a full disk is an error."""

    def __init__(self, cache: SafeCache, layout: Layout) -> None:
        self._cache = cache
        self._layout = layout
        self._upkeep = cache.upkeep()
        self._lock = threading.Lock()
        self._read = lru_cache(maxsize=_REMEMBERED)(self._small)
        self._refused: set[Digest] = set()
        self.done = Imported()

    def run(self, cancellation: Cancellation, watch: Watch) -> Imported:
        """Everything in the layout that is right is in the cache.

        Raises ``CacheUnusable`` if the directory cannot take it, or could not
        keep all of it, ``RegistryUnreachable`` if the layout cannot be read,
        and ``Interrupted``.
        """
        parts = self._parts()

        def bring(part: Part) -> None:
            self._bring(part, cancellation)
            with self._lock:
                done = self.done.blobs + self.done.present + len(self.done.bad)
                watch(done, len(parts), self.done.bytes)

        until_one_fails(parts, bring, _WORKERS, cancellation)
        self._check_kept(parts, cancellation)
        return self.done

    def _parts(self) -> list[Part]:
        """Every blob of the layout; of those that are layers of an image, what is said of them."""
        sizes: dict[Digest, int] = {}
        for name in self._layout.blobs():
            _, algorithm, hex_digits = name.split("/")
            try:
                digest = Digest.parse(f"{algorithm}:{hex_digits}")
            except BadDigest as error:
                self.done.bad.append(f"{name}: {error.message}")
                continue
            sizes[digest] = self._layout.blob_size(digest)
        known: dict[Digest, Part] = {}
        for entry in self._layout.index.manifests:
            for part in parts_of(entry.digest, self._read):
                known.setdefault(part.descriptor.digest, part)
        parts = []
        for digest, size in sizes.items():
            said = known.get(digest)
            # The size is the file's: a manifest that lies about it is for a validation to tell.
            media_type = media_types.OCTETS if said is None else said.descriptor.media_type
            diff_id = None if said is None else said.diff_id
            parts.append(Part(Descriptor(media_type, digest, size), "blob", diff_id))
        return sorted(parts, key=lambda part: -part.descriptor.size)

    def _bring(self, part: Part, cancellation: Cancellation) -> None:
        digest, size = part.descriptor.digest, part.descriptor.size
        there = self._upkeep.open(digest)
        present = there is not None and there.size == size
        layer = self._cache.layer(part.descriptor, part.diff_id, self._fetch(part.descriptor))
        try:
            if part.diff_id is not None:
                # What is no archive, or not the one it is said to be, is no less the blob it is.
                with suppress(BadArchive, TooLarge, DigestMismatch):
                    layer.contents(cancellation)
                    with self._lock:
                        self.done.layers += 1
            layer.compressed(cancellation).close()
        except (IntegrityError, NotFound) as error:
            with self._lock:
                self._refused.add(digest)
                self.done.bad.append(error.message)
            return
        with self._lock:
            if present:
                self.done.present += 1
            else:
                self.done.blobs += 1
                self.done.bytes += size

    def _check_kept(self, parts: list[Part], cancellation: Cancellation) -> None:
        """Raise ``CacheUnusable`` if something that was brought in is gone again."""
        # Now, not soon: what is over the limit must not seem to be kept.
        self._cache.collect(cancellation)
        kept = self._refused.union(self._upkeep.digests())
        gone = sum(part.descriptor.digest not in kept for part in parts)
        if gone:
            raise CacheUnusable(
                f"{self._cache.options.directory} could not keep {gone} of {len(parts)} blobs",
                hint="free some space, or raise its limit with --cache-size",
            )

    def _fetch(self, descriptor: Descriptor) -> Fetch:
        def fetch(offset: int) -> AbstractContextManager[Iterator[bytes]]:
            # The cache hashes what it stores; once is enough.
            return self._layout.open_blob(descriptor, offset=offset, verify=False)

        return fetch

    def _small(self, digest: Digest) -> bytes | None:
        try:
            return self._layout.read_blob(digest, limit=LARGEST_MANIFEST)
        except (IntegrityError, NotFound):
            return None
