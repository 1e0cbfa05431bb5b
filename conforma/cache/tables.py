"""Tables of contents kept beside the layers, and the recently used ones in memory."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from typing import Final

from conforma.cache.disk import DiskTrouble, Key, LayerStore
from conforma.cache.handles import SharedFile
from conforma.cache.toc import Toc
from conforma.cache.toc_builder import TocBuilder
from conforma.errors import IntegrityError
from conforma.oci.digest import DiffID
from conforma.oci.layer import pieces_of
from conforma.oci.tar import TarWalker

_SHELF: Final = 48 << 20  # bytes of memory for tables, whatever the number of images


class Shelf:
    """The tables used last, up to a total weight in bytes."""

    def __init__(self, room: int = _SHELF) -> None:
        self._room = room
        self._lock = threading.Lock()
        self._tables: OrderedDict[DiffID, Toc] = OrderedDict()
        self._weight = 0

    def get(self, diff_id: DiffID) -> Toc | None:
        """The table, if it was used lately."""
        with self._lock:
            toc = self._tables.get(diff_id)
            if toc is not None:
                self._tables.move_to_end(diff_id)
            return toc

    def put(self, diff_id: DiffID, toc: Toc) -> None:
        """Remember a table; the ones not used for longest make room."""
        with self._lock:
            old = self._tables.pop(diff_id, None)
            self._weight += toc.weight - (old.weight if old else 0)
            self._tables[diff_id] = toc
            while self._weight > self._room and len(self._tables) > 1:
                self._weight -= self._tables.popitem(last=False)[1].weight


class TableMaker:
    """Makes a table while the plain tar passes by on its way to the disk.

    What passes need not be a tar: that is for whoever wants the table to
    complain about, not for whoever wants the bytes.
    """

    def __init__(self, what: str) -> None:
        self._builder = TocBuilder()
        self._walker: TarWalker | None = TarWalker(self._builder.add, what)

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""
        if self._walker is not None:
            try:
                self._walker.feed(piece)
            except IntegrityError:
                self._walker = None

    def table(self) -> Toc | None:
        """The table, or ``None`` if this was no tar that can be read."""
        try:
            if self._walker is not None:
                self._walker.finish()
                return self._builder.build()
        except IntegrityError:
            pass
        return None


class Tables:
    """The tables of one store."""

    def __init__(self, store: LayerStore) -> None:
        self._store = store
        self._shelf = Shelf()

    def get(self, diff_id: DiffID) -> Toc | None:
        """The table of a layer, from memory or disk; a damaged file is quarantined."""
        toc = self._shelf.get(diff_id)
        if toc is not None:
            return toc
        key = Key.of("tocs", diff_id)
        file = self._store.open(key, None)
        if file is None:
            return None
        toc = Toc.parse(file.read_at(0, file.size), diff_id)
        if toc is None:
            self._store.quarantine(key, file)
            return None
        self._shelf.put(diff_id, toc)
        return toc

    def put(self, diff_id: DiffID, toc: Toc) -> None:
        """Keep a table. If the directory cannot take it, memory still can."""
        self._shelf.put(diff_id, toc)
        if not self._store.writable:
            return
        key = Key.of("tocs", diff_id)
        with contextlib.suppress(DiskTrouble):
            partial = self._store.begin(key)
            try:
                partial.write(toc.as_bytes(diff_id))
                # It carries its own checksum, so nothing is lost by not syncing.
                partial.store_as(key, durable=False)
            finally:
                partial.discard()


def table_of(plain: SharedFile, what: str) -> Toc:
    """The table of a plain tar. Raises ``BadArchive`` or ``TooLarge``."""
    builder = TocBuilder()
    walker = TarWalker(builder.add, what)
    with plain.reader() as source:
        for piece in pieces_of(source):
            walker.feed(piece)
    walker.finish()
    return builder.build()
