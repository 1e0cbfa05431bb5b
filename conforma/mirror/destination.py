"""Where things are mirrored to, and the first kind of it: a registry.

A destination says how many blobs it takes at once. What calls it may rely on
nothing else being safe, and never writes one digest to one place twice at a
time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final, Protocol

from conforma import gojson
from conforma.errors import NotFound
from conforma.mirror.plan import Shape
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.manifest import Descriptor, Index
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry
from conforma.oci.upload import Open


class Destination(Protocol):
    """What a run writes to. Whatever only reads may be called from many threads.

    Targets of blobs and manifests are pinned references; in a destination
    with one store only their digests count.
    """

    @property
    def shape(self) -> Shape:
        """What kind of destination it is."""
        ...

    @property
    def at_once(self) -> int:
        """Calls that write and may run at the same time; 1 for what is not thread safe."""
        ...

    def has_blob(self, target: Reference, descriptor: Descriptor) -> bool:
        """Whether the blob is there, whole."""
        ...

    def has_manifest(self, target: Reference) -> bool:
        """Whether the manifest is there."""
        ...

    def named(self, target: Reference) -> Digest | None:
        """The digest of what bears the name now."""
        ...

    def put_blob(self, target: Reference, descriptor: Descriptor, source: Open) -> None:
        """The blob is there, verified."""
        ...

    def mount(self, target: Reference, descriptor: Descriptor, other: Reference) -> bool:
        """Whether the blob could be taken over from another repository of the destination."""
        ...

    def open_blob(
        self, target: Reference, descriptor: Descriptor
    ) -> AbstractContextManager[Iterator[bytes]]:
        """Read a blob back."""
        ...

    def put_manifest(self, target: Reference, descriptor: Descriptor, raw: bytes) -> None:
        """The manifest is there under its digest."""
        ...

    def put_name(self, target: Reference, descriptor: Descriptor, raw: bytes) -> None:
        """The name means that manifest from now on."""
        ...

    def list_referrers(self, target: Reference, wanted: tuple[Descriptor, ...]) -> bool:
        """Whether something had to be done so that ``wanted`` are found as referrers of ``target``."""
        ...

    def finish(self) -> None:
        """Everything that was put is complete on disk."""
        ...


class RegistryDestination:
    """A registry, or a part of it."""

    shape: Final = Shape()

    def __init__(self, registry: Registry, at_once: int) -> None:
        self._registry = registry
        self.at_once = at_once
        self._lock = threading.Lock()

    def has_blob(self, target: Reference, descriptor: Descriptor) -> bool:
        """Whether the repository has the blob."""
        return self._registry.has_blob(target, descriptor.digest)

    def has_manifest(self, target: Reference) -> bool:
        """Whether the repository has the manifest; then it has its blobs as well."""
        return self.named(target) is not None

    def named(self, target: Reference) -> Digest | None:
        """The digest of the tag, or the digest itself if it is there."""
        try:
            return self._registry.head(target).digest
        except NotFound:
            return None

    def put_blob(self, target: Reference, descriptor: Descriptor, source: Open) -> None:
        """Upload it."""
        self._registry.upload_blob(target, descriptor, source)

    def mount(self, target: Reference, descriptor: Descriptor, other: Reference) -> bool:
        """Whether the registry took it over from one of its own repositories."""
        if other.registry != target.registry:
            return False
        return self._registry.mount_blob(target, descriptor.digest, other.repository)

    def open_blob(
        self, target: Reference, descriptor: Descriptor
    ) -> AbstractContextManager[Iterator[bytes]]:
        """Read a blob back."""
        return self._registry.open_blob(target, descriptor)

    def put_manifest(self, target: Reference, descriptor: Descriptor, raw: bytes) -> None:
        """Push it under its digest."""
        self._registry.push_manifest(target, raw, descriptor.media_type)

    def put_name(self, target: Reference, descriptor: Descriptor, raw: bytes) -> None:
        """Push it under the tag."""
        self._registry.push_manifest(target, raw, descriptor.media_type)

    def list_referrers(self, target: Reference, wanted: tuple[Descriptor, ...]) -> bool:
        """Write the list of referrers for registries that do not keep one.

        Source: distribution-spec 1.1, "Pushing Manifests with Subject": without
        the API the client keeps an index under the tag ``<algorithm>-<hex>``.
        """
        assert target.digest is not None
        listed = self._registry.referrers(target)
        known = {descriptor.digest for descriptor in listed}
        if all(descriptor.digest in known for descriptor in wanted):
            return False
        place = target.with_tag(f"{target.digest.algorithm}-{target.digest.hex}")
        with self._lock:  # read, add and write, for one list at a time
            merged = {d.digest: d for d in (*self._listed(place), *listed, *wanted)}
            document = {
                "schemaVersion": 2,
                "mediaType": media_types.OCI_INDEX,
                "manifests": [descriptor.as_dict() for descriptor in merged.values()],
            }
            raw = gojson.dumps(document).encode()
            self._registry.push_manifest(place, raw, media_types.OCI_INDEX)
        return True

    def _listed(self, place: Reference) -> tuple[Descriptor, ...]:
        try:
            document = self._registry.manifest(place)
        except NotFound:
            return ()
        return document.manifests if isinstance(document, Index) else ()

    def finish(self) -> None:
        """Nothing is left to do."""
