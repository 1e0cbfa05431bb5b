"""What a registry holds: repositories, and the blobs that they share.

In memory, or in a directory that another server can be started on later:
``blobs/<algorithm>/<hex>`` and one ``repositories/<name>.json`` for each
repository. What is put here directly is not checked, so that a test can plant
nonsense; what arrives over HTTP is checked before it gets here.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conforma.oci.digest import Digest, Hasher
from conforma.serve.bodies import Body, FileBody, MemoryBody
from conforma.serve.repository import Repository

PIECE = 1024 * 1024


class Store:
    """All repositories of one server and the blobs they share."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._repositories: dict[str, Repository] = {}
        self._held = False
        self._memory: dict[Digest, bytes] = {}
        if directory is not None:
            root = directory / "repositories"
            root.mkdir(parents=True, exist_ok=True)
            for file in sorted(root.rglob("*.json")):
                name = file.relative_to(root).with_suffix("").as_posix()
                self.repository(name).load()

    def repository(self, name: str) -> Repository:
        """The repository of this name, made if there was none."""
        with self._lock:
            if name not in self._repositories:
                file = None
                if self._directory is not None:
                    file = self._directory / "repositories" / f"{name}.json"
                self._repositories[name] = Repository(name, file, lambda: self._held)
            return self._repositories[name]

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is put meanwhile is saved once, at the end; for one thread that puts a lot."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
            for name in self.names:
                self.repository(name).save()

    def existing(self, name: str) -> Repository | None:
        """The repository of this name if there is one."""
        with self._lock:
            return self._repositories.get(name)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all repositories in lexical order."""
        with self._lock:
            return tuple(sorted(self._repositories))

    def put_blob(self, repository: str, data: bytes, *, digest: Digest | None = None) -> Digest:
        """Keep a blob and let ``repository`` serve it; ``digest`` may be a lie."""
        claimed = digest
        digest = claimed or Digest.of(data)
        if claimed or self.blob(digest) is None:
            sink = self.sink()
            sink.write(data)
            sink.keep(digest)
        self.repository(repository).link_blob(digest)
        return digest

    def blob(self, digest: Digest) -> Body | None:
        """The bytes stored under a digest, for any repository."""
        if self._directory is None:
            data = self._memory.get(digest)
            return None if data is None else MemoryBody(data)
        try:
            return FileBody(self._blob_file(digest))
        except FileNotFoundError:
            return None

    def sink(self) -> Sink:
        """A place to write a new blob to."""
        return Sink(self)

    def _blob_file(self, digest: Digest) -> Path:
        assert self._directory is not None
        return self._directory / "blobs" / digest.algorithm / digest.hex


class Sink:
    """A blob that is being received: write, then ``keep`` or ``drop``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.size = 0
        self._buffer = bytearray()
        self._path: Path | None = None
        if store._directory is not None:
            incoming = store._directory / "uploads"
            incoming.mkdir(exist_ok=True)
            self._path = incoming / secrets.token_hex(8)
            self._file = self._path.open("xb")

    def write(self, piece: bytes) -> None:
        """Append bytes."""
        self.size += len(piece)
        if self._path is None:
            self._buffer += piece
        else:
            self._file.write(piece)

    def matches(self, digest: Digest) -> bool:
        """Whether the bytes so far have this digest."""
        hasher = Hasher(digest)
        for piece in self._written():
            hasher.update(piece)
        return hasher.matches()

    def keep(self, digest: Digest) -> None:
        """Publish the bytes under ``digest``, complete or not at all."""
        if self._path is None:
            self._store._memory[digest] = bytes(self._buffer)
            return
        self._file.close()
        target = self._store._blob_file(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._path.replace(target)

    def drop(self) -> None:
        """Forget the bytes."""
        if self._path is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)

    def _written(self) -> Iterator[bytes]:
        if self._path is None:
            yield bytes(self._buffer)
            return
        self._file.flush()
        with self._path.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece
