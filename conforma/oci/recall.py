"""What earlier runs have read: content by digest for good, and what tags meant then.

Nothing here is believed: content is hashed when it is read, and what a tag
meant is only ever offered to the registry, which says whether it still holds.
Whether a repository still offers some content is for the caller to find out.
"""

from __future__ import annotations

import json
import threading
from typing import Final

from msgspec import Struct

from conforma.errors import BadDigest
from conforma.oci.digest import Digest
from conforma.oci.options import MEBIBYTE, ContentStore, RegistryOptions
from conforma.oci.reference import Reference

# Larger blobs are layers, and those have a cache of their own.
_LARGEST: Final = 8 * MEBIBYTE
_LONGEST_TAG: Final = 200


class Meaning(Struct, frozen=True):
    """What a tag named: the registry's entity tag for it (RFC 9110, 8.8.3), and the manifest."""

    entity_tag: str
    digest: Digest
    media_type: str
    raw: bytes


class Recall:
    """The content store of a run, opened when it is first needed. Thread safe."""

    def __init__(self, options: RegistryOptions) -> None:
        self._open = options.content
        self._lock = threading.Lock()
        self._store: ContentStore | None = None
        self._opened = False

    def content(self, digest: Digest, size: int | None = None) -> bytes | None:
        """The bytes with this digest, if we have them; content that is not right is dropped."""
        store = self._content()
        if store is None or (size is not None and size > _LARGEST):
            return None
        data = store.get(digest)
        if data is None:
            return None
        if Digest.of(data, digest.algorithm) != digest:
            store.distrust(digest)
            return None
        return data if size is None or len(data) == size else None

    def keep(self, digest: Digest, data: bytes) -> None:
        """Remember verified bytes beyond this run."""
        store = self._content()
        if store is not None and len(data) <= _LARGEST:
            store.put(digest, data)

    def meaning(self, reference: Reference) -> Meaning | None:
        """What the tag meant when it was last read, if its manifest is still here."""
        store = self._content()
        text = store.recall(_name(reference)) if store is not None else None
        if text is None:
            return None
        try:
            entity_tag, digest_text, media_type = json.loads(text)
            digest = Digest.parse(digest_text)
        except (ValueError, TypeError, AttributeError, BadDigest):
            return None
        raw = self.content(digest)
        if raw is None or not isinstance(media_type, str) or not _is_usable(entity_tag):
            return None
        return Meaning(entity_tag, digest, media_type, raw)

    def note(self, reference: Reference, entity_tag: str, digest: Digest, media_type: str) -> None:
        """Remember what the tag means today, if the registry gave it an entity tag."""
        store = self._content()
        if store is not None and _is_usable(entity_tag):
            store.note(_name(reference), json.dumps([entity_tag, str(digest), media_type]))

    def _content(self) -> ContentStore | None:
        if not self._opened:
            with self._lock:
                if not self._opened:
                    self._store = self._open()
                    self._opened = True
        return self._store


def _name(reference: Reference) -> str:
    return f"tag {reference}"


def _is_usable(entity_tag: object) -> bool:
    return (
        isinstance(entity_tag, str)
        and 0 < len(entity_tag) <= _LONGEST_TAG
        and entity_tag.isascii()
        and entity_tag.isprintable()
    )
