"""The files of an OCI image layout, wherever they are: in a directory, or in one tar archive.

Names come from digests and from the specification, never from the content.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, cast

from conforma.errors import InputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOBS: Final = "blobs"
_BUFFER: Final = 256 * 1024


class LayoutFiles(Protocol):
    """Read access to regular files by their names below the layout. Thread safe."""

    def size(self, name: str) -> int | None:
        """Length in bytes; ``None`` if there is no such file."""
        ...

    def open(self, name: str) -> BinaryIO | None:
        """The file at position 0; ``None`` if there is no such file."""
        ...

    def blobs(self) -> Iterator[str]:
        """The names of all regular files in the directory of blobs, hidden ones left out."""
        ...


class DirectoryFiles:
    """A layout in a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def size(self, name: str) -> int | None:
        """Length in bytes; ``None`` if there is no such file."""
        try:
            status = (self._root / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def open(self, name: str) -> BinaryIO | None:
        """The file at position 0; ``None`` if there is no such file."""
        if self.size(name) is None:
            return None
        return (self._root / name).open("rb", buffering=_BUFFER)

    def blobs(self) -> Iterator[str]:
        """The names of all regular files in the directory of blobs, hidden ones left out."""
        for path in sorted((self._root / BLOBS).glob("*/[!.]*")):
            name = f"{BLOBS}/{path.parent.name}/{path.name}"
            if self.size(name) is not None:
                yield name


class ArchiveFiles:
    """A layout in an uncompressed tar archive, read in place.

    The last member of a name counts, as it would when unpacked.
    """

    def __init__(self, path: Path) -> None:
        self._members: dict[str, tuple[int, int]] = {}
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    if member.isreg() and not member.issparse():
                        name = member.name.removeprefix("./")
                        self._members[name] = (member.offset_data, member.size)
        except tarfile.TarError as cause:
            raise InputError(
                f"{path}: not an uncompressed tar archive: {cause}",
                hint="decompress it first" if _is_compressed(path) else None,
            ) from cause
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptor", None)
        if descriptor is not None:
            os.close(descriptor)

    @property
    def members(self) -> dict[str, tuple[int, int]]:
        """Offset and length of each file's content, in the order of the archive."""
        return dict(self._members)

    def size(self, name: str) -> int | None:
        """Length in bytes; ``None`` if there is no such file."""
        found = self._members.get(name)
        return None if found is None else found[1]

    def open(self, name: str) -> BinaryIO | None:
        """The file at position 0; ``None`` if there is no such file."""
        found = self._members.get(name)
        if found is None:
            return None
        # The section keeps us, and with us the descriptor, alive.
        section = _Section(self, self._descriptor, *found)
        return cast(BinaryIO, io.BufferedReader(section, _BUFFER))

    def blobs(self) -> Iterator[str]:
        """The names of all regular files in the directory of blobs, hidden ones left out."""
        for name in self._members:
            if name.startswith(f"{BLOBS}/") and not name.rpartition("/")[2].startswith("."):
                yield name


class _Section(io.RawIOBase):
    """A part of a file as a file."""

    def __init__(self, owner: ArchiveFiles, descriptor: int, start: int, size: int) -> None:
        self._owner = owner
        self._descriptor = descriptor
        self._start = start
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self._size - self._position)]
        count = os.preadv(self._descriptor, [view], self._start + self._position)
        self._position += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4)[:2] in (b"\x1f\x8b", b"\x28\xb5", b"BZ")
