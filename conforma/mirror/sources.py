"""Policy and data sources among the things to be mirrored."""

from __future__ import annotations

from collections.abc import Sequence

from conforma.errors import ConformaError, Interrupted
from conforma.mirror.inventory import Node, Root
from conforma.oci.digest import Digest
from conforma.oci.manifest import Manifest
from conforma.oci.media_types import OCI_MANIFEST
from conforma.oci.reference import Reference
from conforma.policy.artifact import reference_of
from conforma.policy.mirrored import pack, place_of
from conforma.policy.source import Sources
from conforma.policy.source_url import kind_of, without_secrets


def images_among(urls: Sequence[str]) -> list[tuple[str, Reference]]:
    """The sources that are artifacts in registries already, each with its label."""
    return [(without_secrets(url), reference_of(url)) for url in urls if kind_of(url) == "oci"]


def packed(urls: Sequence[str], sources: Sources) -> tuple[Root, ...]:
    """The sources that git and https deliver, fetched and made into artifacts.

    Files and directories of this machine stay what they are.
    """
    return tuple(_packed(url, sources) for url in urls if kind_of(url) in ("git", "http"))


def _packed(url: str, sources: Sources) -> Root:
    place, label = place_of(url), without_secrets(url)
    try:
        fetched = sources.fetch(url)
    except Interrupted:
        raise
    except ConformaError as error:
        return Root(label, place, error=error)
    raw, blobs = pack(url, fetched.revision, fetched.path)
    node = Node(
        place.pinned(Digest.of(raw)),
        Manifest.parse(raw, OCI_MANIFEST),
        content={Digest.of(blob): blob for blob in blobs},
    )
    return Root(label, place, node)
