"""The table of contents of a layer: what a second question is answered from.

It lists what unpacking this layer alone would leave, in key order, with the
place of every file's bytes in the plain tar. A file in the cache begins with
the hash of its name and the rest, so damage and files under a wrong name are
noticed when they are loaded.
"""

from __future__ import annotations

import hashlib
import json
import sys
from array import array
from bisect import bisect_left
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple, Protocol

from conforma.cache.paths import key_of, parent_of, path_of
from conforma.oci.digest import DiffID
from conforma.oci.tar_entry import Fragment, Kind

# Raise it whenever the same layer would give another table.
VERSION: Final = 1
_MAGIC: Final = b"conforma-toc\n"
KINDS: Final[tuple[Kind, ...]] = (
    "file",
    "hardlink",
    "symlink",
    "char",
    "block",
    "directory",
    "fifo",
)
_SELECTIONS: Final = 16
_WEIGHT: Final = 160  # bytes of memory an entry takes, measured


class Selector(Hashable, Protocol):
    """Something that picks entries by looking at one layer alone."""

    def candidates(self, toc: Toc) -> Iterable[int]:
        """Indexes of the entries that fit."""
        ...


class Row(NamedTuple):
    """One entry. ``order`` is its place in the archive; ``link`` a symlink's target as it
    is written, or the clean path a hard link names. A hard link whose target is
    in the same layer has become a ``file`` with the target's bytes.
    """

    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    offset: int
    mtime: int
    crc: int
    order: int
    link: str = ""
    fragments: tuple[Fragment, ...] | None = None


RowValues = tuple[
    Kind, int, int, int, int, int, int, int, int, str, tuple[Fragment, ...] | None
]  # fmt: skip
"""What a row consists of, as a tuple of which there can be tens of thousands."""


