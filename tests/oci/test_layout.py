"""Image layouts and archives of them, read as if they were registries."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conforma.cancellation import Cancellation
from conforma.errors import (
    BadReference,
    DigestMismatch,
    InputError,
    NotFound,
    RegistryUnreachable,
    SizeMismatch,
)
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.layout import Layout
from conforma.oci.manifest import Descriptor, Index, Manifest, Platform
from conforma.oci.options import RegistryOptions
from conforma.oci.places import Places
from conforma.oci.reference import Reference
from conforma.serve.images import Image, Member, artifact_of, image_of, index_of, layer_of
from conforma.serve.registry import RegistryServer
from tests.oci.layouts import HandMade

needs_skopeo = pytest.mark.skipif(
    shutil.which("skopeo") is None, reason="skopeo is not installed (apt-get install skopeo)"
)


def an_image(text: str = "hello", platform: Platform | None = None) -> Image:
    layer = layer_of([Member("etc/motd", text.encode())])
    return image_of([layer], platform=platform) if platform else image_of([layer])


@pytest.fixture(params=["directory", "archive"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def made(tmp_path: Path) -> HandMade:
    return HandMade(tmp_path / "layout")


def place_of(made: HandMade, kind: str) -> str:
    return made.place if kind == "directory" else made.archived(made.root.with_suffix(".tar"))


@pytest.fixture
def places() -> Iterator[Places]:
    with Places(RegistryOptions(offline=True), Cancellation()) as found:
        yield found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("oci:dir", ("oci:dir", "", None)),
        ("oci:/a/b.c", ("oci:/a/b.c", "", None)),
        ("oci:dir:1.0", ("oci:dir", "", "1.0")),
        ("oci-archive:a.tar:1.0", ("oci-archive:a.tar", "", "1.0")),
        ("oci:dir:example.com:5000/a/b:1", ("oci:dir", "example.com:5000/a/b", "1")),
        ("oci:dir:example.com:5000/a/b", ("oci:dir", "example.com:5000/a/b", None)),
    ],
)
def test_references_into_layouts_are_read_and_printed_alike(
    text: str, expected: tuple[str, str, str | None]
) -> None:
    reference = Reference.parse(text)
    assert (reference.registry, reference.repository, reference.tag) == expected
    assert str(reference) == text
    pinned = reference.pinned(Digest.of(b"x"))
    assert Reference.parse(str(pinned)) == pinned
    assert not reference.is_loopback


@pytest.mark.parametrize(
    "text", ["oci:", "oci://a/b", "oci::a", "oci-archive::x", "oci:a@sha256:1"]
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(BadReference, match="could not parse reference"):
        Reference.parse(text)


def test_an_image_is_read_whole(made: HandMade, kind: str, places: Places) -> None:
    image = an_image()
    digest = made.put(image, "1.0")
    reference = Reference.parse(f"{place_of(made, kind)}:1.0")
    pinned = places.resolve(reference)
    assert pinned.digest == digest
    assert places.head(pinned) == Descriptor(media_types.OCI_MANIFEST, digest, len(image.manifest))
    manifest = places.manifest(pinned)
    assert isinstance(manifest, Manifest) and manifest.raw == image.manifest
    assert len(places.image_config(pinned, manifest).diff_ids) == 1
    (layer,) = manifest.layers
    with places.open_blob(pinned, layer) as chunks:
        whole = b"".join(chunks)
    assert Digest.of(whole) == layer.digest
    with places.open_blob(pinned, layer, offset=7) as chunks:
        assert b"".join(chunks) == whole[7:]
    assert places.tags(reference) == ("1.0",)


def test_names_are_tags_or_whole_references(made: HandMade, kind: str, places: Places) -> None:
    tagged = made.put(an_image("tagged"), "v1")
    named = made.put(an_image("named"), "127.0.0.1:5000/shop/web:v1")
    docker = made.put(an_image("docker"), "docker.io/library/busybox:1")
    place = place_of(made, kind)

    def digest(name: str) -> Digest:
        return places.head(Reference.parse(f"{place}:{name}")).digest

    assert digest("127.0.0.1:5000/shop/web:v1") == named
    assert digest("index.docker.io/library/busybox:1") == docker
    with pytest.raises(NotFound, match="not in the image layout"):
        digest("127.0.0.1:5000/shop/web:v2")
    with pytest.raises(InputError, match="several images") as ambiguous:
        places.head(Reference.parse(place))
    assert "v1" in ambiguous.value.message and "busybox" in ambiguous.value.message
    assert Layout.open(place).find(Reference.parse(f"{place}@{tagged}")) is not None


def test_the_bare_place_is_its_only_image_whatever_is_attached(
    made: HandMade, kind: str, places: Places
) -> None:
    digest = made.put(an_image(), "latest")
    made.put(an_image("signature"), f"{str(digest).replace(':', '-')}.sig")
    subject = Descriptor(media_types.OCI_MANIFEST, digest, 1)
    sbom = artifact_of("a/sbom", [(b"{}", "text/json", {})], subject=subject)
    made.put(sbom)
    reference = Reference.parse(place_of(made, kind))
    assert places.head(reference).digest == digest
    (found,) = places.referrers(places.resolve(reference))
    assert (found.digest, found.artifact_type) == (sbom.digest, "a/sbom")
    assert places.referrers(places.resolve(reference), "other") == ()
    assert places.head(reference.with_tag(f"sha256-{digest.hex}.sig")).digest != digest


def test_referrers_listed_under_a_tag_are_found(made: HandMade, places: Places) -> None:
    digest = made.put(an_image(), "latest")
    note = an_image("note")
    made.put(index_of([note]), f"sha256-{digest.hex}")
    pinned = places.resolve(Reference.parse(made.place))
    assert [found.digest for found in places.referrers(pinned)] == [note.digest]


def test_indexes_are_followed(made: HandMade, kind: str, places: Places) -> None:
    arm, amd = (
        an_image("arm", Platform("linux", "arm64")),
        an_image("amd", Platform("linux", "amd64")),
    )
    made.put(index_of([arm, amd]), "multi")
    reference = places.resolve(Reference.parse(place_of(made, kind)))
    index = places.manifest(reference)
    assert isinstance(index, Index)
    assert [places.manifest(reference.pinned(child.digest)).raw for child in index.manifests] == [
        arm.manifest,
        amd.manifest,
    ]


def test_damage_is_an_error_and_absence_is_not_found(made: HandMade, places: Places) -> None:
    image = an_image()
    made.put(image, "1")
    manifest = Manifest.parse(image.manifest, image.media_type)
    layer = manifest.layers[0]
    file = made.root / "blobs" / "sha256" / layer.digest.hex
    reference = Reference.parse(f"{made.place}:1")
    good = file.read_bytes()
    file.write_bytes(good[:-1])
    with pytest.raises(SizeMismatch), places.open_blob(reference, layer) as chunks:
        list(chunks)
    file.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    with pytest.raises(DigestMismatch):
        places.read_blob(reference, layer)
    file.unlink()
    with pytest.raises(NotFound, match=str(layer.digest)):
        places.read_blob(reference, layer)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"oci-layout": None}, "oci-layout is missing"),
        ({"index.json": None}, "index.json is missing"),
        ({"oci-layout": '{"imageLayoutVersion":"2.0.0"}'}, "unknown version"),
        ({"oci-layout": "[]"}, "not an OCI image layout"),
        ({"index.json": "nonsense"}, "not an OCI image layout"),
        ({"index.json": json.dumps({"schemaVersion": 2, "manifests": [{}]})}, "not an OCI image"),
    ],
)
def test_a_directory_that_is_no_layout_is_said_to_be_none(
    made: HandMade, damage: dict[str, str | None], message: str
) -> None:
    for name, content in damage.items():
        if content is None:
            (made.root / name).unlink()
        else:
            (made.root / name).write_text(content)
    with pytest.raises(InputError, match=message):
        Layout.open(made.place)


def test_a_compressed_archive_is_explained(made: HandMade) -> None:
    packed = shutil.make_archive(str(made.root), "gztar", made.root)
    with pytest.raises(InputError, match="not an uncompressed tar") as caught:
        Layout.open(f"oci-archive:{packed}")
    assert caught.value.hint == "decompress it first"
    with pytest.raises(InputError, match="no such file"):
        Layout.open("oci-archive:/nowhere.tar")


def test_mirrors_come_before_the_network_and_answer_for_what_is_attached(made: HandMade) -> None:
    with RegistryServer() as server:
        there = an_image("there")
        there.put(server.store, "shop/there", "1")
        mirrored = made.put(an_image("mirrored"), f"{server.host}/shop/web:1")
        web = Reference.parse(f"{server.host}/shop/web:1")
        with Places(RegistryOptions(), Cancellation(), [made.place]) as places:
            assert places.head(web).digest == mirrored
            with pytest.raises(NotFound):
                places.manifest(web.with_tag(f"sha256-{mirrored.hex}.sig"))
            assert places.referrers(web.pinned(mirrored)) == ()
            assert len(server.log) == 0
            assert (
                places.head(Reference.parse(f"{server.host}/shop/there:1")).digest == there.digest
            )
            with pytest.raises(NotFound, match="in no mirror"):
                places.manifest(Reference.parse("sources.conforma.invalid/policy:x"))


def test_offline_any_request_is_an_error_that_names_what_was_wanted(made: HandMade) -> None:
    digest = made.put(an_image(), "127.0.0.1:5000/shop/web:1")
    with (
        RegistryServer() as server,
        Places(RegistryOptions(offline=True), Cancellation(), [made.place]) as places,
    ):
        assert places.head(Reference.parse("127.0.0.1:5000/shop/web:1")).digest == digest
        other = Reference.parse(f"{server.host}/shop/other:2")
        for ask in (places.head, places.manifest, places.tags):
            with pytest.raises(RegistryUnreachable, match=f"{other}.*offline") as caught:
                ask(other)
            assert caught.value.exit_status == 3 and "--mirror-from" in str(caught.value.hint)
        pinned = other.pinned(Digest.of(b"other"))
        with pytest.raises(RegistryUnreachable, match="offline"):
            places.referrers(pinned)
        with pytest.raises(RegistryUnreachable, match="offline"):
            places.read_blob(pinned, Digest.of(b"blob"))
        with pytest.raises(RegistryUnreachable, match="offline"):
            places.push_blob(other, b"data")
        assert len(server.log) == 0


@needs_skopeo
@pytest.mark.parametrize("scheme", ["oci", "oci-archive"])
def test_what_skopeo_writes_is_read(tmp_path: Path, scheme: str, places: Places) -> None:
    image = an_image()
    with RegistryServer() as server:
        image.put(server.store, "app", "1")
        target = f"{scheme}:{tmp_path / 'out'}:v1"
        subprocess.run(
            ["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false",
             f"docker://{server.host}/app:1", target],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
    reference = places.resolve(Reference.parse(target))
    assert reference.digest == image.digest
    manifest = places.manifest(reference)
    assert isinstance(manifest, Manifest)
    for blob in (manifest.config, *manifest.layers):
        assert len(places.read_blob(reference, blob)) == blob.size
