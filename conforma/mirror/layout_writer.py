"""An OCI image layout in a directory as a destination.

A blob is written beside its place and renamed when its digest was right; what
an interrupted run left of it is continued, not fetched again. Names are in
``index.json``, which is replaced as a whole. One writer at a time.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from conforma import gojson
from conforma.cancellation import Cancellation
from conforma.errors import DestinationUnusable, InputError, IntegrityError, SizeMismatch
from conforma.mirror.names import layout_name
from conforma.mirror.plan import Shape
from conforma.oci import media_types
from conforma.oci.digest import Digest, Hasher
from conforma.oci.layout import (
    INDEX_FILE,
    MARKER,
    MARKER_FILE,
    Layout,
    blob_name,
)
from conforma.oci.layout_names import REF_NAME
from conforma.oci.manifest import Descriptor
from conforma.oci.reference import Reference
from conforma.oci.upload import Open

_LOCK_FILE: Final = ".conforma-lock"
_PIECE: Final = 1 << 20
_SAVE_EVERY: Final = 1.0


class IndexFile:
    """The names of a layout, in the order in which they came. Thread safe."""

    def __init__(self, entries: list[Descriptor]) -> None:
        self._lock = threading.Lock()
        self._entries = {_name_of(d) or str(d.digest): d for d in entries}

    def digest_of(self, name: str) -> Digest | None:
        """What the name means."""
        with self._lock:
            found = self._entries.get(name)
        return None if found is None else found.digest

    def put(self, name: str, descriptor: Descriptor) -> None:
        """Let the name mean that; what has no name is listed all the same."""
        notes = {REF_NAME: name} if name else {}
        entry = Descriptor(descriptor.media_type, descriptor.digest, descriptor.size, notes)
        with self._lock:
            self._entries[name or str(descriptor.digest)] = entry

    def document(self) -> bytes:
        """The bytes of ``index.json``."""
        with self._lock:
            entries = [entry.as_dict() for entry in self._entries.values()]
        document = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_INDEX,
            "manifests": entries,
        }
        return gojson.dumps(document).encode()


class DirectoryDestination:
    """A layout in a directory, created if there is none."""

    shape: Final = Shape(one_store=True, lists_digests=True)

    def __init__(self, root: Path, cancellation: Cancellation, at_once: int) -> None:
        self.at_once = at_once
        self._root = root
        self._cancellation = cancellation
        self._saving = threading.Lock()
        self._saved_at = 0.0
        with _explained(f"oci:{root}"):
            root.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(root)
            fresh = not (root / MARKER_FILE).exists() and not (root / INDEX_FILE).exists()
            if fresh:
                if any(p.name != _LOCK_FILE for p in root.iterdir()):
                    self.close()
                    raise InputError(
                        f"oci:{root}: neither empty nor an image layout",
                        hint="name another directory",
                    )
                (root / MARKER_FILE).write_bytes(MARKER)
                _replace(root / INDEX_FILE, IndexFile([]).document())
        try:
            self.index = IndexFile(list(Layout.open(f"oci:{root}").index.manifests))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let the next writer in."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def has_blob(self, target: Reference, descriptor: Descriptor) -> bool:
        """Whether a file of that name and size is there."""
        del target
        return self._has(descriptor.digest, descriptor.size)

    def has_manifest(self, target: Reference) -> bool:
        """Whether a file of that name is there."""
        assert target.digest is not None
        return self._has(target.digest, None)

    def named(self, target: Reference) -> Digest | None:
        """What the name means now."""
        return self.index.digest_of(layout_name(target))

    def put_blob(self, target: Reference, descriptor: Descriptor, source: Open) -> None:
        """Write it, going on where an earlier run stopped."""
        del target
        path = self._root / blob_name(descriptor.digest)
        part = path.with_name(f".{path.name}.part")
        with _explained(f"oci:{self._root}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            resumed = part.exists()
            try:
                self._fill(part, descriptor, source)
            except IntegrityError:
                part.unlink(missing_ok=True)
                if not resumed:
                    raise
                # What was left may have been wrong; from zero we shall know.
                self._fill(part, descriptor, source)
            part.replace(path)

    def mount(self, target: Reference, descriptor: Descriptor, other: Reference) -> bool:
        """Never: there is one store for all names."""
        del target, descriptor, other
        return False

    def open_blob(
        self, target: Reference, descriptor: Descriptor
    ) -> AbstractContextManager[Iterator[bytes]]:
        """Read a blob back."""
        del target
        return Layout.open(f"oci:{self._root}").open_blob(descriptor)

    def put_manifest(self, target: Reference, descriptor: Descriptor, raw: bytes) -> None:
        """Write it among the blobs."""
        del target
        path = self._root / blob_name(descriptor.digest)
        with _explained(f"oci:{self._root}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, raw)

    def put_name(self, target: Reference, descriptor: Descriptor, raw: bytes) -> None:
        """Add it to the index, which is on disk soon, and at the latest when we finish."""
        del raw
        self.index.put(layout_name(target), descriptor)
        with self._saving:
            if time.monotonic() - self._saved_at > _SAVE_EVERY:
                self._save()

    def list_referrers(self, target: Reference, wanted: tuple[Descriptor, ...]) -> bool:
        """Nothing to do: a layout's readers look at subjects."""
        del target, wanted
        return False

    def finish(self) -> None:
        """The index is on disk."""
        with self._saving:
            self._save()

    def _save(self) -> None:
        document = self.index.document()
        path = self._root / INDEX_FILE
        with _explained(f"oci:{self._root}"):
            if path.read_bytes() != document:
                _replace(path, document)
        self._saved_at = time.monotonic()

    def _has(self, digest: Digest, size: int | None) -> bool:
        try:
            found = (self._root / blob_name(digest)).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return False
        return size in (None, found)

    def _fill(self, part: Path, descriptor: Descriptor, source: Open) -> None:
        write_verified(part, descriptor, source, self._cancellation)


