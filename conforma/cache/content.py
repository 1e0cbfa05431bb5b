"""Small content that a registry client keeps for later runs, in the directory of the layer cache.

Manifests and evidence are blobs like any others: named and verified by digest,
evicted with the layers. Notes (what a tag meant) are dated facts in a small
database that forgets the oldest. Nothing here takes a lock: two who store the
same bytes give the same name to equal files.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Final

from conforma.cache.disk import DiskTrouble, Key, LayerStore
from conforma.cache.index import Index
from conforma.cache.space import Space
from conforma.oci.digest import Digest

_LARGEST: Final = 16 << 20
_NOTES: Final = 16 << 20
"""Bytes the notes may take, about a hundred thousand."""


class StoredContent:
    """Implements :class:`conforma.oci.options.ContentStore`. Thread safe."""

    def __init__(self, store: LayerStore, index: Index, space: Space) -> None:
        self._store = store
        self._index = index
        self._space = space
        self._lock = threading.Lock()
        self._database: Any = None

    def get(self, digest: Digest) -> bytes | None:
        """Bytes that were stored under this digest; the caller verifies them."""
        key = Key.of("blobs", digest)
        try:
            handle = self._store.open(key, None, pinned=False)
        except OSError:
            return None
        if handle is None or handle.size > _LARGEST:
            return None
        try:
            data = handle.read_at(0, handle.size)
        except OSError:
            return None
        self._index.used(key)
        return data

    def put(self, digest: Digest, data: bytes) -> None:
        """Keep verified bytes; a directory that cannot take them is left alone."""
        key = Key.of("blobs", digest)
        if not self._store.writable:
            return
        with contextlib.suppress(DiskTrouble):
            if self._store.open(key, len(data)) is not None:
                return
            partial = self._store.begin(key)
            try:
                partial.write(data)
                # Whoever reads it hashes it, so a power failure can cost a request
                # and nothing else; two syncs for each of many small files cost more.
                partial.store_as(key, durable=False)
            finally:
                partial.discard()
            # Its time is that of the file; the index has to know when it is used again.
            self._space.added(len(data))

    def distrust(self, digest: Digest) -> None:
        """What is stored under this digest is something else."""
        key = Key.of("blobs", digest)
        handle = self._store.open(key, None)
        if handle is not None:
            self._store.quarantine(key, handle)

    def recall(self, name: str) -> str | None:
        """The note under this name."""
        text = self._with_notes(lambda notes: notes.get(name))
        return text if isinstance(text, str) else None

    def note(self, name: str, text: str) -> None:
        """Keep a short text, whose loss costs a request and nothing else."""
        if self._store.writable:
            self._with_notes(lambda notes: notes.set(name, text))

    def close(self) -> None:
        """Close the database of notes."""
        with self._lock:
            database, self._database = self._database, None
        if database is not None:
            with contextlib.suppress(Exception):
                database.close()

    def _with_notes(self, use: Any) -> Any:
        # Damaged, locked for too long, read only, full disk: all the same to us.
        try:
            return use(self._notes())
        except Exception:
            return None

    def _notes(self) -> Any:
        with self._lock:
            if self._database is None:
                from conforma.cache.index_disk import opened

                self._database = opened(
                    self._store.root / "notes",
                    size_limit=_NOTES,
                    eviction_policy="least-recently-stored",
                )
            return self._database
