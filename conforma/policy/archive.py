"""Archives from elsewhere, unpacked without letting them write anywhere else.

Only files and directories come out. A name that would leave the destination,
a device, and a link to something the archive does not hold are refused; sizes
are counted as bytes arrive, whatever a header claims, and what a header makes
the decoder hold in memory is bounded before it is read.
"""

from __future__ import annotations

import bz2
import errno
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Final, Self

from conforma.cancellation import Cancellation
from conforma.errors import PolicyError, TooLarge, UnsafeArchive
from conforma.oci.tar import LONGEST_EXTENSION
from conforma.policy.files import MOST_FILES, Allowance

_TAR: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2")
_CHUNK: Final = 1 << 20
#: Headers whose content ``tarfile`` reads into memory in one piece.
_EXTENSIONS: Final = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)


def is_archive(name: str) -> bool:
    """Whether a file of this name is unpacked rather than copied."""
    return name.endswith((*_TAR, ".zip", ".bz2"))


def unpack(
    archive: Path, destination: Path, cancellation: Cancellation, *, name: str | None = None
) -> None:
    """Unpack ``archive`` below ``destination``; ``name`` decides the format if it differs.

    Raises ``UnsafeArchive``, ``TooLarge``, and ``PolicyError`` for a file that
    is damaged or no archive of that format.
    """
    name = name or archive.name
    writer = _Writer(destination, cancellation)
    with _explained(name):
        if name.endswith(_TAR):
            _unpack_tar(archive, writer)
        elif name.endswith(".zip"):
            _unpack_zip(archive, writer)
        else:
            with bz2.open(archive) as content:
                writer.write(name.removesuffix(".bz2").rpartition("/")[2], content)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what the decoders raise for damaged bytes into ``PolicyError``."""
    try:
        yield
    except (
        *(tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError),
        NotImplementedError,  # a zip file with a compression that Python does not know
        RecursionError,  # a tar file with extension upon extension
        # Both modules read numbers and names of headers without looking first.
        *(ValueError, IndexError, OverflowError, struct.error),
    ) as cause:
        raise PolicyError(f"{name}: damaged or no archive: {cause}") from cause
    except OSError as cause:
        # A place before the beginning of the file is one that the archive names;
        # every other number is the disk's fault.
        if cause.errno not in (None, errno.EINVAL):
            raise
        raise PolicyError(f"{name}: damaged or no archive: {cause}") from cause


class _Writer:
    """Writes members below one directory and counts them."""

    def __init__(
        self, root: Path, cancellation: Cancellation, allowance: Allowance | None = None
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root = root.resolve()
        self._cancellation = cancellation
        self._allowance = allowance or Allowance()

    def place(self, name: str) -> Path:
        """Where a member belongs. Raises ``UnsafeArchive`` and ``TooLarge``."""
        self._cancellation.raise_if_cancelled()
        self._allowance.entry("archive")
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or "\0" in name:
            raise UnsafeArchive(f"archive member {name!r} would be written outside its directory")
        return self._root.joinpath(*path.parts)

    def directory(self, name: str) -> None:
        """Make the directory of a member."""
        self._made(self.place(name), name)

    def write(self, name: str, content: IO[bytes]) -> None:
        """Write one member; a second of the same name replaces the first."""
        target = self.place(name)
        self._made(target.parent, name)
        if target.is_dir():
            raise UnsafeArchive(f"archive member {name!r} is a file and a directory")
        with target.open("wb") as out:
            while chunk := content.read(_CHUNK):
                self._allowance.bytes("archive", len(chunk))
                self._cancellation.raise_if_cancelled()
                out.write(chunk)

    def link(self, name: str, target: str, beside: bool) -> None:
        """Make a member a copy of another; ``beside`` for a path relative to the link."""
        start = PurePosixPath(name).parent if beside else PurePosixPath()
        path = self._root.joinpath(*(start / target).parts).resolve()
        if PurePosixPath(target).is_absolute() or not path.is_relative_to(self._root):
            raise UnsafeArchive(f"archive member {name!r} links out of the archive, to {target!r}")
        if not path.is_file():
            raise UnsafeArchive(
                f"archive member {name!r} links to {target!r}, which is no file in it"
            )
        with path.open("rb") as content:
            self.write(name, content)

    def _made(self, directory: Path, name: str) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as cause:
            raise UnsafeArchive(f"archive member {name!r} is a file and a directory") from cause


class _Header(tarfile.TarInfo):
    """A header that is refused before memory is spent on what it announces."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Read one header. Raises ``TooLarge`` and ``UnsafeArchive``."""
        header = super().frombuf(buf, encoding, errors)
        if header.type in _EXTENSIONS and not 0 <= header.size <= LONGEST_EXTENSION:
            raise TooLarge(f"archive has a name or extension record of {header.size} bytes")
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise UnsafeArchive(f"archive member {header.name!r} is sparse")
        return header


def _unpack_tar(archive: Path, writer: _Writer, *, strip: str = "") -> None:
    """Write the members of a tar file; ``strip`` is a leading directory to leave out."""
    links: list[Callable[[], None]] = []
    with tarfile.open(archive, tarinfo=_Header) as members:
        while (member := members.next()) is not None:
            # Or the records of all members would add up. Old, public, unknown to typeshed.
            members.members.clear()  # type: ignore[attr-defined]
            name = _stripped(member.name, strip)
            if member.isdir():
                writer.directory(name)
            elif member.isreg():
                content = members.extractfile(member)
                if content is not None:
                    writer.write(name, content)
            elif member.issym() or member.islnk():
                target, beside = member.linkname, member.issym()
                if not beside:
                    target = _stripped(target, strip)
                # What it points to may come later in the archive.
                links.append(lambda n=name, t=target, b=beside: writer.link(n, t, b))  # type: ignore[misc]
                if len(links) > MOST_FILES:
                    raise TooLarge(f"archive has more than {MOST_FILES} links")
            else:
                raise UnsafeArchive(f"archive member {name!r} is neither file, directory nor link")
    for link in links:
        link()


def unpack_layer(
    archive: Path,
    destination: Path,
    title: str,
    cancellation: Cancellation,
    allowance: Allowance,
) -> None:
    """Unpack an artifact layer that stands for the directory ``title`` of ``destination``.

    ``allowance`` is what all layers of the artifact may hold together. Raises
    as :func:`unpack` does.
    """
    outer = _Writer(destination, cancellation, allowance)
    with _explained(title):
        inner = _Writer(outer.place(title), cancellation, allowance)
        _unpack_tar(archive, inner, strip=title)


def _stripped(name: str, strip: str) -> str:
    if not strip:
        return name
    parts, outer = PurePosixPath(name).parts, PurePosixPath(strip).parts
    return str(PurePosixPath(*parts[len(outer) :])) if parts[: len(outer)] == outer else name


def _unpack_zip(archive: Path, writer: _Writer) -> None:
    with zipfile.ZipFile(archive) as members:
        for member in members.infolist():
            mode = member.external_attr >> 16
            if member.is_dir():
                writer.directory(member.filename)
            elif mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise UnsafeArchive(f"archive member {member.filename!r} is no regular file")
            elif member.flag_bits & 1:
                raise PolicyError(f"archive member {member.filename!r} is encrypted")
            else:
                with members.open(member) as content:
                    writer.write(member.filename, content)
