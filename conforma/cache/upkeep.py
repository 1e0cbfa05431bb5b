"""Looking after a cache directory while others use it: what is there, is it right, away with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

from msgspec import Struct, field

from conforma.cache.disk import AREAS, Key, LayerStore
from conforma.cache.handles import SharedFile
from conforma.cache.index import Index
from conforma.cache.link import Link
from conforma.cache.space import Space
from conforma.cache.toc import Toc
from conforma.errors import BadDigest
from conforma.oci.digest import DiffID, Digest


class Inventory(Struct, frozen=True):
    """What a directory holds. ``entries`` and ``bytes`` are by area; times are seconds since
    the epoch, 0 if there is no entry; ``total`` is in bytes on disk, leftovers included.
    """

    entries: dict[str, int]
    bytes: dict[str, int]
    total: int
    partials: int
    quarantined: int
    first_used: float
    last_used: float


class Verdict(Struct):
    """What a check of every entry found; ``bad`` were quarantined."""

    checked: int = 0
    bytes: int = 0
    bad: list[str] = field(default_factory=list)


class Upkeep:
    """The operations on one store. All of them are safe while others read and write it."""

    def __init__(self, store: LayerStore, index: Index, space: Space) -> None:
        self._store = store
        self._index = index
        self._space = space

    def inventory(self) -> Inventory:
        """What is there now, by looking."""
        files = list(self._space.files())
        entries = [f for f in files if f.key is not None and not f.is_partial]
        counts = Counter(f.key.area for f in entries if f.key)
        sizes: Counter[str] = Counter()
        for file in entries:
            assert file.key is not None
            sizes[file.key.area] += file.size
        used = [file.used for file in entries]
        return Inventory(
            {area: counts[area] for area in AREAS},
            {area: sizes[area] for area in AREAS},
            sum(f.size for f in files),
            sum(f.is_partial for f in files),
            sum(f.key is None for f in files),
            min(used, default=0.0),
            max(used, default=0.0),
        )

    def verify(self) -> Iterator[Verdict]:
        """Hash every entry again, and quarantine what is not what its name says.

        Yields the findings so far after each entry; one that is evicted
        meanwhile is not counted.
        """
        verdict = Verdict()
        for file in self._space.files():
            if file.key is None or file.is_partial:
                continue
            handle = self._store.open(file.key, None)
            if handle is None:
                continue
            verdict.checked += 1
            verdict.bytes += handle.size
            if self._is_right(file.key, handle):
                self._index.checked(file.key)
            else:
                self._store.quarantine(file.key, handle)
                verdict.bad.append(str(file.key))
            yield verdict

    def digests(self) -> Iterator[Digest]:
        """Which blobs are here, by their names alone."""
        for file in self._space.files():
            if file.key is not None and file.key.area == "blobs" and not file.is_partial:
                with suppress(BadDigest):
                    yield Digest.parse(f"{file.key.algorithm}:{file.key.hex}")

    def open(self, digest: Digest) -> SharedFile | None:
        """A blob, kept from being evicted while it is open, its content not checked."""
        return self._store.open(Key.of("blobs", digest), None)

    def distrust(self, digest: Digest, handle: SharedFile) -> None:
        """The blob's content is not what its name says."""
        self._store.quarantine(Key.of("blobs", digest), handle)

    def clear(self) -> int:
        """Remove everything that nobody reads or writes; returns the bytes freed."""
        return self._space.clear()

    def _is_right(self, key: Key, handle: SharedFile) -> bool:
        if key.area == "links":
            digest = Digest(key.algorithm, key.hex)
            return Link.parse(handle.read_at(0, handle.size), digest) is not None
        if key.area == "tocs":
            diff_id = DiffID(key.algorithm, key.hex)
            return Toc.parse(handle.read_at(0, handle.size), diff_id) is not None
        return self._store.content_matches(key, handle)
