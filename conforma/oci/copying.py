"""Having a manifest in another repository: sent first, and completed only if something is missing.

Most copies find everything in place, so the manifest goes out at once. Only a
registry that refuses it gets the children, in parallel and below their parent,
and then the manifest again. Blobs of the same registry are mounted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import Final

from conforma.errors import BadResponse, NotFound
from conforma.oci.digest import Digest
from conforma.oci.manifest import Descriptor, Index, Manifest
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry

_AT_ONCE: Final = 4
_DEEPEST: Final = 4


def ensure_copied(registry: Registry, source: Reference, target: Reference) -> Digest:
    """``target`` names what ``source`` names, with everything below it; returns its digest.

    ``target`` has a tag, or the digest of ``source``. Nothing is written if
    the tag is right already. Raises what :class:`Registry` raises; then the
    tag means what it meant before.
    """
    pinned = registry.resolve(source)
    assert pinned.digest is not None
    if target.digest is None:
        # The tag itself: that its digest exists proves nothing about it.
        try:
            if registry.head(target).digest == pinned.digest:
                return pinned.digest
        except NotFound:
            pass
    _ensure(registry, pinned, target, 0)
    return pinned.digest


def _ensure(registry: Registry, source: Reference, target: Reference, depth: int) -> None:
    document = registry.manifest(source)
    put = partial(registry.push_manifest, target, document.raw, document.media_type)
    try:
        put()
    except (NotFound, BadResponse) as refusal:
        # Registries disagree about status and code for a missing child.
        if depth >= _DEEPEST:
            raise
        _copy_children(registry, document, source, target, depth)
        try:
            put()
        except (NotFound, BadResponse) as again:
            raise again from refusal


def _copy_children(
    registry: Registry, document: Manifest | Index, source: Reference, target: Reference, depth: int
) -> None:
    jobs: list[Callable[[], None]]
    if isinstance(document, Index):
        children = {child.digest: child for child in document.manifests}
        jobs = [
            partial(_ensure, registry, source.pinned(d), target.pinned(d), depth + 1)
            for d in children
        ]
    else:
        blobs = {b.digest: b for b in (document.config, *document.layers) if not b.urls}
        jobs = [partial(_copy_blob, registry, b, source, target) for b in blobs.values()]
    with ThreadPoolExecutor(_AT_ONCE, "copying") as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()


def _copy_blob(registry: Registry, blob: Descriptor, source: Reference, target: Reference) -> None:
    if source.registry == target.registry:
        if source.repository == target.repository:
            return
        if registry.mount_blob(target, blob.digest, source.repository):
            return

    def read(offset: int) -> AbstractContextManager[Iterator[bytes]]:
        return registry.open_blob(source, blob, offset=offset)

    registry.upload_blob(target, blob, read)
