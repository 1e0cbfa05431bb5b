"""Makes images: layers from lists of members, configurations, manifests, indexes.

The same members give the same archive everywhere, and with the same zlib the
same layer, so images made apart share layers. Nothing here is checked for
sense: a member may be called ``../../etc/passwd``.
"""

from __future__ import annotations

import gzip
import io
import random
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from msgspec import Struct

from conforma import gojson
from conforma.oci import media_types
from conforma.oci.digest import DiffID, Digest
from conforma.oci.manifest import Descriptor, Platform
from conforma.serve.store import Store

CREATED = "2026-01-01T00:00:00Z"
LINUX = Platform("linux", "amd64")
EMPTY = b"{}"

Kind = Literal["file", "directory", "symlink", "hardlink", "character", "block", "fifo"]
_TYPES: dict[Kind, bytes] = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "character": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
}


class Member(Struct, frozen=True):
    """One entry of a layer, in the order of the archive."""

    path: str
    data: bytes = b""
    mode: int = 0o644
    kind: Kind = "file"
    target: str = ""
    uid: int = 0
    gid: int = 0
    mtime: int = 0


def directory(path: str, mode: int = 0o755) -> Member:
    """A directory entry."""
    return Member(path, mode=mode, kind="directory")


def symlink(path: str, target: str) -> Member:
    """A symbolic link."""
    return Member(path, mode=0o777, kind="symlink", target=target)


def hardlink(path: str, target: str) -> Member:
    """A hard link to an earlier member."""
    return Member(path, kind="hardlink", target=target)


def whiteout(path: str) -> Member:
    """Removes ``path`` of the layers below (OCI image-spec, layer.md)."""
    parent, slash, name = path.rpartition("/")
    return Member(f"{parent}{slash}.wh.{name}")


def opaque(path: str) -> Member:
    """Hides what the layers below have in the directory ``path``."""
    return Member(f"{path}/.wh..wh..opq")


@dataclass(frozen=True, slots=True)
class Layer:
    """The bytes of a layer as a registry stores them, and what they hash to unpacked."""

    blob: bytes = field(repr=False)
    digest: Digest
    diff_id: DiffID
    media_type: str = media_types.OCI_LAYER_GZIP
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def descriptor(self) -> Descriptor:
        """What a manifest says about this layer."""
        return Descriptor(self.media_type, self.digest, len(self.blob), self.annotations)


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest with the blobs it names; artifacts have the same shape."""

    manifest: bytes
    blobs: tuple[bytes, ...] = field(repr=False)
    media_type: str = media_types.OCI_MANIFEST
    platform: Platform | None = None

    @property
    def digest(self) -> Digest:
        """The digest of the manifest."""
        return Digest.of(self.manifest)

    @property
    def descriptor(self) -> Descriptor:
        """What an index says about this image."""
        return Descriptor(self.media_type, self.digest, len(self.manifest), platform=self.platform)

    def put(self, store: Store, repository: str, tag: str | None = None) -> Digest:
        """Store blobs and manifest in a repository, under ``tag`` as well if given."""
        for blob in self.blobs:
            store.put_blob(repository, blob)
        return store.repository(repository).put_manifest(self.manifest, self.media_type, tag=tag)


class ImageIndex(Struct, frozen=True):
    """An index with the images it names."""

    raw: bytes
    images: tuple[Image, ...]
    media_type: str = media_types.OCI_INDEX

    @property
    def digest(self) -> Digest:
        """The digest of the index."""
        return Digest.of(self.raw)

    def put(self, store: Store, repository: str, tag: str | None = None) -> Digest:
        """Store all images and the index, the latter under ``tag`` as well if given."""
        for image in self.images:
            image.put(store, repository)
        return store.repository(repository).put_manifest(self.raw, self.media_type, tag=tag)


def tar_of(members: Iterable[Member]) -> bytes:
    """An uncompressed archive of these members, in their order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            info = tarfile.TarInfo(member.path)
            info.type = _TYPES[member.kind]
            info.mode, info.uid, info.gid = member.mode, member.uid, member.gid
            info.mtime, info.linkname = member.mtime, member.target
            info.size = len(member.data) if member.kind == "file" else 0
            archive.addfile(info, io.BytesIO(member.data))
    return out.getvalue()


