"""Images are made as described, and the same way every time."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

import pytest

from conforma.oci.digest import DiffID, Digest
from conforma.oci.manifest import ImageConfig, Index, Manifest, Platform
from conforma.serve.images import (
    Image,
    Member,
    artifact_of,
    directory,
    hardlink,
    image_of,
    index_of,
    layer_of,
    opaque,
    random_member,
    symlink,
    tar_of,
    whiteout,
)
from conforma.serve.store import Store

MEMBERS = [
    directory("etc"),
    Member("etc/passwd", b"root", mode=0o4640, uid=1, gid=2, mtime=3),
    symlink("passwd", "etc/passwd"),
    hardlink("copy", "etc/passwd"),
    Member("dev/null", kind="character"),
    Member("dev/sda", kind="block"),
    Member("run/pipe", kind="fifo"),
    Member("a" * 300, b"long"),
    Member("../../escape", b"evil"),
]


def test_members_arrive_as_they_were_given() -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_of(MEMBERS))) as archive:
        found = archive.getmembers()
    assert [m.name for m in found] == [m.path for m in MEMBERS]
    passwd = found[1]
    assert (passwd.mode, passwd.uid, passwd.gid, passwd.mtime, passwd.size) == (0o4640, 1, 2, 3, 4)
    assert found[2].issym() and found[3].islnk() and found[4].ischr()
    assert found[5].isblk() and found[6].isfifo()


def test_whiteouts_have_their_names() -> None:
    assert whiteout("etc/shadow").path == "etc/.wh.shadow"
    assert whiteout("shadow").path == ".wh.shadow"
    assert opaque("etc").path == "etc/.wh..wh..opq"


def test_the_same_members_give_the_same_bytes() -> None:
    assert layer_of(MEMBERS) == layer_of(MEMBERS)
    few = [directory("etc"), Member("etc/passwd", b"root", mode=0o4640), symlink("p", "etc/passwd")]
    known = "sha256:c6767f87855b2671953809f7a056f0b1067f5f1d301904a343ec2306562636b2"
    assert str(layer_of(few).diff_id) == known
    assert random_member("x", 1000, "seed") == random_member("x", 1000, "seed")
    assert random_member("x", 1000, "seed") != random_member("x", 1000, "other")


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_a_layer_knows_what_it_hashes_to(compression: str) -> None:
    layer = layer_of(MEMBERS, compression=compression)  # type: ignore[arg-type]
    tar = gzip.decompress(layer.blob) if compression == "gzip" else layer.blob
    assert tar == tar_of(MEMBERS)
    assert layer.diff_id == DiffID.of(tar)
    assert layer.digest == Digest.of(layer.blob)
    assert layer.descriptor.size == len(layer.blob)
    assert layer.media_type.endswith("+gzip") == (compression == "gzip")


def test_an_image_names_its_layers_and_configuration() -> None:
    layers = [layer_of([Member("a")]), layer_of([Member("b")], compression="none")]
    image = image_of(
        layers,
        config={"User": "1001"},
        labels={"name": "app"},
        annotations={"x": "y"},
        platform=Platform("linux", "arm64", "v8"),
    )
    manifest = Manifest.parse(image.manifest, image.media_type)
    assert manifest.layers == tuple(layer.descriptor for layer in layers)
    assert manifest.annotations == {"x": "y"}
    config = ImageConfig.parse(image.blobs[0])
    assert config.config == {"User": "1001", "Labels": {"name": "app"}}
    assert config.diff_ids == tuple(layer.diff_id for layer in layers)
    assert config.document["variant"] == "v8"
    assert manifest.config.digest == Digest.of(image.blobs[0])


def test_docker_images_have_dockers_types() -> None:
    image = image_of([layer_of([Member("a")], docker=True)], docker=True)
    manifest = Manifest.parse(image.manifest, image.media_type)
    types = {manifest.media_type, manifest.config.media_type, manifest.layers[0].media_type}
    assert all(kind.startswith("application/vnd.docker.") for kind in types)


def test_an_index_names_images_by_platform() -> None:
    platforms = [Platform("linux", "amd64"), Platform("linux", "arm64")]
    images = [image_of([layer_of([Member(p.architecture)])], platform=p) for p in platforms]
    made = index_of(images, annotations={"a": "b"})
    index = Index.parse(made.raw, made.media_type)
    assert [child.platform for child in index.manifests] == platforms
    assert [child.digest for child in index.manifests] == [image.digest for image in images]


def test_putting_an_index_makes_everything_servable() -> None:
    store = Store()
    image = image_of([layer_of([Member("a")])])
    digest = index_of([image]).put(store, "app", "1")
    repository = store.repository("app")
    found = repository.find("1")
    assert found is not None and found[0] == digest
    assert repository.find(image.digest) is not None
    assert all(repository.has_blob(Digest.of(blob)) for blob in image.blobs)


def test_an_artifact_refers_to_its_subject() -> None:
    subject = image_of([]).descriptor
    made: Image = artifact_of("a/x", [(b"data", "b/y", {"n": "1"})], subject=subject)
    document = json.loads(made.manifest)
    assert document["artifactType"] == "a/x"
    assert document["subject"]["digest"] == str(subject.digest)
    assert document["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    assert document["layers"][0]["annotations"] == {"n": "1"}
