"""The pull part of the distribution protocol, served from the cache of another registry."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conforma.cancellation import Cancellation
from conforma.errors import AccessDenied
from conforma.oci.digest import Digest
from conforma.oci.manifest import Descriptor, Manifest
from conforma.oci.options import RegistryOptions
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry
from conforma.serve.auth import BasicAuth, BearerAuth
from conforma.serve.faults import Fault
from conforma.serve.images import Image, artifact_of, image_of, layer_of, random_member
from conforma.serve.registry import RegistryServer
from tests.oci.layouts import HandMade
from tests.oci.scenery import until
from tests.serve.pulling import Pulling, pulling

needs_skopeo = pytest.mark.skipif(
    shutil.which("skopeo") is None, reason="skopeo is not installed (apt-get install skopeo)"
)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Pulling]:
    with pulling(tmp_path / "cache") as opened:
        yield opened


@pytest.fixture
def image(here: Pulling) -> Image:
    made = image_of([layer_of([random_member("f", 200_000, "image")])])
    made.put(here.upstream.store, "team/app", "v1")
    return made


def test_the_api_is_announced(here: Pulling) -> None:
    for path in ("/v2/", "/v2"):
        status, headers, body = here.get(path)
        assert (status, body) == (200, b"{}")
        assert headers["docker-distribution-api-version"] == "registry/2.0"
    assert here.get("/v2/", "HEAD")[0] == 200


def test_manifests_by_tag_and_by_digest(here: Pulling, image: Image) -> None:
    for name in ("v1", str(image.digest)):
        status, headers, body = here.get(f"/v2/team/app/manifests/{name}")
        assert (status, body) == (200, image.manifest)
        assert headers["docker-content-digest"] == str(image.digest)
        assert headers["content-type"] == image.media_type
        status, headers, body = here.get(f"/v2/team/app/manifests/{name}", "HEAD")
        assert (status, body) == (200, b"")
        assert headers["content-length"] == str(len(image.manifest))
        assert headers["docker-content-digest"] == str(image.digest)


def test_blobs_whole_in_parts_and_by_head(here: Pulling) -> None:
    data = bytes(range(256)) * 2000
    path = here.blob(data)
    status, headers, body = here.get(path, "HEAD")
    assert (status, headers["content-length"], body) == (200, str(len(data)), b"")
    assert here.downloads(data) == 0, "a HEAD costs no download"
    assert here.get(path)[2] == data
    for asked, first, last in (
        ("bytes=0-0", 0, 0),
        ("bytes=100-199", 100, 199),
        (f"bytes={len(data) - 10}-", len(data) - 10, len(data) - 1),
        ("bytes=-5", len(data) - 5, len(data) - 1),
        ("bytes=100-99999999", 100, len(data) - 1),
    ):
        status, headers, body = here.get(path, headers={"Range": asked})
        assert (status, body) == (206, data[first : last + 1]), asked
        assert headers["content-range"] == f"bytes {first}-{last}/{len(data)}"
    status, headers, _ = here.get(path, headers={"Range": f"bytes={len(data)}-"})
    assert (status, headers["content-range"]) == (416, f"bytes */{len(data)}")
    assert here.downloads(data) == 1
    assert here.get(here.blob(b""))[0] == 200


def test_tags_and_referrers(here: Pulling, image: Image) -> None:
    for tag in ("v2", "v3"):
        image.put(here.upstream.store, "team/app", tag)
    assert json.loads(here.get("/v2/team/app/tags/list")[2]) == {
        "name": "team/app", "tags": ["v1", "v2", "v3"],
    }  # fmt: skip
    for number in ("%C2%B2", "9" * 5000, "x"):  # no numbers, or none that a page can have
        assert len(json.loads(here.get(f"/v2/team/app/tags/list?n={number}")[2])["tags"]) == 3
    _, headers, body = here.get("/v2/team/app/tags/list?n=2")
    assert json.loads(body)["tags"] == ["v1", "v2"]
    assert 'rel="next"' in headers["link"]
    subject = Descriptor(image.media_type, image.digest, len(image.manifest))
    for kind in ("a/sbom", "a/note"):
        artifact_of(kind, [(kind.encode(), kind, {})], subject=subject).put(
            here.upstream.store, "team/app"
        )
    listed = json.loads(here.get(f"/v2/team/app/referrers/{image.digest}")[2])
    assert sorted(entry["artifactType"] for entry in listed["manifests"]) == ["a/note", "a/sbom"]
    _, headers, body = here.get(f"/v2/team/app/referrers/{image.digest}?artifactType=a/sbom")
    assert headers["oci-filters-applied"] == "artifactType"
    assert [entry["artifactType"] for entry in json.loads(body)["manifests"]] == ["a/sbom"]
    other = Digest.of(b"nothing refers to this")
    assert json.loads(here.get(f"/v2/team/app/referrers/{other}")[2])["manifests"] == []


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/team/app/manifests/none", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/team/app/blobs/{Digest.of(b'none')}", 404, "BLOB_UNKNOWN"),
        ("/v2/team/app/blobs/sha256:xyz", 400, "DIGEST_INVALID"),
        ("/v2/TEAM/app/manifests/v1", 400, "NAME_INVALID"),
        ("/v2/none/tags/list", 404, "NAME_UNKNOWN"),
        ("/v2/_catalog", 404, "NAME_INVALID"),
        ("/elsewhere", 404, "NAME_INVALID"),
    ],
)
def test_errors_are_those_of_the_specification(
    here: Pulling, image: Image, path: str, status: int, code: str
) -> None:
    found, _, body = here.get(path)
    assert found == status
    assert json.loads(body)["errors"][0]["code"] == code


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_can_be_written(here: Pulling, image: Image, method: str) -> None:
    status, headers, _ = here.get("/v2/team/app/manifests/v1", method)
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert here.get("/v2/team/app/blobs/uploads/", method)[0] == 405


def test_an_outage_is_a_bad_gateway_and_a_refusal_a_refusal(here: Pulling, image: Image) -> None:
    here.upstream.faults.add(Fault(status=503), path="manifests/out", times=None)
    assert here.get("/v2/team/app/manifests/out")[0] == 502
    here.upstream.faults.add(Fault(status=403), path="manifests/secret", times=None)
    assert here.get("/v2/team/app/manifests/secret")[0] == 403
    data = b"x" * 100_000
    path = here.blob(data)
    here.upstream.faults.add(Fault(status=500), method="GET", path="/blobs/", times=None)
    assert here.get(path)[0] == 502, "told before the head, not by a broken body"


def test_a_moved_tag_is_noticed_when_its_time_is_over(tmp_path: Path) -> None:
    with pulling(tmp_path / "cache", fresh=0.0) as here:
        for text in ("one", "two"):
            image = image_of([layer_of([random_member("f", 100, text)])])
            image.put(here.upstream.store, "app", "latest")
            assert here.get("/v2/app/manifests/latest")[2] == image.manifest


def test_a_tag_is_believed_for_its_time(here: Pulling) -> None:
    first = image_of([layer_of([random_member("f", 100, "one")])])
    first.put(here.upstream.store, "app", "latest")
    assert here.get("/v2/app/manifests/latest")[2] == first.manifest
    image_of([layer_of([random_member("f", 100, "two")])]).put(here.upstream.store, "app", "latest")
    assert here.get("/v2/app/manifests/latest")[2] == first.manifest


def test_knowing_a_blob_is_not_being_allowed_to_have_it(here: Pulling) -> None:
    data = b"private" * 10_000
    path = here.blob(data, "private")
    here.upstream.store.repository("public")
    assert here.get(path)[0] == 200
    status, _, _ = here.get(path.replace("private", "public"))
    assert status == 404, "upstream does not offer it there, although the cache has it"


def test_only_named_upstreams_are_reached(tmp_path: Path) -> None:
    layout = HandMade(tmp_path / "layout")
    stored = image_of([layer_of([random_member("f", 1000, "layout")])])
    layout.put(stored, "example.com/lib/tool:1")
    with RegistryServer() as other, pulling(tmp_path / "cache", places=(layout.place,)) as here:
        image = image_of([layer_of([random_member("f", 100, "elsewhere")])])
        image.put(other.store, "app", "1")
        assert here.get(f"/v2/{other.host}/app/manifests/1")[0] in (400, 404)
        assert here.get(f"/v2/app/manifests/1?ns={other.host}")[0] == 404
        assert len(other.log) == 0
        status, _, body = here.get(f"/v2/example.com/lib/tool/manifests/1?ns={layout.place}")
        assert (status, body) == (200, stored.manifest)
        layer = Manifest.parse(stored.manifest, stored.media_type).layers[0]
        status, _, body = here.get(
            f"/v2/example.com/lib/tool/blobs/{layer.digest}?ns={layout.place}"
        )
        assert (status, Digest.of(body)) == (200, layer.digest)


def test_basic_credentials_are_asked_for(tmp_path: Path) -> None:
    with pulling(tmp_path / "cache", access=BasicAuth("me", "c4nary-serve")) as here:
        status, headers, _ = here.get("/v2/")
        assert (status, headers["www-authenticate"]) == (401, 'Basic realm="registry"')
        right = base64.b64encode(b"me:c4nary-serve").decode()
        wrong = base64.b64encode(b"me:guess").decode()
        assert here.get("/v2/", headers={"Authorization": f"Basic {wrong}"})[0] == 401
        assert here.get("/v2/", headers={"Authorization": f"Basic {right}"})[0] == 200
        assert here.get("/metrics")[0] == 401
        assert here.get("/healthz")[0] == 200, "a probe has no password"


def test_bearer_tokens_are_asked_for(tmp_path: Path) -> None:
    with pulling(tmp_path / "cache", access=BearerAuth("me", "c4nary-serve")) as here:
        image = image_of([layer_of([random_member("f", 100, 1)])])
        image.put(here.upstream.store, "app", "1")
        docker = tmp_path / ".docker"
        docker.mkdir()
        auth = base64.b64encode(b"me:c4nary-serve").decode()
        (docker / "config.json").write_text(
            json.dumps({"auths": {here.server.host: {"auth": auth}}})
        )
        reference = Reference.parse(f"{here.server.host}/app:1")
        options = RegistryOptions(environment={"HOME": str(tmp_path), "PATH": ""})
        with Registry(options, Cancellation()) as registry:
            assert registry.manifest(reference).raw == image.manifest
        nobody = RegistryOptions(environment={"PATH": ""})
        with Registry(nobody, Cancellation()) as registry, pytest.raises(AccessDenied):
            registry.manifest(reference)


def test_a_token_covers_every_scope_that_was_named(tmp_path: Path) -> None:
    with pulling(tmp_path / "cache", access=BearerAuth()) as here:
        for repository in ("a", "b"):
            here.upstream.store.repository(repository).put_manifest(b"{}", "x/y", tag="1")
        query = "scope=repository:a:pull&scope=repository:b:pull"
        issued = json.loads(here.get(f"/token?{query}")[2])["token"]
        headers = {"Authorization": f"Bearer {issued}"}
        listed = [here.get(f"/v2/{name}/tags/list", headers=headers) for name in ("a", "b", "c")]
        assert [status for status, _, _ in listed] == [200, 200, 401]


def test_methods_that_clients_make_up_are_counted_as_one(here: Pulling) -> None:
    for number in range(3):
        here.get("/v2/", f"MADE{number}")
    counted = 'conforma_serve_requests_total{method="other",kind="other",status="405"} 3'
    until(lambda: counted in here.get("/metrics")[2].decode())
    assert "MADE" not in here.get("/metrics")[2].decode()


def test_health_and_metrics_agree_with_what_happened(here: Pulling) -> None:
    data = b"m" * 300_000
    path = here.blob(data)
    assert here.get("/healthz")[2] == b'{"status": "ok"}'
    here.get(path)
    here.get(path)
    here.get(path.replace("sha256:", "sha256:0")[:-1])

    def counters() -> dict[str, str]:
        text = here.get("/metrics")[2].decode()
        return dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")

    answered = 'conforma_serve_requests_total{method="GET",kind="blobs",status="%d"}'
    # An answer is counted when it has been sent, so a quick client may be ahead of its count.
    until(lambda: counters().get(answered % 200) == "2" and answered % 404 in counters())
    counted = counters()
    assert counted[answered % 404] == "1"
    assert counted['conforma_serve_sent_bytes_total{kind="blobs"}'].startswith("600")
    assert counted["conforma_serve_cache_requests_total"] == "2"
    # The second may come while the first one's download is still saying goodbye.
    spared = ("conforma_serve_cache_hits_total", "conforma_serve_cache_coalesced_total")
    assert sum(int(counted[name]) for name in spared) == 1
    assert counted["conforma_serve_upstream_received_bytes_total"] == "300000"


@needs_skopeo
@pytest.mark.slow
def test_skopeo_copies_and_agrees_on_digests(here: Pulling, image: Image, tmp_path: Path) -> None:
    source = f"docker://{here.server.host}/team/app:v1"
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "--preserve-digests",
         source, f"oci:{tmp_path / 'out'}:v1"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    inspected = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", source],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert json.loads(inspected.stdout)["Digest"] == str(image.digest)
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert index["manifests"][0]["digest"] == str(image.digest)
    assert set(here.upstream.log.blob_downloads().values()) == {1}
