"""What one repository of a registry holds: manifests by digest, tags, and which blobs it knows.

In memory, and in one JSON file if it has a place. What is put here directly
is not checked, so that a test can plant nonsense.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from conforma.oci.digest import Digest


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
