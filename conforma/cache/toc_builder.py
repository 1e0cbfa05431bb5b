"""From the members of a tar to what unpacking it would leave.

Members are taken in the order of the archive, as an unpacker takes them: a
later one replaces an earlier one, symlinks on the way are followed inside the
root, hard links share bytes, whiteouts concern lower layers only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from conforma.cache.paths import METADATA, OPAQUE, WHITEOUT, clean, follow, key_of
from conforma.cache.toc import Row, RowValues, Toc
from conforma.oci.tar_entry import TarEntry

_SPECIAL_BITS: Final = 0o7000


class TocBuilder:
    """Collects the entries of one layer.

    ``below`` gives the target of a symlink that lower layers have at a path,
    for a layer whose members lie behind such links; its whiteouts must then be
    taken before its other members.
    """

    def __init__(self, below: Callable[[str], str | None] | None = None) -> None:
        self._below = below
        # Plain tuples for most, as the collector of garbage looks at those only once.
        self._rows: dict[str, RowValues] = {}
        self._whiteouts: set[str] = set()
        self._opaques: set[str] = set()
        self._links = 0  # symlinks among the rows
        self._resolved: dict[str, str | None] = {}  # where the name of a directory leads
        self._places: dict[str, str] = {}  # the same for names as archives spell them, and a slash
        self._inhabited: set[str] = {""}  # directories that something was put into
        self._cut: dict[str, int] = {}  # trees that were replaced, and when
        self._tangled: set[str] = set()  # entries that came after what lies below them
        self._order = 0
        self._unsafe = ""

    def add(self, entry: TarEntry) -> None:
        """Take the archive's next member."""
        name, kind, mode, uid, gid, size, offset, target, mtime, crc, fragments = entry
        directory, _, last = name.rpartition("/")
        place = self._places.get(directory)
        if place is not None and kind == "file" and last and not last.startswith("."):
            # Most members are new files beside others: nothing to clean, follow or replace.
            here = place + last
            if here not in self._rows and here not in self._inhabited:
                self._order += 1
                self._rows[here] = (
                    kind, mode, uid, gid, size, offset, mtime, crc, self._order, target, fragments
                )  # fmt: skip
                return
        path = clean(name)
        link: str | None = target
        if kind == "hardlink":
            link = clean(target)
        if path is None or link is None:
            self._refuse(name)
            return
        if path:
            row = Row(kind, mode, uid, gid, size, offset, mtime, crc, 0, link, fragments)
            self.add_row(path, row)
        self._remember(directory)

    def _remember(self, directory: str) -> None:
        """Note where a directory is that something was put into, by the name an archive gives it."""
        cleaned = clean(directory)
        place = None if cleaned is None else self._place(cleaned)
        if place is not None and place in self._inhabited:
            self._places[directory] = f"{place}/" if place else ""

    def add_row(self, path: str, row: Row) -> None:
        """Take an entry whose path is clean but may lie behind symlinks."""
        directory, _, name = path.rpartition("/")
        if name.startswith(WHITEOUT):
            self._hide(directory, name)
            return
        place = self._place(directory)
        if place is None:
            self._refuse(path)
            return
        self._order += 1
        here = f"{place}/{name}" if place else name
        self._inhabit(place)
        if here in self._inhabited:
            self._tangled.add(here)
        old = self._row(here)
        if row.kind != "directory" and here in self._inhabited:
            self._cut[here] = self._order
        if row.kind == "directory" and old is not None and old.kind != "directory":
            self._whiteouts.add(here)  # what lower layers had there went with the old entry
        if row.kind == "hardlink":
            row = self._linked(row)
        if row.kind == "symlink" or (old is not None and old.kind == "symlink"):
            self._resolved.clear()
            self._places.clear()
            self._links += 1
        self._rows[here] = row._replace(order=self._order)

    def hide(self, path: str, *, opaque: bool) -> None:
        """Take a marker that hides ``path`` (or all that is in it) in lower layers."""
        directory, _, name = path.rpartition("/")
        if opaque:
            self._hide(path, OPAQUE)
        else:
            self._hide(directory, WHITEOUT + name)

    def build(self) -> Toc:
        """What is left in the end."""
        rows = self._rows
        if self._cut:
            rows = {
                path: row
                for path, row in rows.items()
                if not self._was_cut(path, Row._make(row).order)
            }
        # A file with something below it was replaced by a directory in passing,
        # after it had replaced what lower layers had there.
        replaced = {
            p for p in self._inhabited if p in rows and Row._make(rows[p]).kind != "directory"
        }
        if replaced:
            inhabited: set[str] = set()
            for directory in {path.rpartition("/")[0] for path in rows}:
                while directory not in inhabited:
                    inhabited.add(directory)
                    directory = directory.rpartition("/")[0]
            replaced &= inhabited
        if replaced:
            rows = {path: row for path, row in rows.items() if path not in replaced}
            self._whiteouts |= replaced
        return Toc(
            rows,
            frozenset(map(key_of, self._whiteouts)),
            frozenset(map(key_of, self._opaques)),
            frozenset(map(key_of, self._tangled)),
            self._unsafe,
        )

    def _row(self, path: str) -> Row | None:
        found = self._rows.get(path)
        return None if found is None else Row._make(found)

    def _was_cut(self, path: str, order: int) -> bool:
        while path := path.rpartition("/")[0]:
            if self._cut.get(path, 0) > order:
                return True
        return False

    def _hide(self, directory: str, name: str) -> None:
        if self._below is not None:
            # Lower layers are what it is about, so their links are followed.
            directory = follow(directory, self._below) or ""
        if name == OPAQUE:
            self._opaques.add(directory)
            return
        hidden = name.removeprefix(WHITEOUT)
        if hidden in ("", ".", ".."):
            self._refuse(f"{directory}/{name}")
        elif not name.startswith(METADATA):  # aufs kept its own notes under such names
            self._whiteouts.add(f"{directory}/{hidden}" if directory else hidden)

    def _place(self, directory: str) -> str | None:
        """Where a directory's name leads; ``None`` for a loop of symlinks."""
        if not self._links and self._below is None:
            return directory
        if directory not in self._resolved:
            self._resolved[directory] = follow(directory, self._link_at)
        return self._resolved[directory]

    def _link_at(self, path: str) -> str | None:
        row = self._row(path)
        if row is not None:
            return row.link if row.kind == "symlink" else None
        if self._below is None or self._is_covered(path):
            return None
        return self._below(path)

    def _is_covered(self, path: str) -> bool:
        """Whether this layer has hidden or replaced what lower layers have at ``path``."""
        if path in self._whiteouts:
            return True
        while path:
            path = path.rpartition("/")[0]
            row = self._row(path)
            if path in self._opaques or path in self._whiteouts:
                return True
            if row is not None and row.kind not in ("directory", "symlink"):
                return True
        return False

    def _inhabit(self, directory: str) -> None:
        while directory not in self._inhabited:
            self._inhabited.add(directory)
            directory = directory.rpartition("/")[0]

    def _linked(self, row: Row) -> Row:
        """A hard link as what it is: another name for the target, if that is in this layer."""
        directory, _, name = row.link.rpartition("/")
        place = self._place(directory)
        target = f"{place}/{name}" if place else name
        found = self._row(target)
        if found is None or found.kind == "directory":
            return row._replace(link=target)
        # Unpackers disagree on whose mode wins; a rule about special bits must
        # see them wherever they stand.
        return found._replace(
            mode=found.mode | (row.mode & _SPECIAL_BITS),
            link=found.link if found.kind == "symlink" else target,
        )

    def _refuse(self, path: str) -> None:
        self._unsafe = self._unsafe or path
