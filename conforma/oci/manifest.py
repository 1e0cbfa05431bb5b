"""Manifests, indexes and image configurations as values, from bytes alone.

Nothing here touches a socket; whatever ``parse`` returns is well formed, and
unknown members of the documents stay available through ``raw``.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from msgspec import Struct

from conforma.errors import BadDigest, BadManifest
from conforma.oci import media_types
from conforma.oci.digest import DiffID, Digest

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
# An index beyond this is no release any more, and each child costs requests.
MOST_CHILDREN: Final = 10_000


def _spelt(names: str) -> Mapping[str, str]:
    # As it should be, too: folding a name costs more than looking it up.
    return {key: name for name in names.split() for key in (name, name.casefold())}


_MANIFEST: Final = _spelt(
    "schemaVersion mediaType artifactType config layers manifests subject annotations"
)
_DESCRIPTOR: Final = _spelt("mediaType digest size urls annotations data artifactType platform")
_PLATFORM: Final = _spelt("architecture os os.version os.features variant")
_CONFIG: Final = _spelt("config rootfs")
_ROOTFS: Final = _spelt("type diff_ids")


class Platform(Struct, frozen=True):
    """What a manifest of an index runs on (OCI image-spec, image-index.md)."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def parse(cls, document: object) -> Platform:
        """Read a ``platform`` object. Raises ``BadManifest``."""
        members = _object(document, "platform", _PLATFORM)
        features = members.get("os.features", [])
        if not isinstance(features, list) or not all(isinstance(f, str) for f in features):
            raise BadManifest("platform: os.features is not a list of strings")
        return cls(
            _string(members, "os"),
            _string(members, "architecture"),
            _string(members, "variant"),
            _string(members, "os.version"),
            tuple(features),
        )

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, without empty members."""
        document: dict[str, Any] = {"architecture": self.architecture, "os": self.os}
        if self.os_version:
            document["os.version"] = self.os_version
        if self.os_features:
            document["os.features"] = list(self.os_features)
        if self.variant:
            document["variant"] = self.variant
        return document

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(Struct, frozen=True):
    """A promise about bytes not yet read: type, digest and size in bytes."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = _NOTHING
    platform: Platform | None = None
    artifact_type: str | None = None
    data: bytes | None = None
    urls: tuple[str, ...] = ()

    def __hash__(self) -> int:
        return hash((self.media_type, self.digest, self.size))  # a mapping has no hash

    @classmethod
    def parse(cls, document: object) -> Descriptor:
        """Read a descriptor (OCI image-spec, descriptor.md). Raises ``BadManifest``."""
        members = _object(document, "descriptor", _DESCRIPTOR)
        size = members.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63:
            raise BadManifest(f"descriptor: {size!r} is not a size in bytes")
        try:
            digest = Digest.parse(_string(members, "digest"))
        except BadDigest as cause:
            raise BadManifest(f"descriptor: {cause}") from cause
        urls = members.get("urls") or []
        if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls):
            raise BadManifest("descriptor: urls is not a list of strings")
        platform = members.get("platform")
        return cls(
            _string(members, "mediaType"),
            digest,
            size,
            _annotations(members),
            None if platform is None else Platform.parse(platform),
            _string(members, "artifactType") or None,
            _inline_data(members),
            tuple(urls),
        )

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, without empty members."""
        document: dict[str, Any] = {
            "mediaType": self.media_type,
            "size": self.size,
            "digest": str(self.digest),
        }
        if self.data is not None:
            document["data"] = base64.b64encode(self.data).decode()
        if self.urls:
            document["urls"] = list(self.urls)
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.platform is not None:
            document["platform"] = self.platform.as_dict()
        if self.artifact_type is not None:
            document["artifactType"] = self.artifact_type
        return document


class Manifest(Struct, frozen=True):
    """One image or artifact: a configuration and layers."""

    raw: bytes
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = _NOTHING
    subject: Descriptor | None = None
    artifact_type: str | None = None

    def __hash__(self) -> int:
        return hash(self.raw)

    @classmethod
    def parse(cls, raw: bytes, media_type: str) -> Manifest:
        """Read an image manifest. Raises ``BadManifest``."""
        members = _document(raw, media_type, "manifest")
        if "config" not in members:
            raise BadManifest("manifest: config is missing")
        return cls(
            raw,
            media_type,
            Descriptor.parse(members["config"]),
            _descriptors(members, "layers"),
            _annotations(members),
            _subject(members),
            _string(members, "artifactType") or None,
        )

    @property
    def document(self) -> dict[str, Any]:
        """The manifest as parsed JSON; a fresh copy."""
        return _document(self.raw, self.media_type, "manifest")

    @property
    def kind(self) -> str:
        """What an artifact says it is: its artifact type, else the configuration's media type."""
        return self.artifact_type or self.config.media_type


class Index(Struct, frozen=True):
    """A choice of manifests, usually one for each platform."""

    raw: bytes
    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = _NOTHING
    subject: Descriptor | None = None
    artifact_type: str | None = None

    def __hash__(self) -> int:
        return hash(self.raw)

    @classmethod
    def parse(cls, raw: bytes, media_type: str) -> Index:
        """Read an image index or Docker manifest list. Raises ``BadManifest``."""
        members = _document(raw, media_type, "index")
        manifests = _descriptors(members, "manifests")
        if len(manifests) > MOST_CHILDREN:
            raise BadManifest(
                f"index: {len(manifests)} manifests, over the limit of {MOST_CHILDREN}"
            )
        return cls(
            raw,
            media_type,
            manifests,
            _annotations(members),
            _subject(members),
            _string(members, "artifactType") or None,
        )

    @property
    def document(self) -> dict[str, Any]:
        """The index as parsed JSON; a fresh copy."""
        return _document(self.raw, self.media_type, "index")

    def for_platform(self, os: str = "linux", architecture: str = "amd64") -> Descriptor | None:
        """The first manifest for a platform; one that names none counts as linux/amd64."""
        for child in self.manifests:
            platform = child.platform or Platform("linux", "amd64")
            if (platform.os, platform.architecture) == (os, architecture):
                return child
        return None


