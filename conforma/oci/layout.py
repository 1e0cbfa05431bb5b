"""OCI image layouts as something to read images from, in the words of a registry.

Source: OCI image-spec, image-layout.md. What tools disagree about is read
leniently: a descriptor's name may be a tag or a whole reference, and what is
attached to an image may be found by its tag, by its subject, or by both.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from conforma.errors import (
    BadManifest,
    InputError,
    NotFound,
    RegistryUnreachable,
    SizeMismatch,
    TooLarge,
)
from conforma.oci import media_types
from conforma.oci.digest import Digest, verified
from conforma.oci.layout_files import BLOBS, ArchiveFiles, DirectoryFiles, LayoutFiles
from conforma.oci.layout_names import (
    Named,
    is_digest_tag,
    named,
    repository_in,
    subject_of_tag,
)
from conforma.oci.manifest import Descriptor, Index, Manifest, parse_manifest
from conforma.oci.options import MEBIBYTE
from conforma.oci.reference import Reference

INDEX_FILE: Final = "index.json"
MARKER_FILE: Final = "oci-layout"
MARKER: Final = b'{"imageLayoutVersion":"1.0.0"}'
_LARGEST_INDEX: Final = 16 * MEBIBYTE
_LARGEST_MANIFEST: Final = 4 * MEBIBYTE
_PIECE: Final = 256 * 1024


def blob_name(digest: Digest) -> str:
    """Where a layout keeps a blob."""
    return f"{BLOBS}/{digest.algorithm}/{digest.hex}"


class Layout:
    """One layout, read only. Thread safe.

    Methods take references as a registry does; of a reference whose
    ``registry`` is the layout itself, only what follows counts. They raise
    ``NotFound`` for what is not here, an ``IntegrityError`` for what is
    damaged, and ``RegistryUnreachable`` if the disk does not answer.
    """

    def __init__(self, place: str, files: LayoutFiles) -> None:
        self.place = place
        self._files = files
        self.index = self._read_index()
        self.entries = tuple(named(descriptor) for descriptor in self.index.manifests)
        self._lock = threading.Lock()
        self._attached: Mapping[Digest, tuple[Descriptor, ...]] | None = None

    @classmethod
    def open(cls, place: str) -> Layout:
        """The layout at ``oci:DIRECTORY`` or ``oci-archive:FILE``. Raises ``InputError``."""
        scheme, _, path_text = place.partition(":")
        path = Path(path_text)
        try:
            if scheme == "oci":
                return cls(place, DirectoryFiles(path))
            return cls(place, ArchiveFiles(path))
        except OSError as cause:
            reason = (cause.strerror or str(cause)).lower()
            raise InputError(f"{place}: cannot be read: {reason}") from cause

    def has(self, digest: Digest) -> bool:
        """Whether the blob, or manifest, of that digest is here."""
        return self._files.size(blob_name(digest)) is not None

    def blobs(self) -> Iterator[str]:
        """The names of all files that are there as blobs, whether or not anything refers to them."""
        with self._explained(self.place):
            yield from self._files.blobs()

    def find(self, reference: Reference) -> Descriptor | None:
        """What the name means here; ``None`` if nothing. A digest decides over a tag."""
        if reference.digest is not None:
            size = self._files.size(blob_name(reference.digest))
            if size is None:
                return None
            raw = self._read(reference.digest, None, _LARGEST_MANIFEST)
            return Descriptor(
                media_type_of(raw, self._hint(reference.digest)), reference.digest, size
            )
        found = [entry for entry in self.entries if self._means(reference, entry)]
        digests = {entry.descriptor.digest for entry in found}
        if len(digests) > 1 and not is_digest_tag(reference.tag):
            names = ", ".join(sorted(f"{e.repository}:{e.tag}".strip(":") for e in found)[:10])
            raise InputError(
                f"{reference}: the layout holds several images: {names or len(digests)}",
                hint=f"say which: {self.place}:NAME or {self.place}@DIGEST",
            )
        return found[0].descriptor if found else None

    def head(self, reference: Reference) -> Descriptor:
        """Media type, digest and size of what ``reference`` names."""
        found = self.find(reference)
        if found is None:
            raise NotFound(f"{reference}: not in the image layout {self.place}")
        return found

    def manifest(self, reference: Reference) -> Manifest | Index:
        """The manifest or index, verified."""
        found = self.head(reference)
        raw = self._read(found.digest, found.size, _LARGEST_MANIFEST)
        try:
            return parse_manifest(raw, found.media_type)
        except BadManifest as cause:
            raise BadManifest(f"{reference}: {cause.message}", hint=cause.hint) from cause

    @contextmanager
    def open_blob(
        self, descriptor: Descriptor, *, offset: int = 0, verify: bool = True
    ) -> Iterator[Iterator[bytes]]:
        """The blob's bytes from ``offset`` on; with ``offset`` 0 verified at their end.

        Without ``verify`` the digest is left to whoever reads.
        """
        digest, what = descriptor.digest, f"{self.place}@{descriptor.digest}"
        with self._explained(what):
            file = self._files.open(blob_name(digest))
        if file is None:
            raise NotFound(f"{what}: not in the image layout")
        stored = self._files.size(blob_name(digest))
        if stored != descriptor.size and descriptor.size >= 0:
            raise SizeMismatch(f"{what}: has {stored} bytes where {descriptor.size} were declared")
        with file:
            file.seek(offset)
            pieces = self._pieces(file.read, what)
            checked = verify and offset == 0
            yield verified(pieces, digest, stored, what) if checked else pieces

    def read_blob(self, blob: Descriptor | Digest, *, limit: int) -> bytes:
        """The whole blob, verified. Raises ``TooLarge`` over ``limit`` bytes."""
        if isinstance(blob, Digest):
            return self._read(blob, None, limit)
        return self._read(blob.digest, blob.size, limit)

    def blob_size(self, digest: Digest) -> int:
        """Bytes of the blob."""
        size = self._files.size(blob_name(digest))
        if size is None:
            raise NotFound(f"{self.place}@{digest}: not in the image layout")
        return size

    def tags(self, reference: Reference) -> tuple[str, ...]:
        """The tags of the reference's repository."""
        repository = repository_in(reference)
        return tuple(e.tag for e in self.entries if e.tag and e.repository == repository)

    def referrers(self, reference: Reference) -> tuple[Descriptor, ...]:
        """What says that it is about the pinned ``reference``."""
        if reference.digest is None:
            raise ValueError(f"{reference} is not pinned")
        with self._lock:
            if self._attached is None:
                self._attached = self._find_attached()
            return self._attached.get(reference.digest, ())

    def is_attached(self, entry: Named) -> bool:
        """Whether the entry is something about another one, by its tag or its subject."""
        return is_digest_tag(entry.tag) or self._has_subject(entry.descriptor)

    def _means(self, reference: Reference, entry: Named) -> bool:
        repository = repository_in(reference)
        if repository:
            return entry.repository == repository and entry.tag == (reference.tag or "latest")
        if reference.tag is not None:
            return entry.tag == reference.tag
        # The bare place names the one image that is not attached to another.
        return not self.is_attached(entry)

    def _has_subject(self, descriptor: Descriptor) -> bool:
        try:
            return self._parsed(descriptor).subject is not None
        except (BadManifest, NotFound):
            return False

    def _hint(self, digest: Digest) -> str:
        for entry in self.entries:
            if entry.descriptor.digest == digest:
                return entry.descriptor.media_type
        return ""

    def _find_attached(self) -> dict[Digest, tuple[Descriptor, ...]]:
        found: dict[Digest, dict[Digest, Descriptor]] = {}
        for entry in self.entries:
            try:
                document = self._parsed(entry.descriptor)
            except (BadManifest, NotFound, TooLarge):
                continue  # not everything in a layout is an image
            subject = subject_of_tag(entry.tag)
            if subject is not None and isinstance(document, Index):
                for child in document.manifests:
                    found.setdefault(subject, {}).setdefault(child.digest, child)
            elif document.subject is not None:
                described = _as_referrer(entry.descriptor, document)
                found.setdefault(document.subject.digest, {})[described.digest] = described
        return {subject: tuple(listed.values()) for subject, listed in found.items()}

    def _parsed(self, descriptor: Descriptor) -> Manifest | Index:
        raw = self._read(descriptor.digest, descriptor.size, _LARGEST_MANIFEST)
        return parse_manifest(raw, media_type_of(raw, descriptor.media_type))

    def _read_index(self) -> Index:
        with self._explained(self.place):
            marker = self._files.open(MARKER_FILE)
            file = self._files.open(INDEX_FILE)
        if marker is None or file is None:
            raise InputError(
                f"{self.place}: not an OCI image layout: "
                f"{MARKER_FILE if marker is None else INDEX_FILE} is missing"
            )
        with marker, file, self._explained(self.place):
            version = marker.read(4096)
            raw = file.read(_LARGEST_INDEX)
        try:
            if json.loads(version).get("imageLayoutVersion") != "1.0.0":
                raise InputError(f"{self.place}: an image layout of an unknown version")
            return Index.parse(raw, media_types.OCI_INDEX)
        except (ValueError, AttributeError, BadManifest) as cause:
            raise InputError(f"{self.place}: not an OCI image layout: {cause}") from cause

    def _read(self, digest: Digest, size: int | None, limit: int) -> bytes:
        what = f"{self.place}@{digest}"
        found = self._files.size(blob_name(digest))
        if found is not None and found > limit:
            raise TooLarge(f"{what}: {found} bytes, over the limit of {limit}")
        with self.open_blob(Descriptor("", digest, -1 if size is None else size)) as pieces:
            return b"".join(pieces)

    def _pieces(self, read: object, what: str) -> Iterator[bytes]:
        assert callable(read)
        while True:
            with self._explained(what):
                piece = read(_PIECE)
            if not piece:
                return
            yield piece

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as cause:
            reason = (cause.strerror or str(cause)).lower()
            raise RegistryUnreachable(f"{what}: cannot be read: {reason}") from cause


def media_type_of(raw: bytes, declared: str) -> str:
    """The type of a manifest: what it says itself, or else how it is declared or built."""
    try:
        document = json.loads(raw)
    except ValueError:
        return declared
    if not isinstance(document, dict):
        return declared
    own = document.get("mediaType")
    if isinstance(own, str):
        return own
    if declared in media_types.MANIFESTS | media_types.INDEXES:
        return declared
    return media_types.OCI_INDEX if "manifests" in document else media_types.OCI_MANIFEST


def _as_referrer(descriptor: Descriptor, document: Manifest | Index) -> Descriptor:
    """How the referrers API describes a manifest (distribution-spec, "Listing Referrers")."""
    artifact_type = document.artifact_type
    if artifact_type is None and isinstance(document, Manifest):
        artifact_type = document.config.media_type
    return Descriptor(
        document.media_type,
        descriptor.digest,
        descriptor.size,
        document.annotations,
        artifact_type=artifact_type,
    )
