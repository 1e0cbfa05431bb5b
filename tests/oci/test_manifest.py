from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conforma.errors import BadManifest
from conforma.oci import media_types
from conforma.oci.digest import DiffID, Digest
from conforma.oci.manifest import (
    MOST_CHILDREN,
    Descriptor,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    parse_manifest,
)

D = {"mediaType": "x/y", "digest": str(Digest.of(b"d")), "size": 1}


def manifest(**changes: Any) -> bytes:
    document = {"schemaVersion": 2, "config": D, "layers": [D], **changes}
    return json.dumps({k: v for k, v in document.items() if v is not ...}).encode()


def index(**changes: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": [D], **changes}).encode()


def test_a_manifest_keeps_its_bytes_and_names_its_parts() -> None:
    raw = manifest(annotations={"a": "b"}, subject=D, artifactType="application/x")
    parsed = parse_manifest(raw, media_types.OCI_MANIFEST)
    assert isinstance(parsed, Manifest)
    assert parsed.raw == raw
    assert parsed.config == Descriptor.parse(D)
    assert parsed.layers == (Descriptor.parse(D),)
    assert parsed.annotations == {"a": "b"}
    assert parsed.subject == Descriptor.parse(D)
    assert parsed.kind == "application/x"
    assert parsed.document["schemaVersion"] == 2


def test_an_index_chooses_by_platform() -> None:
    other = {**D, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}}
    parsed = parse_manifest(index(manifests=[other, D]), media_types.DOCKER_INDEX)
    assert isinstance(parsed, Index)
    arm = parsed.for_platform(architecture="arm64")
    assert arm is not None
    assert str(arm.platform) == "linux/arm64/v8"
    assert parsed.for_platform() == Descriptor.parse(D)  # without a platform: linux/amd64
    assert parsed.for_platform(os="windows") is None


@pytest.mark.parametrize(
    ("raw", "media_type", "reason"),
    [
        (b"", media_types.OCI_MANIFEST, "not JSON (empty)"),
        (b"<html>\x00", media_types.OCI_MANIFEST, "not JSON (starts with '<html>"),
        (b'"' + b"\xff" + b'"', media_types.OCI_MANIFEST, "not JSON"),
        (b"[" * 100_000, media_types.OCI_MANIFEST, "not JSON"),
        (b"[]", media_types.OCI_MANIFEST, "expected a JSON object, found list"),
        (manifest(), "text/html", "unsupported media type 'text/html'"),
        (manifest(), media_types.DOCKER_SCHEMA1_SIGNED, "unsupported media type"),
        (manifest(mediaType=media_types.OCI_INDEX), media_types.OCI_MANIFEST, "calls itself"),
        (manifest(manifests=[]), media_types.OCI_MANIFEST, "belongs to the other kind"),
        (index(layers=[]), media_types.OCI_INDEX, "belongs to the other kind"),
        (manifest(schemaVersion=1), media_types.OCI_MANIFEST, "schemaVersion is 1"),
        (manifest(config=...), media_types.OCI_MANIFEST, "config is missing"),
        (manifest(config="x"), media_types.OCI_MANIFEST, "expected a JSON object, found str"),
        (manifest(layers={}), media_types.OCI_MANIFEST, "layers: expected a list"),
        (manifest(layers=[{**D, "size": -1}]), media_types.OCI_MANIFEST, "-1 is not a size"),
        (manifest(layers=[{**D, "size": 2**63}]), media_types.OCI_MANIFEST, "is not a size"),
        (manifest(layers=[{**D, "size": True}]), media_types.OCI_MANIFEST, "True is not a size"),
        (manifest(layers=[{**D, "size": "1"}]), media_types.OCI_MANIFEST, "'1' is not a size"),
        (manifest(layers=[{**D, "size": 1.5}]), media_types.OCI_MANIFEST, "1.5 is not a size"),
        (manifest(layers=[{**D, "digest": "md5:aa"}]), media_types.OCI_MANIFEST, "not a digest"),
        (manifest(layers=[{**D, "digest": 5}]), media_types.OCI_MANIFEST, "digest: expected a str"),
        (manifest(layers=[{**D, "data": "*"}]), media_types.OCI_MANIFEST, "data is not base64"),
        (manifest(annotations={"a": 1}), media_types.OCI_MANIFEST, "annotations: expected"),
        (manifest(subject=[]), media_types.OCI_MANIFEST, "expected a JSON object"),
        (index(manifests=[D] * (MOST_CHILDREN + 1)), media_types.OCI_INDEX, "10001 manifests"),
        # What readers in Go would take for the layers, and others would not see.
        (
            manifest(layers=..., Layers=[D]),
            media_types.OCI_MANIFEST,
            "'Layers' is 'layers' to some",
        ),
        (
            manifest()[:-1] + b',"layer\\u017f":[]}',
            media_types.OCI_MANIFEST,
            "is 'layers' to some readers only",
        ),
        (index(Manifests=[D]), media_types.OCI_INDEX, "'Manifests' is 'manifests' to some"),
        (manifest(layers=[{**D, "Digest": "x"}]), media_types.OCI_MANIFEST, "'Digest' is 'digest'"),
        (
            manifest()[:-1] + b',"layers":[]}',
            media_types.OCI_MANIFEST,
            "the member 'layers' stands twice in one object",
        ),
    ],
)
def test_malformed_documents_are_refused_with_the_reason(
    raw: bytes, media_type: str, reason: str
) -> None:
    with pytest.raises(BadManifest) as caught:
        parse_manifest(raw, media_type)
    assert reason in caught.value.message


def test_an_image_config_lists_the_digests_of_its_plain_layers() -> None:
    document = {
        "config": {"User": "1"},
        "rootfs": {"type": "layers", "diff_ids": [str(DiffID.of(b"x"))]},
    }
    parsed = ImageConfig.parse(json.dumps(document).encode())
    assert parsed.diff_ids == (DiffID.of(b"x"),)
    assert parsed.config == {"User": "1"}
    assert ImageConfig.parse(b"{}").diff_ids == ()
    for bad in (b"[]", b'{"rootfs":{"diff_ids":["sha256:x"]}}', b'{"rootfs":{"diff_ids":[1]}}'):
        with pytest.raises(BadManifest, match="image config"):
            ImageConfig.parse(bad)


@pytest.mark.parametrize(
    "raw",
    [b'{"Config":{"User":"0"}}', b'{"Rootfs":{}}', b'{"rootfs":{"Diff_IDs":[]}}'],
    ids=["config", "rootfs", "diff_ids"],
)
def test_an_image_config_is_not_read_in_part(raw: bytes) -> None:
    with pytest.raises(BadManifest, match="to some readers only"):
        ImageConfig.parse(raw)


platforms = st.builds(
    Platform,
    os=st.text(max_size=5),
    architecture=st.text(max_size=5),
    variant=st.text(max_size=5),
    os_version=st.text(max_size=5),
    os_features=st.lists(st.text(max_size=5), max_size=3).map(tuple),
)


@given(
    st.builds(
        Descriptor,
        media_type=st.text(max_size=20),
        digest=st.binary(max_size=3).map(Digest.of),
        size=st.integers(0, 2**63 - 1),
        annotations=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
        platform=st.none() | platforms,
        artifact_type=st.none() | st.text(min_size=1, max_size=5),
        data=st.none() | st.binary(max_size=10),
        urls=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    )
)
def test_a_descriptor_survives_its_json_form(descriptor: Descriptor) -> None:
    assert Descriptor.parse(json.loads(json.dumps(descriptor.as_dict()))) == descriptor