def write_verified(
    path: Path, descriptor: Descriptor, source: Open, cancellation: Cancellation
) -> None:
    """``path`` holds the blob, verified and forced to disk; what it holds already is kept.

    Raises what the source raises, ``SizeMismatch``, ``DigestMismatch`` and
    ``OSError``; after a broken transfer ``path`` holds what had arrived.
    """
    hasher = Hasher(descriptor.digest)
    what = f"blob {descriptor.digest}"
    with path.open("a+b") as file:
        file.seek(0)
        while piece := file.read(_PIECE):
            hasher.update(piece)
        if hasher.size < descriptor.size or descriptor.size == 0:
            with source(hasher.size) as chunks:
                for chunk in chunks:
                    cancellation.raise_if_cancelled()
                    if hasher.size + len(chunk) > descriptor.size:
                        raise SizeMismatch(
                            f"{what}: more than the declared {descriptor.size} bytes"
                        )
                    hasher.update(chunk)
                    file.write(chunk)
        if hasher.size != descriptor.size:
            raise SizeMismatch(
                f"{what}: got {hasher.size} bytes where {descriptor.size} were declared"
            )
        hasher.check(what)
        file.flush()
        os.fsync(file.fileno())


def _name_of(descriptor: Descriptor) -> str:
    return descriptor.annotations.get(REF_NAME, "")


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp.{threading.get_ident()}")
    temporary.write_bytes(content)
    temporary.replace(path)


def _locked(root: Path) -> int:
    descriptor = os.open(root / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as cause:
        os.close(descriptor)
        raise InputError(
            f"oci:{root}: another run is writing to it", hint="wait for it to end"
        ) from cause
    return descriptor


@contextmanager
def _explained(place: str) -> Iterator[None]:
    """Name the place in errors of the file system."""
    try:
        yield
    except OSError as cause:
        reason = (cause.strerror or str(cause)).lower()
        raise DestinationUnusable(f"{place}: cannot be written: {reason}") from cause