class ImageConfig(Struct, frozen=True):
    """The configuration of an image (OCI image-spec, config.md)."""

    raw: bytes
    document: Mapping[str, Any]
    diff_ids: tuple[DiffID, ...] = ()

    def __hash__(self) -> int:
        return hash(self.raw)

    @classmethod
    def parse(cls, raw: bytes) -> ImageConfig:
        """Read an image configuration. Raises ``BadManifest``."""
        members = _object(_json(raw, "image config"), "image config", _CONFIG)
        rootfs = members.get("rootfs")
        rootfs = _object(rootfs, "rootfs", _ROOTFS) if isinstance(rootfs, dict) else {}
        listed = rootfs.get("diff_ids")
        listed = [] if listed is None else listed
        if not isinstance(listed, list) or not all(isinstance(i, str) for i in listed):
            raise BadManifest("image config: rootfs.diff_ids is not a list of strings")
        try:
            diff_ids = tuple(DiffID.parse(text) for text in listed)
        except BadDigest as cause:
            raise BadManifest(f"image config: {cause}") from cause
        return cls(raw, members, diff_ids)

    @property
    def config(self) -> Mapping[str, Any]:
        """The ``config`` member: environment, labels, user; empty if there is none."""
        config = self.document.get("config")
        return config if isinstance(config, dict) else {}


def parse_manifest(raw: bytes, media_type: str) -> Manifest | Index:
    """Read a manifest or an index, whichever ``media_type`` says.

    Raises ``BadManifest`` for other media types, for a document that names
    another media type than ``media_type``, and for one that is malformed.
    """
    if media_type in media_types.MANIFESTS:
        return Manifest.parse(raw, media_type)
    if media_type in media_types.INDEXES:
        return Index.parse(raw, media_type)
    if media_type in media_types.SCHEMA1:
        raise BadManifest(
            f"unsupported media type {media_type}",
            hint="this is a Docker schema 1 manifest; push the image again with a current tool",
        )
    raise BadManifest(f"unsupported media type {media_type[:200]!r}")


def _document(raw: bytes, media_type: str, what: str) -> dict[str, Any]:
    members = _object(_json(raw, what), what, _MANIFEST)
    declared = members.get("mediaType")
    # Serving an index under a manifest's type (or the reverse) makes two
    # readers see two images: CVE-2021-41190.
    if declared is not None and declared != media_type:
        raise BadManifest(
            f"{what}: served as {media_type} but calls itself {str(declared)[:200]!r}"
        )
    other = "manifests" if what == "manifest" else "layers"
    if other in members:
        raise BadManifest(f"{what}: has {other!r}, which belongs to the other kind of document")
    version = members.get("schemaVersion")
    if version != 2:
        raise BadManifest(f"{what}: schemaVersion is {version!r}, expected 2")
    return members


def _json(raw: bytes, what: str) -> object:
    try:
        return _decoded(raw.decode())
    except (ValueError, RecursionError) as cause:
        start = raw[:40].decode("ascii", "backslashreplace")
        reason = "empty" if not raw else f"starts with {start!r}"
        raise BadManifest(f"{what}: not JSON ({reason})") from cause


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise BadManifest(f"the member {twice[:100]!r} stands twice in one object")
    return members


_decoded: Final = json.JSONDecoder(object_pairs_hook=_unique).decode


def _object(document: object, what: str, known: Mapping[str, str]) -> dict[str, Any]:
    """The object, if its members mean the same to every reader.

    Runtimes and registries written in Go take ``Layers`` for ``layers``; what
    only they see would never be judged.
    """
    if not isinstance(document, dict):
        raise BadManifest(f"{what}: expected a JSON object, found {type(document).__name__}")
    for name in document:
        meant = known.get(name) or known.get(name.casefold(), name)
        if meant != name:
            raise BadManifest(f"{what}: {name[:100]!r} is {meant!r} to some readers only")
    return document


def _string(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadManifest(f"{name}: expected a string, found {type(value).__name__}")
    return value


def _annotations(members: Mapping[str, Any]) -> Mapping[str, str]:
    found = members.get("annotations")
    if not found:
        return _NOTHING
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise BadManifest("annotations: expected an object of strings")
    return MappingProxyType(found)


def _descriptors(members: Mapping[str, Any], name: str) -> tuple[Descriptor, ...]:
    listed = members.get(name)
    if listed is None:
        return ()
    if not isinstance(listed, list):
        raise BadManifest(f"{name}: expected a list, found {type(listed).__name__}")
    return tuple(Descriptor.parse(item) for item in listed)


def _subject(members: Mapping[str, Any]) -> Descriptor | None:
    subject = members.get("subject")
    return None if subject is None else Descriptor.parse(subject)


def _inline_data(members: Mapping[str, Any]) -> bytes | None:
    data = members.get("data")
    if data is None:
        return None
    try:
        return base64.b64decode(data, validate=True)
    except (TypeError, binascii.Error) as cause:
        raise BadManifest("descriptor: data is not base64") from cause
