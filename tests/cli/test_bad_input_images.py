"""Manifests, configurations and layers that are not what they should be.

Every one of these images is signed and attested: nothing but its content keeps it from passing.
"""

from __future__ import annotations

import gzip

import pytest

from conforma.oci import media_types
from conforma.oci.digest import DiffID, Digest
from conforma.oci.manifest import Descriptor
from conforma.serve.faults import Fault
from conforma.serve.images import (
    Image,
    Layer,
    Member,
    hardlink,
    image_of,
    layer_of,
    manifest_of,
    symlink,
    tar_of,
)
from tests.cli.bad_release import BadRelease, assert_undecided, assert_violated

pytestmark = pytest.mark.slow

TAR = tar_of([Member("etc/motd", b"hello" * 1000)])
GZIP = gzip.compress(TAR, mtime=0)
LAYER = Layer(GZIP, Digest.of(GZIP), DiffID.of(TAR))
IMAGE = image_of([LAYER])
MANIFEST = IMAGE.manifest
OTHER = Digest.of(b"other")


def with_blob(blob: bytes, diff_id: DiffID = LAYER.diff_id) -> Image:
    """An image whose only layer is ``blob``."""
    return image_of([Layer(blob, Digest.of(blob), diff_id)])


def with_config(config: bytes, *layers: Layer) -> Image:
    """An image with these bytes as its configuration."""
    about = Descriptor(media_types.OCI_CONFIG, Digest.of(config), len(config))
    manifest = manifest_of(about, [layer.descriptor for layer in layers])
    return Image(manifest, (config, *(layer.blob for layer in layers)))


