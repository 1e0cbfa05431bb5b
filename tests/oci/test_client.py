"""What the client asks for, with the server's log as witness."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from conforma.errors import (
    BadManifest,
    BadResponse,
    DigestMismatch,
    NotFound,
    RegistryUnreachable,
    SizeMismatch,
    TooLarge,
)
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.manifest import Descriptor, Index, Manifest
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry
from conforma.serve.faults import Fault, Gate
from conforma.serve.registry import RegistryServer
from tests.oci.scenery import ClientFactory, Serving, digest_of, only_ours, put_image, stored, until


def test_an_image_is_described_resolved_and_read(
    server: RegistryServer, registry: Registry
) -> None:
    reference = put_image(server)
    digest = digest_of(server, "app", "v1")

    assert registry.head(reference).digest == digest
    pinned = registry.resolve(reference)
    assert str(pinned) == f"{server.host}/app@{digest}"
    manifest = registry.manifest(pinned)
    assert isinstance(manifest, Manifest)
    assert manifest.media_type == media_types.OCI_MANIFEST
    assert registry.image_config(pinned, manifest).config == {"User": "1"}
    with registry.open_blob(pinned, manifest.layers[0]) as chunks:
        assert b"".join(chunks) == b"layer"
    assert registry.tags(reference) == ("v1",)


def test_an_index_is_read_by_tag(server: RegistryServer, registry: Registry) -> None:
    raw = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    server.store.repository("app").put_manifest(raw, media_types.OCI_INDEX, tag="all")
    found = registry.manifest(Reference.parse(f"{server.host}/app:all"))
    assert isinstance(found, Index)
    assert found.raw == raw


@only_ours("the words after the status are the registry's")
def test_a_missing_image_is_worded_as_the_reference_words_it(
    server: RegistryServer, registry: Registry
) -> None:
    with pytest.raises(NotFound) as caught:
        registry.head(Reference.parse(f"{server.host}/no/such:tag"))
    assert caught.value.message == (
        f"HEAD http://{server.host}/v2/no/such/manifests/tag: unexpected status code 404 Not Found "
        "(HEAD responses have no body, use GET for details)"
    )
    with pytest.raises(NotFound) as caught:
        registry.manifest(Reference.parse(f"{server.host}/no/such:tag"))
    assert caught.value.message == (
        f"GET http://{server.host}/v2/no/such/manifests/tag: "
        "NAME_UNKNOWN: repository no/such is unknown"
    )


# RC-1


def test_rc_1_equal_requests_at_the_same_time_become_one(
    server: RegistryServer, registry: Registry
) -> None:
    reference = put_image(server)
    gate = Gate()
    server.faults.add(Fault(hang=gate))
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(registry.head, reference) for _ in range(8)]
        gate.wait_reached()
        gate.release()
        assert {f.result(10).digest for f in futures} == {digest_of(server, "app", "v1")}
    assert server.log.counts(path="/manifests/").total() == 1


def test_rc_1_a_failure_is_everybodys_who_waited_and_nobodys_later(
    server: RegistryServer, registry: Registry
) -> None:
    reference = put_image(server)
    gate = Gate()
    server.faults.add(Fault(hang=gate, status=404))
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(registry.head, reference)
        gate.wait_reached()
        # The leader holds its request; these can only join it.
        others = [pool.submit(registry.head, reference) for _ in range(7)]
        until(lambda: registry._manifests._head_flights.joined == 7)
        gate.release()
        for future in (first, *others):
            with pytest.raises(NotFound):
                future.result(10)
    assert server.log.counts(path="/manifests/").total() == 1
    assert registry.head(reference).digest == digest_of(server, "app", "v1")


# RC-2, RC-3, RC-12, RC-17


def test_rc_2_what_is_known_is_not_asked_again(server: RegistryServer, registry: Registry) -> None:
    reference = put_image(server)
    pinned = registry.resolve(reference)
    for _ in range(3):
        manifest = registry.manifest(pinned)
        assert isinstance(manifest, Manifest)
        registry.head(pinned)
        registry.head(reference)
        registry.image_config(pinned, manifest)
    assert [(r.method, r.path.split("/")[3]) for r in server.log.settled()] == [
        ("HEAD", "manifests"),
        ("GET", "manifests"),
        ("GET", "blobs"),
    ]
    assert registry.stats.remembered > 0


def test_rc_2_a_tag_keeps_its_meaning_for_the_run(
    server: RegistryServer, client: ClientFactory
) -> None:
    reference = put_image(server, content=b"old")
    running = client().registry
    before = running.resolve(reference)
    put_image(server, content=b"new")
    assert running.resolve(reference) == before
    assert running.manifest(reference) == running.manifest(before)
    assert client().registry.resolve(reference) != before


def test_rc_2_knowing_content_does_not_open_other_repositories(
    server: RegistryServer, registry: Registry
) -> None:
    pinned = registry.resolve(put_image(server, "public"))
    registry.manifest(pinned)
    elsewhere = Reference.parse(f"{server.host}/private@{pinned.digest}")
    with pytest.raises(NotFound):
        registry.manifest(elsewhere)


def test_rc_3_tags_of_one_digest_share_one_body(server: RegistryServer, registry: Registry) -> None:
    for n in range(20):
        reference = put_image(server, tag=f"t{n}")
    for n in range(20):
        registry.manifest(reference.with_tag(f"t{n}"))
    assert server.log.counts("GET", "/manifests/").total() == 1
    assert server.log.counts("HEAD", "/manifests/").total() == 19


def test_rc_12_no_head_before_a_get_that_is_needed_anyway(
    server: RegistryServer, registry: Registry
) -> None:
    reference = put_image(server)
    registry.manifest(reference)
    registry.head(reference)
    assert [r.method for r in server.log.settled()] == ["GET"]


def test_rc_17_embedded_data_saves_a_request_only_when_it_is_right(
    server: RegistryServer, registry: Registry
) -> None:
    reference = put_image(server)
    described = stored(server, "app", b"hello")
    good = Descriptor("x", described.digest, 5, data=b"hello")
    assert registry.read_blob(reference, good) == b"hello"
    assert len(server.log) == 0
    forged = Descriptor("x", described.digest, 5, data=b"HELLO")
    assert registry.read_blob(reference, forged) == b"hello"
    assert len(server.log.settled()) == 1


# RC-16: sizes, digests, types


def test_rc_16_a_manifest_with_another_digest_is_refused(
    server: RegistryServer, registry: Registry
) -> None:
    pinned = registry.resolve(put_image(server))
    server.faults.add(Fault(flip_at=30), method="GET")
    with pytest.raises(DigestMismatch) as caught:
        registry.manifest(pinned)
    assert str(pinned) in caught.value.message
    assert isinstance(registry.manifest(pinned), Manifest)  # nothing wrong was remembered


def test_rc_16_the_digest_header_is_compared(server: RegistryServer, registry: Registry) -> None:
    reference = put_image(server)
    lie = str(Digest.of(b"something else"))
    server.faults.add(Fault(headers={"Docker-Content-Digest": lie}), method="GET")
    with pytest.raises(DigestMismatch, match=f"promised {lie}"):
        registry.manifest(reference)


def test_rc_16_the_digest_header_is_never_believed(
    server: RegistryServer, registry: Registry
) -> None:
    pinned = registry.resolve(put_image(server))
    body = b'{"schemaVersion": 2, "manifests": []}'
    headers = {
        "Docker-Content-Digest": str(pinned.digest),
        "Content-Type": media_types.OCI_INDEX,
    }
    server.faults.add(Fault(200, headers, body), method="GET")
    with pytest.raises(DigestMismatch, match=f"promised {pinned.digest}"):
        registry.manifest(pinned)


def test_rc_16_a_head_about_another_digest_is_refused(
    server: RegistryServer, registry: Registry
) -> None:
    reference = put_image(server)
    pinned = reference.pinned(digest_of(server, "app", "v1"))
    lie = str(Digest.of(b"something else"))
    server.faults.add(Fault(headers={"Docker-Content-Digest": lie}))
    with pytest.raises(DigestMismatch, match="the registry calls it"):
        registry.head(pinned)


def test_rc_16_manifests_over_the_limit_are_refused_without_reading_them(
    server: RegistryServer, registry: Registry
) -> None:
    reference = put_image(server)
    server.faults.add(Fault(status=200, body=b" " * 20_000_000), method="GET")
    with pytest.raises(TooLarge, match=r"larger than the limit of 4194304 bytes") as caught:
        registry.manifest(reference)
    assert str(reference) in caught.value.message


@pytest.mark.parametrize(
    ("fault", "error", "reason"),
    [
        (
            # Nothing says that this is what the registry meant: perhaps a proxy's page.
            Fault(200, {"Content-Type": media_types.OCI_MANIFEST}, b"<html>"),
            BadResponse,
            "not JSON (starts with '<html>')",
        ),
        (Fault(headers={"Content-Type": "text/html"}), BadManifest, "'text/html'"),
        (Fault(headers={"Content-Type": None}), BadResponse, "does not say what kind"),
        (Fault(headers={"Content-Type": media_types.OCI_INDEX}), BadManifest, "calls itself"),
    ],
)
def test_rc_21_an_answer_that_is_no_manifest_names_reference_and_reason(
    server: RegistryServer, registry: Registry, fault: Fault, error: type[Exception], reason: str
) -> None:
    reference = put_image(server)
    server.faults.add(fault, method="GET")
    with pytest.raises(error) as caught:
        registry.manifest(reference)
    assert reason in str(caught.value)
    assert str(reference) in str(caught.value)


@pytest.mark.parametrize("missing", ["Docker-Content-Digest", "Content-Type"])
def test_a_head_that_says_too_little_is_replaced_by_the_manifest(
    server: RegistryServer, registry: Registry, missing: str
) -> None:
    reference = put_image(server)
    server.faults.add(Fault(headers={missing: None}), method="HEAD")
    assert registry.head(reference).digest == digest_of(server, "app", "v1")


def test_a_registry_without_head_is_asked_for_the_manifest(
    server: RegistryServer, registry: Registry
) -> None:
    reference = put_image(server)
    server.faults.add(Fault(status=405), method="HEAD")
    assert registry.head(reference).digest == digest_of(server, "app", "v1")


def test_a_blob_over_the_limit_is_not_even_asked_for(
    server: RegistryServer, registry: Registry
) -> None:
    reference = put_image(server)
    described = stored(server, "app", b"x" * 100)
    with pytest.raises(TooLarge, match="100 bytes, over the limit of 99"):
        registry.read_blob(reference, described, limit=99)
    assert len(server.log) == 0
    with pytest.raises(TooLarge, match="larger than the limit of 99 bytes"):
        registry.read_blob(reference, described.digest, limit=99)
    assert registry.read_blob(reference, described.digest, limit=100) == b"x" * 100
    with pytest.raises(TooLarge):  # remembered, but the limit is the caller's
        registry.read_blob(reference, described.digest, limit=99)


def test_a_config_of_another_size_than_the_manifest_says_is_refused(
    server: RegistryServer, registry: Registry
) -> None:
    reference = put_image(server)
    described = stored(server, "app", b"12345")
    with pytest.raises(SizeMismatch, match="has 5 bytes where 4 were declared"):
        registry.read_blob(reference, Descriptor("x", described.digest, 4))


def test_a_registry_that_is_not_there_is_named_with_a_hint(
    serving: Serving, registry: Registry
) -> None:
    with serving() as gone:
        reference = put_image(gone)
    with pytest.raises(RegistryUnreachable) as caught:
        registry.head(reference)
    assert str(reference) in caught.value.message
    assert "Connection refused" in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_status == 3


def test_a_host_name_that_does_not_exist_is_not_tried_again(client: ClientFactory) -> None:
    made = client()
    with pytest.raises(RegistryUnreachable, match=r"cannot find host no-such-host\.invalid"):
        made.registry.head(Reference.parse("no-such-host.invalid/a:b"))
    assert len(made.seen) == 1


def test_importing_the_client_does_not_import_httpx() -> None:
    import subprocess
    import sys

    code = "import sys, conforma.oci.registry; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_head_that_lies_is_found_out_and_says_nothing_about_the_image(
    server: RegistryServer, registry: Registry
) -> None:
    registry.manifest(put_image(server))
    lie = Fault(headers={"Docker-Content-Digest": str(Digest.of(b"lie"))})
    server.faults.add(lie, method="HEAD")
    with pytest.raises(BadResponse, match="has no such thing"):
        registry.manifest(put_image(server, tag="v2"))


def test_rc_3_tags_read_at_the_same_time_share_one_body(
    server: RegistryServer, registry: Registry
) -> None:
    references = [put_image(server, tag=f"t{n}") for n in range(20)]
    with ThreadPoolExecutor(20) as pool:
        found = {document.raw for document in pool.map(registry.manifest, references)}
    assert len(found) == 1
    assert server.log.settled().counts("GET").total() == 1
    assert server.log.counts("HEAD").total() == 19
