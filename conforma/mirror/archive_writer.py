"""One tar archive that holds an OCI image layout as a destination.

It grows beside its place, one member at a time, and takes its name when it is
complete: an older archive stays whole until then, and its blobs are taken
over. A run that was killed is continued from what it left, once that is
verified. The index is the last member, so that readers of a stream and of a
file find the same.
"""

from __future__ import annotations

import fcntl
import os
import tarfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from conforma.cancellation import Cancellation
from conforma.errors import BadDigest, DestinationUnusable, DigestMismatch, InputError
from conforma.mirror.layout_writer import IndexFile
from conforma.mirror.names import layout_name
from conforma.mirror.plan import Shape
from conforma.oci.digest import Digest, Hasher
from conforma.oci.layout import INDEX_FILE, MARKER, MARKER_FILE, Layout, blob_name
from conforma.oci.layout_files import ArchiveFiles
from conforma.oci.manifest import Descriptor
from conforma.oci.reference import Reference
from conforma.oci.upload import Open, from_memory

_PIECE: Final = 1 << 20
_BLOCK: Final = 512


class ArchiveDestination:
    """A single file. Not thread safe, and says so: callers stage what they fetch in parallel."""

    shape: Final = Shape(one_store=True, lists_digests=True)
    at_once: Final = 1

    def __init__(self, path: Path, cancellation: Cancellation) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._cancellation = cancellation
        self._sizes: dict[Digest, int] = {}
        self._old: dict[Digest, tuple[int, int]] = {}
        self._file: BinaryIO | None = None
        self._end = 0
        entries: list[Descriptor] = []
        with _explained(path):
            if path.exists():
                entries = list(Layout.open(f"oci-archive:{path}").index.manifests)
                for name, place in ArchiveFiles(path).members.items():
                    if (digest := _digest_of(name)) is not None:
                        self._old[digest] = place
            if self._part.exists():
                self._continue()
        self.index = IndexFile(entries)

    def has_blob(self, target: Reference, descriptor: Descriptor) -> bool:
        """Whether the archive holds it."""
        del target
        return descriptor.size in (
            self._sizes.get(descriptor.digest),
            self._old.get(descriptor.digest, (0, None))[1],
        )

    def has_manifest(self, target: Reference) -> bool:
        """Whether the archive holds it."""
        assert target.digest is not None
        return target.digest in self._sizes or target.digest in self._old

    def named(self, target: Reference) -> Digest | None:
        """What the name means now."""
        return self.index.digest_of(layout_name(target))

    def put_blob(self, target: Reference, descriptor: Descriptor, source: Open) -> None:
        """Append it. Raises ``DigestMismatch``; then the archive is as it was."""
        del target
        file = self._begin()
        start = self._end
        hasher = Hasher(descriptor.digest)
        try:
            with _explained(self._path), source(0) as chunks:
                self._header(blob_name(descriptor.digest), descriptor.size)
                for chunk in chunks:
                    self._cancellation.raise_if_cancelled()
                    hasher.update(chunk)
                    self._write(chunk)
                self._pad()
            if hasher.size != descriptor.size or not hasher.matches():
                raise DigestMismatch(f"blob {descriptor.digest}: other bytes than promised")
        except BaseException:
            self._end = start
            file.truncate(start)
            raise
        self._sizes[descriptor.digest] = descriptor.size

    def mount(self, target: Reference, descriptor: Descriptor, other: Reference) -> bool:
        """Never: there is one store for all names."""
        del target, descriptor, other
        return False

    def open_blob(
        self, target: Reference, descriptor: Descriptor
    ) -> AbstractContextManager[Iterator[bytes]]:
        """Read a blob back; only of a finished archive."""
        del target
        return Layout.open(f"oci-archive:{self._path}").open_blob(descriptor)

    def put_manifest(self, target: Reference, descriptor: Descriptor, raw: bytes) -> None:
        """Append it."""
        if not self.has_manifest(target):
            self.put_blob(target, descriptor, from_memory(raw))

    def put_name(self, target: Reference, descriptor: Descriptor, raw: bytes) -> None:
        """Note it for the index."""
        del raw
        self._begin()
        self.index.put(layout_name(target), descriptor)

    def list_referrers(self, target: Reference, wanted: tuple[Descriptor, ...]) -> bool:
        """Nothing to do: a layout's readers look at subjects."""
        del target, wanted
        return False

    def finish(self) -> None:
        """The archive has its name, unless there is nothing new in it."""
        if self._file is None and self._path.exists():
            return
        file = self._begin()
        with _explained(self._path):
            for name, content in ((MARKER_FILE, MARKER), (INDEX_FILE, self.index.document())):
                self._header(name, len(content))
                self._write(content)
                self._pad()
            self._write(bytes(2 * _BLOCK))
            file.flush()
            os.fsync(file.fileno())
            # Renamed before it is closed, which ends the lock: whoever waits for it finds
            # that it is no longer what it was.
            self._part.replace(self._path)
            file.close()
        self._file = None

    def _begin(self) -> BinaryIO:
        """The file that grows, with everything in it that an older archive has."""
        if self._file is None:
            with _explained(self._path):
                self._file = self._claimed()
                self._file.truncate()
                self._take_over()
        return self._file

    def _claimed(self) -> BinaryIO:
        """The file that grows, locked as long as it is open, with what is in it.

        Raises ``InputError`` if another run writes to it.
        """
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            file = os.fdopen(os.open(self._part, flags, 0o666), "r+b")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(file.fileno()), self._part.stat()):
                    return file
            except BlockingIOError as cause:
                file.close()
                raise InputError(
                    f"oci-archive:{self._path}: another run is writing to it",
                    hint="wait for it to end",
                ) from cause
            except FileNotFoundError:
                pass  # it is complete and has its name: what we opened is no part any more
            file.close()

    def _continue(self) -> None:
        """Go on with what a killed run left: its whole and right members, without the rest."""
        self._file = self._claimed()
        self._end = self._verified_end()
        self._file.truncate(self._end)
        self._take_over()

    def _verified_end(self) -> int:
        try:
            files = ArchiveFiles(self._part)
        except InputError:
            return 0
        end = 0
        for name, (offset, size) in files.members.items():
            digest = _digest_of(name)
            stream = files.open(name)
            if digest is None or stream is None:
                break
            hasher = Hasher(digest)
            with stream:
                while piece := stream.read(_PIECE):
                    self._cancellation.raise_if_cancelled()
                    hasher.update(piece)
            if hasher.size != size or not hasher.matches():
                break
            self._sizes[digest] = size
            end = offset + -(-size // _BLOCK) * _BLOCK
        return end

    def _take_over(self) -> None:
        """Append the blobs of the archive that is there."""
        if not self._old:
            return
        with self._path.open("rb") as old:
            for digest, (offset, size) in self._old.items():
                if digest in self._sizes:
                    continue
                self._header(blob_name(digest), size)
                old.seek(offset)
                left = size
                while left and (piece := old.read(min(left, _PIECE))):
                    self._cancellation.raise_if_cancelled()
                    self._write(piece)
                    left -= len(piece)
                self._pad()
                self._sizes[digest] = size

    def _header(self, name: str, size: int) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, 0o644
        self._write(member.tobuf(tarfile.GNU_FORMAT))

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        self._file.seek(self._end)
        self._file.write(data)
        self._end += len(data)

    def _pad(self) -> None:
        self._write(bytes(-self._end % _BLOCK))


def _digest_of(name: str) -> Digest | None:
    area, _, rest = name.partition("/")
    try:
        return Digest.parse(rest.replace("/", ":")) if area == "blobs" else None
    except BadDigest:
        return None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Name the archive in errors of the file system."""
    try:
        yield
    except OSError as cause:
        reason = (cause.strerror or str(cause)).lower()
        raise DestinationUnusable(f"oci-archive:{path}: cannot be written: {reason}") from cause
