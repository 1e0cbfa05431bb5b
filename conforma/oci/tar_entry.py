"""A member of a tar archive, as everybody who reads archives sees it."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Kind = Literal["file", "hardlink", "symlink", "char", "block", "directory", "fifo"]

BLOCK: Final = 512
FLAGS: Final[dict[int, Kind]] = {
    0: "file",
    ord("0"): "file",
    ord("7"): "file",
    ord("1"): "hardlink",
    ord("2"): "symlink",
    ord("3"): "char",
    ord("4"): "block",
    ord("5"): "directory",
    ord("6"): "fifo",
    ord("S"): "file",
}
"""What the type flag of a header stands for; POSIX has all others read as files."""


class Fragment(NamedTuple):
    """A part of a sparse file that is stored: where it belongs, and how long it is."""

    start: int
    length: int


# A tuple, not a dataclass: layers have tens of thousands of them, and making
# a frozen dataclass costs four times as much.
class TarEntry(NamedTuple):
    """One member. ``path`` is the name as the archive spells it.

    ``size`` is the length of the content, ``offset`` where its bytes begin in
    the plain archive, ``crc`` their CRC-32. ``fragments`` is not ``None`` for
    sparse files, whose bytes are only those fragments.
    """

    path: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    offset: int
    link_target: str
    mtime: int
    crc: int
    fragments: tuple[Fragment, ...] | None
