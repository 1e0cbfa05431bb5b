"""What the entries of an image layout are called, and what their names mean.

Tools disagree: an entry's name is a tag, or a whole reference; what is
attached to an image may be under a tag that spells the image's digest.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from msgspec import Struct

from conforma.errors import BadReference, InputError
from conforma.oci.digest import Digest
from conforma.oci.manifest import Descriptor
from conforma.oci.reference import Reference

REF_NAME: Final = "org.opencontainers.image.ref.name"
_FULL_NAME: Final = "io.containerd.image.name"


class Named(Struct, frozen=True):
    """One descriptor of ``index.json``; ``repository`` and ``tag`` are empty where it has none."""

    repository: str
    tag: str
    descriptor: Descriptor


@lru_cache(maxsize=1024)
def is_attachment_of(tag: str | None) -> Digest | None:
    """The digest of the image that a tag such as ``sha256-<hex>.sig`` is about."""
    return subject_of_tag((tag or "").partition(".")[0])


def subject_of_tag(tag: str) -> Digest | None:
    """The digest that a tag such as ``sha256-<hex>`` spells: that of a list of referrers."""
    try:
        return Digest.parse(tag.replace("-", ":", 1))
    except InputError:
        return None


def is_digest_tag(tag: str | None) -> bool:
    """Whether the tag is about an image, not of one."""
    return is_attachment_of(tag) is not None


def repository_in(reference: Reference) -> str:
    """``registry/repository`` as entries spell it; empty for what a layout knows by tag alone."""
    if not reference.is_layout:
        return reference.repository_name
    return _canonical(reference.repository, "")[0] if reference.repository else ""


def named(descriptor: Descriptor) -> Named:
    """The entry that a descriptor of ``index.json`` is."""
    name = descriptor.annotations.get(REF_NAME) or descriptor.annotations.get(_FULL_NAME) or ""
    repository, tag = _canonical(name, name) if "/" in name else ("", name)
    return Named(repository, tag, descriptor)


def _canonical(name: str, otherwise: str) -> tuple[str, str]:
    """Repository and tag of a whole reference; text that is none is taken for a tag."""
    try:
        reference = Reference.parse(name)
    except BadReference:
        return "", otherwise
    return reference.repository_name, reference.tag or ""
