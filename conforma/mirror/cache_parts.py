"""What belongs to an image, found out from nothing but bytes at hand.

A cache and a layout know blobs by digest alone. Which of them make an image
is written in those of them that are manifests.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from msgspec import Struct

from conforma.cancellation import Cancellation
from conforma.errors import BadManifest
from conforma.oci import media_types
from conforma.oci.digest import DiffID, Digest
from conforma.oci.layout import media_type_of
from conforma.oci.manifest import Descriptor, ImageConfig, Index, Manifest, parse_manifest
from conforma.oci.options import MEBIBYTE
from conforma.validate.pool import in_parallel

T = TypeVar("T")

LARGEST_MANIFEST: Final = 4 * MEBIBYTE
_IMAGE_CONFIGS: Final = (media_types.OCI_CONFIG, media_types.DOCKER_CONFIG)

Read = Callable[[Digest], bytes | None]
"""The bytes of a small blob, verified; ``None`` if it is not here, or is not small."""

Watch = Callable[[int, int, int], None]
"""Told after each blob: how many are done, of how many, and bytes moved so far."""


class Part(Struct, frozen=True):
    """A blob that an image needs. ``diff_id`` is only known of layers whose configuration is."""

    descriptor: Descriptor
    what: str
    diff_id: DiffID | None = None


def described(digest: Digest, read: Read) -> Descriptor | None:
    """The manifest or index of that digest; ``None`` for anything else, or if it is not here."""
    raw = read(digest)
    document = None if raw is None else _parsed(raw)
    return None if document is None else Descriptor(document.media_type, digest, len(document.raw))


def parts_of(digest: Digest, read: Read) -> Iterator[Part]:
    """The manifest of that digest and all below it, deepest last, each once for each mention.

    What cannot be read, or is no manifest, is listed and not looked into.
    """
    document = None
    raw = read(digest)
    if raw is not None:
        document = _parsed(raw)
    media_type = media_types.OCTETS if document is None else document.media_type
    size = -1 if raw is None else len(raw)
    yield Part(Descriptor(media_type, digest, size), "manifest")
    if isinstance(document, Index):
        for child in document.manifests:
            yield from parts_of(child.digest, read)
    elif document is not None:
        yield Part(document.config, "configuration")
        diff_ids = _diff_ids(document, read)
        for layer, diff_id in zip(document.layers, diff_ids, strict=True):
            yield Part(layer, "layer", diff_id)


def until_one_fails(
    items: Sequence[T], work: Callable[[T], None], workers: int, cancellation: Cancellation
) -> None:
    """Do the work on all items, a few at a time; raise the first failure and begin no more."""
    failed = threading.Event()

    def guarded(item: T) -> None:
        if not failed.is_set():
            try:
                work(item)
            except Exception:
                failed.set()
                raise

    for answer in in_parallel(items, guarded, workers=workers, cancellation=cancellation):
        if isinstance(answer, Exception):
            raise answer


def _parsed(raw: bytes) -> Manifest | Index | None:
    if raw.lstrip()[:1] != b"{":
        return None
    try:
        return parse_manifest(raw, media_type_of(raw, ""))
    except BadManifest:
        return None


def _diff_ids(manifest: Manifest, read: Read) -> tuple[DiffID | None, ...]:
    unknown: tuple[DiffID | None, ...] = (None,) * len(manifest.layers)
    if manifest.config.media_type not in _IMAGE_CONFIGS:
        return unknown
    raw = read(manifest.config.digest)
    try:
        listed = () if raw is None else ImageConfig.parse(raw).diff_ids
    except BadManifest:
        return unknown
    return listed if len(listed) == len(manifest.layers) else unknown
