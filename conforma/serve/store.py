"""What a registry holds: blobs by digest for all repositories, manifests and tags for each.

In memory, or in a directory that another server can be started on later:
``blobs/<algorithm>/<hex>`` and one ``repositories/<name>.json`` for each
repository. What is put here directly is not checked, so that a test can plant
nonsense; what arrives over HTTP is checked before it gets here.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from conforma.oci.digest import Digest, Hasher
from conforma.serve.bodies import Body, FileBody, MemoryBody

PIECE = 1024 * 1024


class StoredManifest(Struct, frozen=True):
    """The bytes of a manifest or index, and the type it was pushed with."""

    media_type: str
    raw: bytes

    @property
    def document(self) -> dict[str, Any]:
        """The parsed bytes; empty if they are no JSON object."""
        try:
            parsed = json.loads(self.raw)
        except (ValueError, RecursionError):
            return {}
        return parsed if isinstance(parsed, dict) else {}

    @property
    def subject(self) -> str | None:
        """The digest of the manifest that this one says it is about."""
        subject = self.document.get("subject")
        return str(subject.get("digest")) if isinstance(subject, dict) else None


class Repository:
    """Manifests, tags and the blobs one repository knows. Every method is atomic."""

    def __init__(
        self, name: str, file: Path | None, is_held: Callable[[], bool] = lambda: False
    ) -> None:
        self.name = name
        self._file = file
        self._is_held = is_held
        self._lock = threading.Lock()
        self._manifests: dict[Digest, StoredManifest] = {}
        self._about: dict[str, set[Digest]] = {}
        """What refers to each subject; reading every manifest for every list takes too long."""
        self._tags: dict[str, Digest] = {}
        self._blobs: set[Digest] = set()

    @property
    def tags(self) -> tuple[str, ...]:
        """All tags in lexical order."""
        with self._lock:
            return tuple(sorted(self._tags))

    @property
    def manifests(self) -> dict[Digest, StoredManifest]:
        """All manifests, a copy."""
        with self._lock:
            return dict(self._manifests)

    def referrers(self, subject: Digest) -> list[tuple[Digest, StoredManifest]]:
        """The manifests about ``subject``, by digest."""
        with self._lock:
            found = self._about.get(str(subject), ())
            return [(digest, self._manifests[digest]) for digest in sorted(found)]

    def find(self, tag_or_digest: str | Digest) -> tuple[Digest, StoredManifest] | None:
        """The manifest under a tag or digest."""
        with self._lock:
            if isinstance(tag_or_digest, Digest):
                digest: Digest | None = tag_or_digest
            elif ":" in tag_or_digest:
                digest = Digest.parse(tag_or_digest)
            else:
                digest = self._tags.get(tag_or_digest)
            if digest is None or digest not in self._manifests:
                return None
            return digest, self._manifests[digest]

    def put_manifest(
        self, raw: bytes, media_type: str, *, tag: str | None = None, digest: Digest | None = None
    ) -> Digest:
        """Keep a manifest, under ``tag`` as well if given; ``digest`` may be a lie."""
        digest = digest or Digest.of(raw)
        with self._lock:
            self._keep(digest, StoredManifest(media_type, raw))
            if tag is not None:
                self._tags[tag] = digest
            self._save()
        return digest

    def delete_manifest(self, tag_or_digest: str) -> bool:
        """Remove a tag, or a manifest with all its tags; False if there was none."""
        with self._lock:
            if ":" not in tag_or_digest:
                found = self._tags.pop(tag_or_digest, None) is not None
            else:
                digest = Digest.parse(tag_or_digest)
                found = self._drop(digest)
                self._tags = {t: d for t, d in self._tags.items() if d != digest}
            self._save()
        return found

    def has_blob(self, digest: Digest) -> bool:
        """Whether this repository knows the blob."""
        with self._lock:
            return digest in self._blobs

    def link_blob(self, digest: Digest) -> None:
        """Let this repository serve a blob of the store."""
        with self._lock:
            if digest not in self._blobs:
                self._blobs.add(digest)
                self._save()

    def unlink_blob(self, digest: Digest) -> bool:
        """Stop serving a blob; False if it was unknown."""
        with self._lock:
            known = digest in self._blobs
            self._blobs.discard(digest)
            self._save()
        return known

    def load(self) -> None:
        """Read back what an earlier server saved."""
        assert self._file is not None
        saved = json.loads(self._file.read_text(encoding="utf-8"))
        self._tags = {tag: Digest.parse(text) for tag, text in saved["tags"].items()}
        self._blobs = {Digest.parse(text) for text in saved["blobs"]}
        for text, entry in saved["manifests"].items():
            stored = StoredManifest(entry["mediaType"], entry["raw"].encode("latin-1"))
            self._keep(Digest.parse(text), stored)

    def _keep(self, digest: Digest, stored: StoredManifest) -> None:
        self._drop(digest)
        self._manifests[digest] = stored
        if stored.subject is not None:
            self._about.setdefault(stored.subject, set()).add(digest)

    def _drop(self, digest: Digest) -> bool:
        stored = self._manifests.pop(digest, None)
        if stored is not None and stored.subject is not None:
            self._about[stored.subject].discard(digest)
        return stored is not None

    def save(self) -> None:
        """Everything is on disk, if there is a place for it."""
        with self._lock:
            self._save()

    def _save(self) -> None:
        if self._file is None or self._is_held():
            return
        document = {
            "manifests": {
                str(digest): {"mediaType": m.media_type, "raw": m.raw.decode("latin-1")}
                for digest, m in self._manifests.items()
            },
            "tags": {tag: str(digest) for tag, digest in sorted(self._tags.items())},
            "blobs": sorted(map(str, self._blobs)),
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text(json.dumps(document), encoding="utf-8")
        temporary.replace(self._file)


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
