"""Registries that are down, hang, refuse, lie or send us elsewhere."""

from __future__ import annotations

import json
import socket

import pytest

from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.serve.faults import Fault, Gate
from conforma.serve.images import Member, image_of, layer_of
from conforma.serve.registry import RegistryServer
from tests.cli.bad_release import BAD, BadRelease, assert_clean, assert_undecided

pytestmark = pytest.mark.slow

IMAGE = image_of([layer_of([Member("etc/motd", b"hello")])])
FORBIDDEN = image_of([layer_of([Member("etc/forbidden", b"x")])])


def test_a_registry_that_is_down(release: BadRelease) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens, and nobody else can
        port = closed.getsockname()[1]
        release.name(f"127.0.0.1:{port}/shop/bad:1.0")
        done = release.run()
    assert_undecided(done, f"127.0.0.1:{port}/shop/bad:1.0", "cannot connect: Connection refused")
    assert "hint: is the registry running and reachable?" in done.err


def test_a_registry_that_hangs(release: BadRelease) -> None:
    release.add(IMAGE)
    gate = Gate()
    release.shop.server.faults.add(Fault(hang=gate), path="/shop/bad/manifests/sha256", times=None)
    try:
        done = release.run(timeout="4s")
    finally:
        gate.release()
    assert_undecided(done, "exceeded allowed execution time of 4s")


@pytest.mark.parametrize(
    ("fault", "words", "hint"),
    [
        (Fault(status=500), ["Internal Server Error"], "the registry is in trouble"),
        (Fault(status=503), ["Service Unavailable"], "the registry is in trouble"),
        (Fault(status=401), ["Unauthorized"], "log in, or name a file with them"),
        (Fault(status=403), ["Forbidden"], ""),
        (Fault(status=429), ["Too Many Requests"], "the registry limits requests"),
        (Fault(reset_at=0), ["connection broke"], "try again"),
        (
            Fault(redirect="file:///etc/passwd"),
            ["refusing to follow a redirect to a 'file' address"],
            "is misconfigured",
        ),
        (Fault(redirect="/v2/shop/bad/manifests/1.0"), ["more than 10 redirects"], ""),
        (
            Fault(redirect="http://someone:s3cret@127.0.0.1:1/x?token=s3cret"),
            ["cannot connect: Connection refused"],
            "",
        ),
    ],
    ids=["500", "503", "401", "403", "429", "reset", "file", "loop", "elsewhere"],
)
def test_a_registry_that_does_not_answer_the_question(
    release: BadRelease, fault: Fault, words: list[str], hint: str
) -> None:
    release.add(IMAGE)
    release.shop.server.faults.add(fault, path="/shop/bad/", times=None)
    done = release.run()
    assert_undecided(done, "shop/bad", *words)
    assert hint in done.err


def test_a_login_page_is_no_manifest(release: BadRelease) -> None:
    release.add(IMAGE)
    page = Fault(status=200, headers={"Content-Type": "text/html"}, body=b"<html>Log in</html>")
    release.shop.server.faults.add(page, path="/shop/bad/", times=None)
    assert_undecided(release.run(), "unsupported media type 'text/html'")


def test_an_outage_of_the_evidence_is_no_missing_signature(release: BadRelease) -> None:
    release.add(IMAGE)
    release.shop.server.faults.add(Fault(status=429), path=r"/bad/.*\.sig", times=None)
    assert_undecided(release.run(), ".sig: ")


def test_a_tag_that_moves_is_what_it_was_at_first(release: BadRelease) -> None:
    first = release.add(IMAGE)
    moved = Fault(
        status=200,
        headers={
            "Content-Type": media_types.OCI_MANIFEST,
            "Docker-Content-Digest": str(FORBIDDEN.digest),
        },
        body=FORBIDDEN.manifest,
    )
    FORBIDDEN.put(release.shop.server.store, release.repository)
    release.shop.server.faults.add(moved, path="/bad/manifests/1.0", skip=1, times=None)
    done = release.run()
    assert done.status == 0, done.err
    assert done.component(BAD)["containerImage"].endswith(f"@{first}")


def test_a_registry_that_lies_about_the_digest(release: BadRelease) -> None:
    release.add(IMAGE)
    lie = Fault(headers={"Docker-Content-Digest": str(Digest.of(b"lie"))})
    release.shop.server.faults.add(lie, path="/bad/manifests/1.0", times=None)
    done = release.run()
    assert done.status != 0
    assert done.component(BAD)["success"] is False
    assert done.component("web")["success"] is True
    assert_clean(done)


def test_credentials_do_not_follow_a_redirect(release: BadRelease) -> None:
    release.add(IMAGE)
    layer = json.loads(IMAGE.manifest)["layers"][0]["digest"]
    host = release.shop.server.host
    file = release.shop.directory / "auth.json"
    file.write_text(json.dumps({"auths": {host: {"auth": "dXNlcjpzM2NyZXQ="}}}))
    with RegistryServer() as other:
        other.store.put_blob("elsewhere", IMAGE.blobs[1])
        target = f"{other.url}/v2/elsewhere/blobs/{layer}"
        release.shop.server.faults.add(Fault(redirect=target), path=f"/bad/blobs/{layer}", times=1)
        done = release.run(changes={"REGISTRY_AUTH_FILE": str(file)})
        assert done.status == 0, done.err
        (request,) = other.log
        assert "authorization" not in {name.lower() for name in request.headers}
    assert_clean(done)