class Toc:
    """One layer's entries, sorted by key; immutable and compact.

    ``whiteouts`` and ``opaques`` are keys: names that hide lower layers'
    entries. ``tangled`` are keys of entries that came after something below
    them: there the archive's order says more than this table does. ``unsafe``
    is the first member name that leads out of the root.
    """

    def __init__(
        self,
        rows: Mapping[str, RowValues],
        whiteouts: frozenset[bytes] = frozenset(),
        opaques: frozenset[bytes] = frozenset(),
        tangled: frozenset[bytes] = frozenset(),
        unsafe: str = "",
    ) -> None:
        by_key = dict(zip(_keys_of(rows), rows.values(), strict=True))
        self.keys = sorted(by_key)
        ordered = map(by_key.__getitem__, self.keys)
        columns = list(zip(*ordered, strict=True)) or [()] * len(Row._fields)
        kinds, modes, uids, gids, sizes, offsets, mtimes, crcs, orders, links, fragments = columns
        self._kinds = bytes(map(KINDS.index, kinds))
        self._small = _interleaved("I", modes, crcs, orders)
        self._large = _interleaved("q", uids, gids, sizes, offsets, mtimes)
        self._links = {i: link for i, link in enumerate(links) if link}
        self._fragments = {i: f for i, f in enumerate(fragments) if f is not None}
        self.whiteouts = whiteouts
        self.opaques = opaques
        self.tangled = tangled
        self.unsafe = unsafe
        self._selected: dict[Hashable, array[int]] = {}

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def weight(self) -> int:
        """Bytes of memory it takes, roughly."""
        return len(self.keys) * _WEIGHT + 1000

    def find(self, key: bytes) -> int:
        """The index of ``key``, or -1."""
        at = bisect_left(self.keys, key)
        return at if at < len(self.keys) and self.keys[at] == key else -1

    def below(self, key: bytes) -> range:
        """The indexes of everything below ``key``; of everything for the root."""
        if not key:
            return range(len(self.keys))
        start = bisect_left(self.keys, key + b"\0")
        return range(start, bisect_left(self.keys, key + b"\1", start))

    def selected(self, wanted: Selector) -> Iterable[int]:
        """The indexes that ``wanted`` picks; remembered, as many images share a layer."""
        found = self._selected.get(wanted)
        if found is None:
            if len(self._selected) >= _SELECTIONS:
                self._selected = {}
            found = self._selected[wanted] = array("I", wanted.candidates(self))
        return found

    def kind(self, index: int) -> Kind:
        """The kind of one entry, without making a row."""
        return KINDS[self._kinds[index]]

    def mode(self, index: int) -> int:
        """The mode bits of one entry, without making a row."""
        return self._small[3 * index]

    def path(self, index: int) -> str:
        """The path of one entry."""
        return path_of(self.keys[index])

    def row(self, index: int) -> Row:
        """Everything about one entry."""
        mode, crc, order = self._small[3 * index : 3 * index + 3]
        uid, gid, size, offset, mtime = self._large[5 * index : 5 * index + 5]
        return Row(
            self.kind(index), mode, uid, gid, size, offset, mtime, crc, order,
            self._links.get(index, ""), self._fragments.get(index),
        )  # fmt: skip

    @cached_property
    def symlinks(self) -> Mapping[bytes, str]:
        """The targets of all symlinks, by key."""
        symlink = KINDS.index("symlink")
        return {
            self.keys[i]: target for i, target in self._links.items() if self._kinds[i] == symlink
        }

    @cached_property
    def directories(self) -> frozenset[bytes]:
        """The keys of all directories that something in this layer lies in."""
        found: set[bytes] = set()
        for keys in (self.keys, self.whiteouts, (o + b"\0" for o in self.opaques)):
            for key in keys:
                parent = parent_of(key)
                while parent and parent not in found:
                    found.add(parent)
                    parent = parent_of(parent)
        return frozenset(found)

    def as_bytes(self, diff_id: DiffID) -> bytes:
        """The file form, as the table of ``diff_id``; :meth:`parse` reads it back."""
        document = {
            "links": {str(i): target for i, target in self._links.items()},
            "fragments": {str(i): f for i, f in self._fragments.items()},
            "whiteouts": sorted(map(path_of, self.whiteouts)),
            "opaques": sorted(map(path_of, self.opaques)),
            "tangled": sorted(map(path_of, self.tangled)),
            "unsafe": self.unsafe,
        }
        # No key has an empty part, so two NULs separate keys.
        parts = (
            b"\0\0".join(self.keys),
            self._kinds,
            self._small.tobytes(),
            self._large.tobytes(),
            json.dumps(document).encode(),
        )
        lengths = json.dumps([VERSION, sys.byteorder, [len(part) for part in parts]]).encode()
        body = b"\n".join((lengths, b"".join(parts)))
        return _head(diff_id, body) + body

    @classmethod
    def parse(cls, raw: bytes, diff_id: DiffID) -> Toc | None:
        """Read the file form; ``None`` if damaged, another layer's or of another version."""
        head = len(_MAGIC) + 65
        if raw[:head] != _head(diff_id, memoryview(raw)[head:]):
            return None
        lengths, _, _ = raw[head : head + 200].partition(b"\n")
        version, byteorder, sizes = json.loads(lengths)
        if version != VERSION or byteorder != sys.byteorder:
            return None
        at = head + len(lengths) + 1
        parts: list[bytes] = []
        for size in sizes:
            parts.append(raw[at : at + size])
            at += size
        toc = cls({})
        toc.keys = parts[0].split(b"\0\0") if parts[0] else []
        toc._kinds = parts[1]
        toc._small.frombytes(parts[2])
        toc._large.frombytes(parts[3])
        document: dict[str, Any] = json.loads(parts[4])
        toc._links = {int(i): target for i, target in document["links"].items()}
        toc._fragments = {
            int(i): tuple(Fragment(*f) for f in fragments)
            for i, fragments in document["fragments"].items()
        }
        toc.whiteouts = frozenset(map(key_of, document["whiteouts"]))
        toc.opaques = frozenset(map(key_of, document["opaques"]))
        toc.tangled = frozenset(map(key_of, document["tangled"]))
        toc.unsafe = document["unsafe"]
        return toc


def _head(diff_id: DiffID, body: bytes | memoryview) -> bytes:
    checksum = hashlib.sha256(f"{diff_id}\n".encode())
    checksum.update(body)
    return _MAGIC + checksum.hexdigest().encode() + b"\n"


def _keys_of(paths: Iterable[str]) -> list[bytes]:
    """The keys of clean paths, all at once, as one at a time takes ten times as long."""
    joined = key_of("//".join(paths))  # no key has an empty part
    return joined.split(b"\0\0") if joined else []


def _interleaved(code: str, *columns: Sequence[int]) -> array[int]:
    """The values of all columns, row by row."""
    step = len(columns)
    values = array(code, bytes(array(code).itemsize * step * len(columns[0])))
    for number, column in enumerate(columns):
        values[number::step] = array(code, column)
    return values
