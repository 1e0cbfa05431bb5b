"""Lists in pages, and the two places where referrers may be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from conforma.errors import (
    AccessDenied,
    BadManifest,
    BadResponse,
    RateLimited,
    RegistryUnreachable,
    TooLarge,
)
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry
from conforma.serve.faults import Fault
from conforma.serve.registry import RegistryServer
from tests.oci.scenery import ClientFactory, Serving, digest_of, only_ours, put_image


def attach(server: RegistryServer, subject: Reference, kind: str) -> Digest:
    """Store an artifact about ``subject``."""
    empty = {
        "mediaType": media_types.OCI_EMPTY,
        "digest": str(server.store.put_blob("app", b"{}")),
        "size": 2,
    }
    found = server.store.repository("app").find(str(subject.digest))
    assert found is not None
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "artifactType": kind,
        "config": empty,
        "layers": [],
        "subject": {
            "mediaType": media_types.OCI_MANIFEST,
            "digest": str(found[0]),
            "size": len(found[1].raw),
        },
    }
    raw = json.dumps(document).encode()
    server.store.repository("app").put_manifest(raw, media_types.OCI_MANIFEST)
    return Digest.of(raw)


def tag_index(server: RegistryServer, subject: Reference, referrers: list[Digest]) -> None:
    """Store the list of referrers where registries without the API keep it."""
    children = [
        {"mediaType": media_types.OCI_MANIFEST, "digest": str(d), "size": 1, "artifactType": "a/b"}
        for d in referrers
    ]
    raw = json.dumps({"schemaVersion": 2, "manifests": children}).encode()
    assert subject.digest is not None
    tag = f"sha256-{subject.digest.hex}"
    server.store.repository("app").put_manifest(raw, media_types.OCI_INDEX, tag=tag)


@pytest.fixture
def pinned(server: RegistryServer) -> Reference:
    return put_image(server).pinned(digest_of(server, "app", "v1"))


@only_ours("version 2.8 has no referrers API")
def test_referrers_come_from_the_api_once_per_run(
    server: RegistryServer, registry: Registry, pinned: Reference
) -> None:
    signature, sbom = attach(server, pinned, "a/signature"), attach(server, pinned, "a/sbom")
    assert {d.digest for d in registry.referrers(pinned)} == {signature, sbom}
    assert [d.digest for d in registry.referrers(pinned, "a/sbom")] == [sbom]
    assert registry.referrers(pinned, "a/nothing") == ()
    assert len(server.log.settled()) == 1


@only_ours("version 2.8 has no referrers API")
def test_referrers_come_in_pages(serving: Serving, client: ClientFactory) -> None:
    with serving(page_size=2) as server:
        pinned = put_image(server).pinned(digest_of(server, "app", "v1"))
        attached = {attach(server, pinned, f"a/{n}") for n in range(7)}
        registry = client().registry
        assert {d.digest for d in registry.referrers(pinned)} == attached
        assert len(server.log.settled()) == 4


@pytest.mark.parametrize("status", [400, 404, 405, 406])
def test_registries_without_the_api_keep_referrers_under_a_tag(
    server: RegistryServer, registry: Registry, pinned: Reference, status: int
) -> None:
    listed = attach(server, pinned, "a/b")
    tag_index(server, pinned, [listed])
    server.faults.add(Fault(status=status), path="/referrers/", times=None)
    assert [d.digest for d in registry.referrers(pinned, "a/b")] == [listed]
    assert registry.referrers(pinned, "other/type") == ()


def test_an_answer_of_another_type_is_no_referrers_api(
    server: RegistryServer, registry: Registry, pinned: Reference
) -> None:
    listed = attach(server, pinned, "a/b")
    tag_index(server, pinned, [listed])
    html = Fault(200, {"Content-Type": "text/html"}, b"<html>")
    server.faults.add(html, path="/referrers/")
    assert [descriptor.digest for descriptor in registry.referrers(pinned)] == [listed]


def test_neither_api_nor_tag_means_that_there_are_none(
    serving: Serving,
    client: ClientFactory,
) -> None:
    with serving(referrers=False) as server:
        pinned = put_image(server).pinned(digest_of(server, "app", "v1"))
        assert client().registry.referrers(pinned) == ()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, AccessDenied),
        (403, AccessDenied),
        (429, RateLimited),
        (500, RegistryUnreachable),
        (503, RegistryUnreachable),
    ],
)
@pytest.mark.parametrize("path", ["/referrers/", "/manifests/sha256-"])
def test_an_outage_is_never_an_empty_list(
    serving: Serving, client: ClientFactory, status: int, error: type[Exception], path: str
) -> None:
    with serving(referrers=path == "/referrers/") as server:
        pinned = put_image(server).pinned(digest_of(server, "app", "v1"))
        server.faults.add(Fault(status=status), path=path, times=None)
        with pytest.raises(error):
            client().registry.referrers(pinned)


def test_a_list_of_referrers_must_be_one(
    server: RegistryServer, registry: Registry, pinned: Reference
) -> None:
    broken = Fault(200, {"Content-Type": media_types.OCI_INDEX}, b"{")
    server.faults.add(broken, path="/referrers/")
    with pytest.raises(BadManifest, match="referrers: index: not JSON"):
        registry.referrers(pinned)


@only_ours("version 2.8 lists tags in one page and in no order")
def test_tags_come_in_pages_and_in_order(serving: Serving, client: ClientFactory) -> None:
    with serving(page_size=3) as server:
        for n in range(10):
            reference = put_image(server, tag=f"t{n}")
        assert client().registry.tags(reference) == tuple(f"t{n}" for n in range(10))
        assert len(server.log.settled()) == 4


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"tags": "x"}', b'{"tags": [1]}', b"{}"])
def test_rc_21_a_list_of_tags_must_be_one(
    server: RegistryServer, registry: Registry, pinned: Reference, body: bytes
) -> None:
    server.faults.add(Fault(status=200, body=body))
    with pytest.raises(BadResponse, match="list of tags"):
        registry.tags(pinned)


def test_rc_21_pages_that_go_round_in_circles_are_left(
    server: RegistryServer, registry: Registry, pinned: Reference
) -> None:
    link = {"Link": '</v2/app/tags/list?n=1000&last=a>; rel="next"'}
    server.faults.add(Fault(200, link, b'{"tags": ["a"]}'), times=None)
    with pytest.raises(BadResponse, match="round in circles"):
        registry.tags(pinned)
    assert len(server.log.settled()) == 2


def test_rc_21_pages_are_counted(
    server: RegistryServer, client: ClientFactory, pinned: Reference
) -> None:
    for n in range(9):
        link = {"Link": f'</v2/app/tags/list?last={n}>; rel="next"'}
        server.faults.add(Fault(200, link, b'{"tags": ["a"]}'))
    with pytest.raises(BadResponse, match="more than 5 pages"):
        client(most_pages=5).registry.tags(pinned)
    assert len(server.log.settled()) == 5


def test_rc_21_the_next_page_is_on_the_same_host(
    server: RegistryServer, registry: Registry, pinned: Reference
) -> None:
    link = {"Link": '<http://127.0.0.2:1/v2/app/tags/list>; rel="next"'}
    server.faults.add(Fault(200, link, b'{"tags": []}'))
    with pytest.raises(BadResponse, match="the next page is on another host"):
        registry.tags(pinned)


def test_a_page_has_a_size(server: RegistryServer, registry: Registry, pinned: Reference) -> None:
    server.faults.add(Fault(status=200, body=bytes(9_000_000)))
    with pytest.raises(TooLarge):
        registry.tags(pinned)
