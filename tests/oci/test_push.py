from __future__ import annotations

import json

import pytest

from conforma.errors import BadResponse, DigestMismatch, RegistryError
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry
from conforma.serve.faults import Fault
from conforma.serve.registry import RegistryServer
from tests.oci.scenery import ClientFactory, Serving, put_image


@pytest.fixture
def reference(server: RegistryServer) -> Reference:
    return Reference.parse(f"{server.host}/pushed/app:v1")


def test_what_was_pushed_is_there(
    server: RegistryServer, registry: Registry, reference: Reference
) -> None:
    config = registry.push_blob(reference, b"{}")
    raw = json.dumps({"schemaVersion": 2, "config": config.as_dict(), "layers": []}).encode()
    digest = registry.push_manifest(reference, raw, media_types.OCI_MANIFEST)
    assert digest == Digest.of(raw)
    assert registry.manifest(reference).raw == raw
    assert registry.read_blob(reference, config) == b"{}"
    by_digest = registry.push_manifest(reference.pinned(digest), raw, media_types.OCI_MANIFEST)
    assert by_digest == digest


def test_a_tag_that_was_pushed_is_looked_up_again(
    server: RegistryServer, registry: Registry
) -> None:
    reference = put_image(server)
    before = registry.resolve(reference)
    raw = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    registry.push_manifest(reference, raw, media_types.OCI_INDEX)
    assert registry.resolve(reference) != before


def test_rc_12_only_large_blobs_are_asked_about_first(
    server: RegistryServer, registry: Registry, reference: Reference
) -> None:
    for _ in range(2):
        registry.push_blob(reference, b"small")
    assert server.log.settled().counts("HEAD").total() == 0
    assert server.log.counts("PUT").total() == 2
    server.log.clear()
    for _ in range(2):
        registry.push_blob(reference, bytes(100_000))
    assert server.log.settled().counts("HEAD").total() == 2
    assert server.log.counts("PUT").total() == 1


def test_a_manifest_is_not_pushed_under_another_digest(
    server: RegistryServer, registry: Registry, reference: Reference
) -> None:
    with pytest.raises(DigestMismatch, match="the manifest to push has"):
        registry.push_manifest(
            reference.pinned(Digest.of(b"other")), b"{}", media_types.OCI_MANIFEST
        )
    assert len(server.log) == 0


def test_a_registry_that_stored_something_else_is_found_out(
    server: RegistryServer, registry: Registry, reference: Reference
) -> None:
    lie = Fault(201, {"Docker-Content-Digest": str(Digest.of(b"other"))})
    server.faults.add(lie, method="PUT")
    with pytest.raises(DigestMismatch, match="the registry stored"):
        registry.push_manifest(reference, b"{}", media_types.OCI_MANIFEST)


def test_an_upload_whose_answer_was_lost_counts(
    server: RegistryServer, registry: Registry, reference: Reference
) -> None:
    server.faults.add(Fault(status=503, apply=True), method="PUT")
    described = registry.push_blob(reference, b"data")
    assert registry.read_blob(reference, described) == b"data"


def test_an_upload_that_failed_is_an_error(
    server: RegistryServer, registry: Registry, reference: Reference
) -> None:
    server.faults.add(Fault(status=500), method="PUT", times=None)
    with pytest.raises(RegistryError, match="Internal Server Error"):
        registry.push_blob(reference, b"data")


@pytest.mark.parametrize("location", [None, "file:///tmp/x", "ftp://x/"])
def test_an_upload_needs_a_place(
    server: RegistryServer, registry: Registry, reference: Reference, location: str | None
) -> None:
    server.faults.add(Fault(headers={"Location": location}), method="POST")
    with pytest.raises(BadResponse, match="upload"):
        registry.push_blob(reference, b"data")


def test_uploads_elsewhere_carry_no_credentials(
    serving: Serving, server: RegistryServer, client: ClientFactory, reference: Reference
) -> None:
    with serving() as storage:
        location = f"{storage.url}/v2/pushed/app/blobs/uploads/00"
        server.faults.add(Fault(headers={"Location": location}), method="POST")
        storage.faults.add(Fault(status=201), method="PUT")
        client().registry.push_blob(reference, b"data")
        (put,) = storage.log.settled()
        assert put.header("authorization") is None
        assert f"digest={Digest.of(b'data')}".replace(":", "%3A") in put.query.replace(":", "%3A")
