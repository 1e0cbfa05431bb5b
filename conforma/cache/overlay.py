"""Layers on top of one another: what the unpacked image shows, without unpacking it.

Nothing is merged. Each question looks at the layers' own tables, from the
top, so layers that many images share cost their memory once and a question
costs only what it touches (OCI image-spec, layer.md, "Applying Changesets").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final

from msgspec import Struct

from conforma.cache.paths import follow, key_of, lies_within, parent_of, path_of
from conforma.cache.toc import Row, Selector, Toc
from conforma.cache.toc_builder import TocBuilder
from conforma.oci.memory import Memory
from conforma.oci.tar_entry import TarEntry

_ANSWERS: Final = 2 << 20
_NOT_DIRECTORIES = ("file", "hardlink", "symlink", "char", "block", "fifo")


class Place(Struct, frozen=True):
    """An entry: its layer, counted from the bottom, and its index there."""

    layer: int
    index: int


Members = Callable[[int], Iterable[TarEntry]]
"""All members of a layer's archive, by the layer's number."""


class Overlay:
    """The file system that a stack of layers, lowest first, unpacks to.

    ``members`` reads a layer's archive again, for the rare layer that both
    writes through lower layers' symlinks and replaces them.
    """

    def __init__(self, tocs: Iterable[Toc], members: Members) -> None:
        self.tocs: tuple[Toc, ...] = ()
        self._members = members
        self._hidden: dict[tuple[int, bytes, int], bool] = {}
        self.answers: Memory[Any] = Memory(_ANSWERS)
        """What readers have found out about it; images of one release are asked the same."""
        for toc in tocs:
            self.tocs = (*self.tocs, self._redirected(toc))
            self._hidden.clear()

    def lookup(self, path: str, top: int | None = None) -> Place | None:
        """The entry at exactly ``path`` (symlinks are not followed), if there is one.

        ``top`` looks at the lowest ``top`` layers only.
        """
        key = key_of(path)
        top = len(self.tocs) if top is None else top
        for layer in reversed(range(top)):
            index = self.tocs[layer].find(key)
            if index >= 0:
                place = Place(layer, index)
                return place if self._shows(place, key, top) else None
        return None

    def resolve(self, path: str) -> Place | None:
        """The entry that ``path`` leads to when symlinks are followed inside the root."""
        place = follow(path, self._link_at)
        return None if place is None else self.lookup(place)

    def select(self, wanted: Selector) -> Iterator[Place]:
        """The visible entries among what ``wanted`` picks from each layer's own table."""
        for layer, toc in enumerate(self.tocs):
            for index in toc.selected(wanted):
                place = Place(layer, index)
                if self._shows(place, toc.keys[index], len(self.tocs)):
                    yield place

    def row(self, place: Place) -> Row:
        """The entry as the unpacked image has it: a hard link has its target's content."""
        row = self.tocs[place.layer].row(place.index)
        if row.kind == "hardlink":
            target = self.content(place)
            if target is not None:
                found = self.tocs[target.layer].row(target.index)
                return found._replace(mode=found.mode | (row.mode & 0o7000), link=row.link)
        return row

    def path(self, place: Place) -> str:
        """The entry's path."""
        return self.tocs[place.layer].path(place.index)

    def content(self, place: Place) -> Place | None:
        """Whose bytes the entry has: its own, or those of a hard link's target below it.

        ``None`` if it has none: no regular file, or the target is missing.
        """
        for _ in self.tocs:
            toc = self.tocs[place.layer]
            kind = toc.kind(place.index)
            if kind == "file":
                return place
            if kind != "hardlink":
                return None
            directory, _, name = toc.row(place.index).link.rpartition("/")
            top = place.layer
            parent = follow(directory, partial(self._link_at, top=top))
            if parent is None:
                return None
            target = self.lookup(f"{parent}/{name}" if parent else name, top)
            if target is None:
                return None
            place = target
        return None

    def _link_at(self, path: str, top: int | None = None) -> str | None:
        place = self.lookup(path, top)
        if place is None or self.tocs[place.layer].kind(place.index) != "symlink":
            return None
        return self.tocs[place.layer].row(place.index).link

    def _shows(self, place: Place, key: bytes, top: int) -> bool:
        """Whether no layer above, below ``top``, replaces or hides the entry."""
        kind = self.tocs[place.layer].kind(place.index)
        for toc in self.tocs[place.layer + 1 : top]:
            if toc.find(key) >= 0 or key in toc.whiteouts:
                return False
            if kind != "directory" and toc.below(key):
                return False  # a directory took its place
        return not self._is_hidden(place.layer, parent_of(key), top)

    def _is_hidden(self, layer: int, directory: bytes, top: int) -> bool:
        """Whether what ``layer`` has in ``directory`` is hidden by layers above it."""
        mark = (layer, directory, top)
        known = self._hidden.get(mark)
        if known is None:
            known = self._hidden[mark] = self._hides(layer, directory, top)
        return known

    def _hides(self, layer: int, directory: bytes, top: int) -> bool:
        for toc in self.tocs[layer + 1 : top]:
            if directory in toc.opaques or directory in toc.whiteouts:
                return True
            index = toc.find(directory) if directory else -1
            if index >= 0 and toc.kind(index) in _NOT_DIRECTORIES:
                return True
        return bool(directory) and self._is_hidden(layer, parent_of(directory), top)

    def _redirected(self, toc: Toc) -> Toc:
        """``toc`` with the names that go through lower layers' symlinks where they lead."""
        links = {link for lower in self.tocs for link in lower.symlinks}
        tangled = any(lies_within(link, toc.tangled) for link in links) if toc.tangled else False
        if not tangled and not any(
            toc.find(link) < 0 and self._link_at(path_of(link)) is not None
            for link in links & toc.directories
        ):
            return toc
        builder = TocBuilder(self._link_at)
        for key in sorted(toc.whiteouts):
            builder.hide(path_of(key), opaque=False)
        for key in sorted(toc.opaques):
            builder.hide(path_of(key), opaque=True)
        if tangled:
            for entry in self._members(len(self.tocs)):
                builder.add(entry)
        else:
            for index in sorted(range(len(toc)), key=lambda index: toc.row(index).order):
                builder.add_row(toc.path(index), toc.row(index))
        redirected = builder.build()
        redirected.unsafe = redirected.unsafe or toc.unsafe
        return redirected