MANIFESTS: dict[str, tuple[bytes, str]] = {
    "html": (b"<html>Log in</html>", "manifest: not JSON (starts with '<html>Log in</html>')"),
    "empty": (b"", "manifest: not JSON (empty)"),
    "list": (b"[1, 2]", "manifest: expected a JSON object, found list"),
    "no-config": (b'{"schemaVersion":2}', "manifest: config is missing"),
    "deep": (b'{"schemaVersion":2,"config":' + b"[" * 100_000, "manifest: not JSON"),
    "negative": (MANIFEST.replace(b'"size":', b'"size":-'), "is not a size in bytes"),
    "huge-size": (MANIFEST.replace(b'"size":', b'"size":9' + b"9" * 18), "is not a size in bytes"),
    "path-as-digest": (MANIFEST.replace(b"sha256:", b"sha256:../", 1), "is not a digest"),
    "md5": (MANIFEST.replace(b"sha256:", b"md5:", 1), "is not a digest: unsupported algorithm"),
    "5-mb": (MANIFEST[:-1] + b" " * 5_000_000 + b"}", "larger than the limit of 4194304 bytes"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_manifest_that_is_none(release: BadRelease, case: str) -> None:
    manifest, reason = MANIFESTS[case]
    release.add_raw(manifest, media_types.OCI_MANIFEST)
    assert_undecided(release.run(), f"{release.repository}:1.0", reason)


def test_a_manifest_of_the_first_kind_is_told_how_to_become_a_new_one(release: BadRelease) -> None:
    release.add_raw(b'{"schemaVersion":1,"fsLayers":[]}', next(iter(media_types.SCHEMA1)))
    done = release.run()
    assert_undecided(done, "unsupported media type application/vnd.docker")
    assert "hint: this is a Docker schema 1 manifest; push the image again" in done.err


def test_a_manifest_under_the_digest_of_another(release: BadRelease) -> None:
    release.add_raw(MANIFEST, media_types.OCI_MANIFEST, digest=OTHER)
    actual = Digest.of(MANIFEST)
    assert_undecided(release.run(), f"digest mismatch: promised {OTHER}, served {actual}")


CONTENT: dict[str, tuple[Image, str]] = {
    "not-gzip": (with_blob(b"this is no gzip" * 9), "+gzip but it is not gzip"),
    "cut-gzip": (with_blob(GZIP[:-20]), "gzip stream ends early"),
    "checksum": (with_blob(GZIP[:-8] + b"\0\0\0\0" + GZIP[-4:]), "broken gzip stream"),
    "diff-id": (
        with_blob(GZIP, DiffID.of(b"other")),
        f"the image configuration says it unpacks to {DiffID.of(b'other')}, it unpacks to",
    ),
    "bomb": (
        with_blob(gzip.compress(bytes(1 << 20), mtime=0) * 300),
        "expands to more than 300 times its size",
    ),
    "not-tar": (image_of([layer_of(b"this is no tar" * 99)]), "not a tar archive"),
    "cut-tar": (image_of([layer_of(TAR[:3000])]), "ends in the middle of a member"),
    "dot-dot": (
        image_of([layer_of([Member("../../etc/passwd", b"x")])]),
        "has a member outside the image: '../../etc/passwd'",
    ),
    "link-out": (
        image_of([layer_of([hardlink("etc/passwd", "../../etc/passwd")])]),
        "has a member outside the image: 'etc/passwd'",
    ),
    "config": (with_config(b"none", LAYER), "image config: not JSON (starts with 'none')"),
    "diff-ids": (with_config(b'{"rootfs":{"diff_ids":7}}', LAYER), "diff_ids is not a list"),
    "layers": (with_config(IMAGE.blobs[0], LAYER, LAYER), "lists 1 layers, the manifest 2"),
}


@pytest.mark.parametrize("case", CONTENT)
def test_content_that_cannot_be_read(release: BadRelease, case: str) -> None:
    image, reason = CONTENT[case]
    release.add(image)
    assert_undecided(release.run(), reason)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(truncate_at=50), ["connection broke: the connection ended", "bytes early"]),
        (Fault(extra=b"more"), [f"has {len(GZIP) + 4} bytes where {len(GZIP)} were declared"]),
        (Fault(content_length=9), [f"has 9 bytes where {len(GZIP)} were declared"]),
        (Fault(flip_at=50), [f"digest mismatch: expected {LAYER.digest}, got sha256:"]),
        (Fault(status=404), ["the registry has the manifest but not all that it lists"]),
    ],
    ids=["truncated", "longer", "shorter", "changed", "missing"],
)
def test_a_layer_that_does_not_arrive_whole(
    release: BadRelease, fault: Fault, words: list[str]
) -> None:
    release.add(IMAGE)
    release.shop.server.faults.add(fault, path=f"/bad/blobs/{LAYER.digest}", times=None)
    done = release.run()
    assert_undecided(done, str(LAYER.digest), *words)
    for area in ("blobs", "layers"):
        kept = (release.shop.directory / "cache" / "v1" / area).rglob("*")
        assert not [file for file in kept if file.name in (LAYER.digest.hex, LAYER.diff_id.hex)]


def test_a_configuration_that_the_registry_lost(release: BadRelease) -> None:
    release.add(IMAGE)
    config = Digest.of(IMAGE.blobs[0])
    release.shop.server.store.repository(release.repository).unlink_blob(config)
    done = release.run()
    assert_undecided(done, "the registry has the manifest but not all that it lists", str(config))
    assert "hint: push the image again, or restore the registry's storage" in done.err


@pytest.mark.parametrize(
    ("layer", "forbidden"),
    [
        (layer_of([Member("/etc/forbidden", b"x")]), True),
        (layer_of([symlink("etc/up", "/../../../etc/passwd")]), False),
        (layer_of([symlink("a", "b"), symlink("b", "a")]), False),
        (
            layer_of(
                [
                    Member("dev/null", kind="character"),
                    Member("dev/sda", kind="block"),
                    Member("run/pipe", kind="fifo"),
                ]
            ),
            False,
        ),
        (layer_of([Member("a\nb\x1b[31m\u202e", b"x")]), False),
    ],
    ids=["absolute", "link-out", "link-loop", "devices", "names"],
)
def test_odd_members_are_seen_where_they_would_be_unpacked(
    release: BadRelease, layer: Layer, forbidden: bool
) -> None:
    release.add(image_of([layer]))
    done = release.run()
    if forbidden:
        assert_violated(done, "main.forbidden", "Contains what it must not")
    else:
        assert (done.status, done.err) == (0, "")