def layer_of(
    members: Iterable[Member] | bytes,
    *,
    compression: Literal["gzip", "zstd", "none"] = "gzip",
    level: int = 6,
    docker: bool = False,
) -> Layer:
    """A layer of these members, or of an archive made elsewhere.

    ``zstd`` needs the extra of that name.
    """
    tar = members if isinstance(members, bytes) else tar_of(members)
    diff_id = DiffID.of(tar)
    if compression == "none":
        return Layer(tar, Digest.of(tar), diff_id, media_types.OCI_LAYER)
    if compression == "zstd":
        import zstandard

        packed = zstandard.ZstdCompressor(level=level).compress(tar)
        return Layer(packed, Digest.of(packed), diff_id, media_types.OCI_LAYER_ZSTD)
    kind = media_types.DOCKER_LAYER_GZIP if docker else media_types.OCI_LAYER_GZIP
    packed = gzip.compress(tar, level, mtime=0)
    return Layer(packed, Digest.of(packed), diff_id, kind)


def random_member(path: str, size: int, seed: object) -> Member:
    """A file of ``size`` incompressible bytes that depend only on ``seed``."""
    return Member(path, random.Random(str(seed)).randbytes(size))  # noqa: S311 - test content


def image_of(
    layers: Sequence[Layer],
    *,
    config: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    platform: Platform = LINUX,
    created: str = CREATED,
    docker: bool = False,
) -> Image:
    """An image of these layers.

    ``config`` is the ``config`` member of the image configuration
    (``{"User": …}``); ``labels`` are put into it.
    """
    inner: dict[str, Any] = dict(config or {})
    if labels is not None:
        inner["Labels"] = {**inner.get("Labels", {}), **labels}
    document = {
        "created": created,
        "architecture": platform.architecture,
        "os": platform.os,
        **({"variant": platform.variant} if platform.variant else {}),
        "config": inner,
        "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]},
        "history": [{"created": created, "created_by": "conforma"} for _ in layers],
    }
    raw_config = gojson.encode(document)
    kind = media_types.DOCKER_CONFIG if docker else media_types.OCI_CONFIG
    media_type = media_types.DOCKER_MANIFEST if docker else media_types.OCI_MANIFEST
    manifest = manifest_of(
        Descriptor(kind, Digest.of(raw_config), len(raw_config)),
        [layer.descriptor for layer in layers],
        media_type=media_type,
        annotations=annotations,
    )
    blobs = (raw_config, *(layer.blob for layer in layers))
    return Image(manifest, blobs, media_type, platform)


def artifact_of(
    artifact_type: str,
    layers: Sequence[tuple[bytes, str, Mapping[str, str]]],
    *,
    subject: Descriptor | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Image:
    """An OCI 1.1 artifact: an empty configuration and layers of bytes, type and annotations."""
    config = Descriptor(media_types.OCI_EMPTY, Digest.of(EMPTY), len(EMPTY))
    descriptors = [
        Descriptor(kind, Digest.of(blob), len(blob), notes) for blob, kind, notes in layers
    ]
    manifest = manifest_of(
        config,
        descriptors,
        annotations=annotations,
        subject=subject,
        artifact_type=artifact_type,
    )
    return Image(manifest, (EMPTY, *(blob for blob, _, _ in layers)))


def index_of(
    images: Sequence[Image],
    *,
    annotations: Mapping[str, str] | None = None,
    docker: bool = False,
) -> ImageIndex:
    """An index of images, each listed with its platform."""
    media_type = media_types.DOCKER_INDEX if docker else media_types.OCI_INDEX
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [image.descriptor.as_dict() for image in images],
    }
    if annotations:
        document["annotations"] = dict(annotations)
    return ImageIndex(gojson.encode(document), tuple(images), media_type)


def manifest_of(
    config: Descriptor,
    layers: Sequence[Descriptor],
    *,
    media_type: str = media_types.OCI_MANIFEST,
    annotations: Mapping[str, str] | None = None,
    subject: Descriptor | None = None,
    artifact_type: str | None = None,
) -> bytes:
    """The bytes of a manifest."""
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_type}
    if artifact_type is not None:
        document["artifactType"] = artifact_type
    document["config"] = config.as_dict()
    document["layers"] = [layer.as_dict() for layer in layers]
    if subject is not None:
        document["subject"] = subject.as_dict()
    if annotations:
        document["annotations"] = dict(annotations)
    return gojson.encode(document)
