"""ImageReader: what policies ask about images, answered through the layer cache.

An image's files are answered from its layers' tables of contents; bytes are
read only where somebody wants bytes. A tag should be resolved before, so that
all answers are about one image.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

from msgspec import Struct

from conforma.cache.direct import DirectLayers
from conforma.cache.filters import InDirectories, TreeFilter
from conforma.cache.layers import UNKNOWN, Fetch, SafeLayer
from conforma.cache.overlay import Overlay, Place
from conforma.cache.safe_cache import SafeCache
from conforma.cache.stacks import KEPT, Overlays, Stack, all_contents
from conforma.cancellation import Cancellation
from conforma.errors import (
    BadManifest,
    BadReference,
    BadResponse,
    NotFound,
    TooLarge,
    UnsafeArchive,
)
from conforma.oci.digest import DiffID, Digest
from conforma.oci.layer import walk
from conforma.oci.manifest import Descriptor, ImageConfig, Index, Manifest
from conforma.oci.media_types import DOCKER_CONFIG, OCI_CONFIG, OCTETS
from conforma.oci.memory import Memory
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry
from conforma.oci.tar_entry import Kind

_log = logging.getLogger(__name__)

_LARGEST_CONFIG: Final = 8 << 20
_REMEMBERED: Final = 1 << 20
_PARSED: Final = 10
"""Room that a parsed document takes, in lengths of its text, about."""
_ENTRY: Final = 200
"""Bytes that a remembered entry takes besides its content, about."""
_IMAGE_CONFIGS: Final = (OCI_CONFIG, DOCKER_CONFIG)


class TreeEntry(Struct, frozen=True):
    """One entry of an unpacked image.

    ``layer`` is the digest of the layer it comes from; ``link_target`` is what
    a symlink says, or the path a hard link shares its content with.
    """

    path: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    link_target: str
    layer: str


class ImageReader:
    """Reads images of a registry through a cache, or through none."""

    def __init__(
        self,
        registry: Registry,
        cache: SafeCache | DirectLayers,
        *,
        largest_file: int = 64 << 20,
        largest_blob: int = 256 << 20,
        largest_member: int = 500 << 20,
    ) -> None:
        self._registry = registry
        self._cache = cache
        self._largest_file = largest_file
        self._largest_blob = largest_blob
        self._largest_member = largest_member
        self._overlays = Overlays()
        self._stacks: Memory[Stack] = Memory(KEPT)
        self._configs: Memory[ImageConfig] = Memory(_REMEMBERED)

    def image(self, reference: Reference) -> tuple[Manifest, ImageConfig]:
        """The manifest and configuration of an image; of an index, its linux/amd64 child.

        Raises ``NotFound`` when there is no such manifest or child,
        ``BadManifest`` for either of the two, ``BadResponse`` when the
        registry lacks a blob that the manifest lists, and what the registry
        raises. The configuration of what is no image may be anything.
        """
        reference, manifest = self.manifest(reference)
        return manifest, self._config(reference, manifest)

    def manifest(self, reference: Reference) -> tuple[Reference, Manifest]:
        """The manifest of an image and its name; of an index, those of its linux/amd64 child.

        Raises ``NotFound`` when there is no such manifest or child, ``BadManifest``,
        and ``BadResponse`` when the registry lacks a child that the index lists.
        """
        manifest = self._registry.manifest(reference)
        if isinstance(manifest, Manifest):
            return reference, manifest
        child = manifest.for_platform()
        if child is None:
            raise NotFound(f"{reference}: no child with platform linux/amd64 in index")
        with _complete(reference):
            inner = self._registry.manifest(reference.pinned(child.digest))
        if isinstance(inner, Index):
            raise BadManifest(f"{reference}: the child for linux/amd64 is an index itself")
        return reference.pinned(child.digest), inner

    def children(self, reference: Reference) -> tuple[Reference, ...]:
        """What an index lists, in order; nothing for an image. Raises as the registry does."""
        manifest = self._registry.manifest(reference)
        if isinstance(manifest, Manifest):
            return ()
        return tuple(reference.pinned(child.digest) for child in manifest.manifests)

    def layers(self, reference: Reference) -> tuple[SafeLayer, ...]:
        """The image's layers, lowest first; nothing of them is fetched yet."""
        reference, manifest = self.manifest(reference)
        return self._layers(reference, manifest)

    def files(
        self,
        reference: Reference,
        wanted: InDirectories,
        cancellation: Cancellation | None = None,
    ) -> dict[str, bytes]:
        """The contents of the wanted files of the unpacked image, by path.

        Symlinks and hard links give what they lead to inside the image; those
        that lead nowhere, and what is no file, are left out. Raises
        ``UnsafeArchive`` for a layer with members outside the root,
        ``TooLarge`` for a file over the limit, ``BadResponse`` for a layer the
        registry does not have, and what :meth:`layers` and reading a layer raise.
        """
        if not wanted.directories:
            return {}
        stack = self._stack(reference, cancellation)
        question = (wanted, self._largest_file)
        known: dict[str, bytes] | None = stack.overlay.answers.get(question)
        if known is None:
            with _complete(reference):
                known = self._contents_of(stack, wanted)
            size = sum(len(path) + len(content) + _ENTRY for path, content in known.items())
            stack.overlay.answers.put(question, known, _ENTRY + size)
        return dict(known)

    def tree(
        self,
        reference: Reference,
        wanted: TreeFilter,
        cancellation: Cancellation | None = None,
    ) -> Iterator[TreeEntry]:
        """The entries of the unpacked image that ``wanted`` admits, in order of their paths.

        No file is read. Directories that no layer mentions are not listed.
        Raises what :meth:`files` raises, before the first entry.
        """
        stack = self._stack(reference, cancellation)
        overlay = stack.overlay
        places: list[Place] | None = overlay.answers.get(wanted)
        if places is None:
            with _complete(reference):
                places = sorted(overlay.select(wanted), key=overlay.path)
            overlay.answers.put(wanted, places, _ENTRY * (1 + len(places)))
        return self._entries(stack, places, wanted)

    def prefetch(self, reference: Reference, cancellation: Cancellation | None = None) -> int:
        """All layers of the image are here and listed; returns how many. Raises as :meth:`files`."""
        return len(self._stack(reference, cancellation).layers)

    def blob_bytes(self, reference: Reference) -> bytes:
        """The blob that a reference with a digest names, as the registry stores it.

        Raises ``BadReference`` without a digest, ``NotFound`` also for the
        digest of a manifest, ``TooLarge`` over the limit.
        """
        blob = self._blob(reference)
        with blob.compressed() as source:
            content = source.read()
        # Manifests are kept beside blobs; whether this run was the first must not decide.
        if _may_be_manifest(content) and not self._offers(reference, blob.digest):
            raise NotFound(f"{reference}: the repository has no such blob")
        return content

    def blob_files(self, reference: Reference, paths: Collection[str]) -> dict[str, bytes]:
        """Members of a tar blob, plain or compressed, by their exact names; the last one wins.

        A member over the limit is left out, with a line in the log. Raises
        ``BadArchive`` when the blob is no tar.
        """
        wanted = frozenset(paths)
        if not wanted:
            return {}
        members = {}
        blob = self._blob(reference)
        with blob.uncompressed() as source:
            for entry in walk(source, f"blob {blob.digest}"):
                if entry.path in wanted and entry.kind == "file" and entry.fragments is None:
                    members[entry.path] = entry
            found: dict[str, bytes] = {}
            for path, entry in sorted(members.items()):
                if entry.size > self._largest_member:
                    _log.error(
                        "%s: %s is too large: %d bytes, limit %d",
                        reference, path, entry.size, self._largest_member,
                    )  # fmt: skip
                    continue
                source.seek(entry.offset)
                found[path] = source.read(entry.size)
            return found

    def _config(self, reference: Reference, manifest: Manifest) -> ImageConfig:
        descriptor = manifest.config
        if descriptor.size > _LARGEST_CONFIG:
            raise TooLarge(
                f"{reference}: configuration of {descriptor.size} bytes, "
                f"over the limit of {_LARGEST_CONFIG}"
            )
        key = (reference, descriptor.digest, descriptor.size, descriptor.media_type)
        known = self._configs.get(key)
        if known is None:
            layer = self._layer(reference, descriptor, None)
            with _complete(reference), layer.compressed() as source:
                raw = source.read()
            known = _parsed_config(reference, descriptor, raw)
            self._configs.put(key, known, _PARSED * len(raw))
        return known

    def _layers(self, reference: Reference, manifest: Manifest) -> tuple[SafeLayer, ...]:
        diff_ids: tuple[DiffID | None, ...] = (None,) * len(manifest.layers)
        if manifest.config.media_type in _IMAGE_CONFIGS:
            listed = self._config(reference, manifest).diff_ids
            if listed and len(listed) != len(manifest.layers):
                raise BadManifest(
                    f"{reference}: the configuration lists {len(listed)} layers, "
                    f"the manifest {len(manifest.layers)}"
                )
            diff_ids = listed or diff_ids
        return tuple(
            self._layer(reference, descriptor, diff_id)
            for descriptor, diff_id in zip(manifest.layers, diff_ids, strict=True)
        )

    def _layer(
        self, reference: Reference, descriptor: Descriptor, diff_id: DiffID | None
    ) -> SafeLayer:
        return self._cache.layer(
            descriptor,
            diff_id,
            self._fetch(reference, descriptor),
            origin=reference.repository_name,
            image=str(reference),
            offers=lambda: self._offers(reference, descriptor.digest),
        )

    def _offers(self, reference: Reference, digest: Digest) -> bool:
        """Whether the repository has the blob, as its registry says now."""
        try:
            self._registry.blob_size(reference, digest)
        except NotFound:
            return False
        return True

    def _fetch(self, reference: Reference, descriptor: Descriptor) -> Fetch:
        def fetch(offset: int) -> AbstractContextManager[Iterator[bytes]]:
            # The layers hash what they store; once is enough.
            return self._registry.open_blob(reference, descriptor, offset=offset, verify=False)

        return fetch

    def _blob(self, reference: Reference) -> SafeLayer:
        digest = reference.digest
        if digest is None:
            raise BadReference(f"{reference}: a blob is named by its digest")

        def fetch(offset: int) -> AbstractContextManager[Iterator[bytes]]:
            data = self._registry.read_blob(reference, digest, limit=self._largest_blob)
            return nullcontext(iter((data[offset:],)))

        descriptor = Descriptor(OCTETS, digest, UNKNOWN)
        return self._cache.layer(
            descriptor,
            None,
            fetch,
            origin=reference.repository_name,
            offers=lambda: self._offers(reference, digest),
        )

    def _stack(self, reference: Reference, cancellation: Cancellation | None) -> Stack:
        known = self._stacks.get(reference)
        if known is not None and all(layer.reads_again() for layer in known.layers):
            return known
        layers = self.layers(reference)
        with _complete(reference):
            contents, at_hand = all_contents(layers, lambda layer: layer.contents(cancellation))
        for layer, content in zip(layers, contents, strict=True):
            if content.toc.unsafe:
                raise UnsafeArchive(
                    f"{reference}: layer {layer.digest} has a member outside the image: "
                    f"{content.toc.unsafe[:200]!r}",
                    hint="no honest build tool writes such a name; do not use this image",
                )
        stack = Stack(layers, contents, self._overlays.of(contents))
        if at_hand and reference.digest is not None:
            self._stacks.put(reference, stack, 1)
        return stack

    def _contents_of(self, stack: Stack, wanted: InDirectories) -> dict[str, bytes]:
        overlay = stack.overlay
        found: dict[str, bytes] = {}
        for place in overlay.select(wanted):
            path = overlay.path(place)
            content = self._content_of(overlay, place, path)
            if content is not None:
                row = overlay.tocs[content.layer].row(content.index)
                found[path] = stack.contents[content.layer].read(row, path, self._largest_file)
        return dict(sorted(found.items()))

    def _content_of(self, overlay: Overlay, place: Place, path: str) -> Place | None:
        target: Place | None = place
        if overlay.tocs[place.layer].kind(place.index) == "symlink":
            target = overlay.resolve(path)
        return None if target is None else overlay.content(target)

    def _entries(
        self, stack: Stack, places: Iterable[Place], wanted: TreeFilter
    ) -> Iterator[TreeEntry]:
        for place in places:
            row = stack.overlay.row(place)
            if wanted.admits(row.kind, row.mode):
                yield TreeEntry(
                    stack.overlay.path(place), row.kind, row.mode, row.uid, row.gid,
                    row.size, row.link, str(stack.layers[place.layer].digest),
                )  # fmt: skip


def _parsed_config(reference: Reference, descriptor: Descriptor, raw: bytes) -> ImageConfig:
    try:
        return ImageConfig.parse(raw)
    except BadManifest as cause:
        if descriptor.media_type in _IMAGE_CONFIGS:
            raise BadManifest(f"{reference}: {cause.message}", hint=cause.hint) from cause
        return ImageConfig(raw, {})


@contextmanager
def _complete(reference: Reference) -> Iterator[None]:
    """Make what a manifest lists but the registry lacks what it is: a broken registry.

    "It is not there" would be a fact about the image, and rules that look for
    something forbidden would not find it.
    """
    try:
        yield
    except NotFound as cause:
        raise BadResponse(
            f"{reference}: the registry has the manifest but not all that it lists: {cause.message}",
            hint="push the image again, or restore the registry's storage",
        ) from cause


def _may_be_manifest(content: bytes) -> bool:
    return content.lstrip().startswith(b"{") and b'"schemaVersion"' in content
