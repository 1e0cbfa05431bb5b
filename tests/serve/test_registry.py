"""The registry speaks the distribution protocol, measured with a client that is not ours."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import trustme

from conforma.oci.digest import Digest
from conforma.serve.auth import BasicAuth, BearerAuth
from conforma.serve.images import Member, artifact_of, image_of, index_of, layer_of
from conforma.serve.registry import RegistryServer
from conforma.serve.signing import subject_of

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(params=["memory", "disk"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path if request.param == "disk" else None) as server:
        yield server


@pytest.fixture
def client(server: RegistryServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=10) as client:
        yield client


def push(client: httpx.Client, repository: str, data: bytes) -> Digest:
    digest = Digest.of(data)
    location = client.post(f"/v2/{repository}/blobs/uploads/").headers["location"]
    answer = client.put(location, params={"digest": str(digest)}, content=data)
    assert answer.status_code == 201
    return digest


def test_says_that_it_speaks_version_2(client: httpx.Client) -> None:
    assert client.get("/v2/").status_code == 200


def test_serves_a_blob_with_its_length_and_digest(
    server: RegistryServer, client: httpx.Client
) -> None:
    data = bytes(range(256)) * 5000
    digest = server.store.put_blob("team/app", data)
    answer = client.get(f"/v2/team/app/blobs/{digest}")
    assert (answer.status_code, answer.content) == (200, data)
    assert answer.headers["docker-content-digest"] == str(digest)
    head = client.head(f"/v2/team/app/blobs/{digest}")
    assert (head.headers["content-length"], head.content) == (str(len(data)), b"")


@pytest.mark.parametrize(
    ("asked", "status", "content", "content_range"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-4", 206, b"6789", "bytes 6-9/10"),
        ("bytes=4-99", 206, b"456789", "bytes 4-9/10"),
        (f"bytes=0-{'9' * 5000}", 200, b"0123456789", None),
        ("bytes=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=1-2,4-5", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ],
)
def test_serves_ranges(
    server: RegistryServer,
    client: httpx.Client,
    asked: str,
    status: int,
    content: bytes | None,
    content_range: str | None,
) -> None:
    digest = server.store.put_blob("app", b"0123456789")
    answer = client.get(f"/v2/app/blobs/{digest}", headers={"Range": asked})
    assert answer.status_code == status
    assert answer.headers.get("content-range") == content_range
    if content is not None:
        assert answer.content == content


def test_a_blob_is_visible_only_where_it_was_put(
    server: RegistryServer, client: httpx.Client
) -> None:
    digest = server.store.put_blob("mine", b"secret")
    server.store.repository("yours")
    answer = client.get(f"/v2/yours/blobs/{digest}")
    assert answer.status_code == 404
    assert answer.json()["errors"][0]["code"] == "BLOB_UNKNOWN"


def test_many_requests_share_one_connection(server: RegistryServer, client: httpx.Client) -> None:
    for _ in range(5):
        client.get("/v2/")
    assert len({request.client for request in server.log}) == 1


def test_takes_a_blob_in_chunks_and_refuses_a_gap(
    server: RegistryServer, client: httpx.Client
) -> None:
    location = client.post("/v2/app/blobs/uploads/").headers["location"]
    first = client.patch(location, content=b"abc", headers={"Content-Range": "0-2"})
    assert (first.status_code, first.headers["range"]) == (202, "0-2")
    gap = client.patch(location, content=b"xyz", headers={"Content-Range": "5-7"})
    assert gap.status_code == 416
    assert gap.headers["range"] == "0-2"
    client.patch(location, content=iter([b"d", b"ef"]))  # chunked transfer coding
    status = client.get(location)
    assert (status.status_code, status.headers["range"]) == (204, "0-5")
    digest = Digest.of(b"abcdefgh")
    done = client.put(location, params={"digest": str(digest)}, content=b"gh")
    assert done.status_code == 201
    assert client.get(done.headers["location"]).content == b"abcdefgh"
    assert client.get(location).status_code == 404


def test_takes_a_blob_in_one_request(client: httpx.Client) -> None:
    digest = Digest.of(b"whole")
    done = client.post(f"/v2/app/blobs/uploads/?digest={digest}", content=b"whole")
    assert done.status_code == 201
    assert client.get(f"/v2/app/blobs/{digest}").content == b"whole"


@pytest.mark.parametrize("digest", [str(Digest.of(b"other")), "sha256:short", "md5:00", ""])
def test_refuses_a_blob_with_another_digest(client: httpx.Client, digest: str) -> None:
    location = client.post("/v2/app/blobs/uploads/").headers["location"]
    answer = client.put(location, params={"digest": digest}, content=b"data")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["code"] == "DIGEST_INVALID"


def test_nothing_is_left_of_a_refused_upload(tmp_path: Path) -> None:
    with RegistryServer(tmp_path) as server, httpx.Client(base_url=server.url) as client:
        for digest in ("nonsense", str(Digest.of(b"other"))):
            answer = client.post("/v2/a/blobs/uploads/", params={"digest": digest}, content=b"x")
            assert answer.status_code == 400
        push(client, "a", b"kept")
    assert not list(tmp_path.glob("uploads/*"))


def test_mounts_a_blob_from_another_repository(
    server: RegistryServer, client: httpx.Client
) -> None:
    digest = push(client, "from/here", b"shared")
    mounted = client.post(f"/v2/to/there/blobs/uploads/?mount={digest}&from=from/here")
    assert mounted.status_code == 201
    assert client.get(f"/v2/to/there/blobs/{digest}").content == b"shared"
    unknown = client.post(f"/v2/to/there/blobs/uploads/?mount={Digest.of(b'?')}&from=from/here")
    assert unknown.status_code == 202


def test_a_cancelled_upload_is_gone(client: httpx.Client) -> None:
    location = client.post("/v2/app/blobs/uploads/").headers["location"]
    assert client.delete(location).status_code == 204
    assert client.patch(location, content=b"x").status_code == 404


def test_pushes_and_pulls_an_image_by_tag_and_digest(
    server: RegistryServer, client: httpx.Client
) -> None:
    image = image_of([layer_of([Member("hello", b"world")])])
    for blob in image.blobs:
        push(client, "app", blob)
    put = client.put(
        "/v2/app/manifests/1.0", content=image.manifest, headers={"Content-Type": OCI_MANIFEST}
    )
    assert (put.status_code, put.headers["docker-content-digest"]) == (201, str(image.digest))
    for name in ("1.0", str(image.digest)):
        got = client.get(f"/v2/app/manifests/{name}")
        assert got.content == image.manifest
        assert got.headers["content-type"] == OCI_MANIFEST
        assert client.head(f"/v2/app/manifests/{name}").headers["content-length"] == str(
            len(image.manifest)
        )
    assert client.get("/v2/app/manifests/2.0").json()["errors"][0]["code"] == "MANIFEST_UNKNOWN"
    assert client.get("/v2/none/manifests/1.0").json()["errors"][0]["code"] == "NAME_UNKNOWN"


def test_refuses_a_manifest_whose_blobs_are_missing(
    server: RegistryServer, client: httpx.Client
) -> None:
    image = image_of([layer_of([Member("a")])])
    put = client.put("/v2/app/manifests/1", content=image.manifest)
    assert put.json()["errors"][0]["code"] == "MANIFEST_BLOB_UNKNOWN"
    index = index_of([image])
    assert client.put("/v2/app/manifests/1", content=index.raw).status_code == 404
    server.check_pushes = False
    assert client.put("/v2/app/manifests/1", content=index.raw).status_code == 201


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        (f"{Digest.of(b'{}')}", b'{"a":1}', "DIGEST_INVALID"),
        ("1.0", b"not json", "MANIFEST_INVALID"),
        ("1.0", b"[]", "MANIFEST_INVALID"),
        (".bad", b'{"a":1}', "TAG_INVALID"),
        ("1.0", b'{"manifests":[5]}', "DIGEST_INVALID"),
        ("1.0", b" " * (4 * 1024 * 1024 + 1), "SIZE_INVALID"),
    ],
)
def test_refuses_bad_manifests(client: httpx.Client, name: str, content: bytes, code: str) -> None:
    answer = client.put(f"/v2/app/manifests/{name}", content=content)
    assert answer.json()["errors"][0]["code"] == code


def test_deletes_tags_manifests_and_blobs(server: RegistryServer, client: httpx.Client) -> None:
    image = image_of([layer_of([Member("a")])])
    digest = image.put(server.store, "app", "1")
    image.put(server.store, "app", "2")
    assert client.delete("/v2/app/manifests/1").status_code == 202
    assert client.get("/v2/app/tags/list").json()["tags"] == ["2"]
    assert client.delete(f"/v2/app/manifests/{digest}").status_code == 202
    assert client.get("/v2/app/manifests/2").status_code == 404
    assert client.delete(f"/v2/app/manifests/{digest}").status_code == 404
    blob = Digest.of(image.blobs[0])
    assert client.delete(f"/v2/app/blobs/{blob}").status_code == 202
    assert client.get(f"/v2/app/blobs/{blob}").status_code == 404


def test_lists_tags_in_pages(server: RegistryServer, client: httpx.Client) -> None:
    for tag in "edcba":
        server.store.repository("app").put_manifest(b"{}", OCI_MANIFEST, tag=tag)
    assert client.get("/v2/app/tags/list").json() == {"name": "app", "tags": list("abcde")}
    seen = []
    url = "/v2/app/tags/list?n=2"
    while url:
        answer = client.get(url)
        seen.append(answer.json()["tags"])
        url = answer.links.get("next", {}).get("url", "")
    assert seen == [["a", "b"], ["c", "d"], ["e"]]


def test_lists_repositories(server: RegistryServer, client: httpx.Client) -> None:
    server.store.put_blob("b/x", b"")
    server.store.put_blob("a", b"")
    assert client.get("/v2/_catalog").json() == {"repositories": ["a", "b/x"]}


def test_lists_referrers_by_type_and_in_pages(server: RegistryServer, client: httpx.Client) -> None:
    digest = image_of([]).put(server.store, "app")
    subject = subject_of(server.store, "app", digest)
    for number, kind in enumerate(["a/x", "a/y", "a/x"]):
        artifact_of(
            kind, [(b"%d" % number, kind, {})], subject=subject, annotations={"n": str(number)}
        ).put(server.store, "app")
    url = f"/v2/app/referrers/{digest}"
    whole = client.get(url).json()["manifests"]
    assert sorted(entry["annotations"]["n"] for entry in whole) == ["0", "1", "2"]
    some = client.get(url, params={"artifactType": "a/x"})
    assert some.headers["oci-filters-applied"] == "artifactType"
    assert {entry["artifactType"] for entry in some.json()["manifests"]} == {"a/x"}
    server.page_size = 2
    first = client.get(url)
    rest = client.get(first.links["next"]["url"])
    assert first.json()["manifests"] + rest.json()["manifests"] == whole
    assert "next" not in rest.links


def test_referrers_are_those_that_are_there_now(tmp_path: Path) -> None:
    with RegistryServer(tmp_path) as server:
        digest = image_of([]).put(server.store, "app")
        subject = subject_of(server.store, "app", digest)
        kept, deleted = (
            artifact_of(kind, [(b"1", kind, {})], subject=subject).put(server.store, "app")
            for kind in ("a/x", "a/y")
        )
        repository = server.store.repository("app")
        assert [found for found, _ in repository.referrers(digest)] == sorted([kept, deleted])
        assert repository.delete_manifest(str(deleted))
        repository.put_manifest(b"{}", "a/z", digest=deleted)  # says nothing about a subject
    with RegistryServer(tmp_path) as again, httpx.Client(base_url=again.url) as client:
        listed = client.get(f"/v2/app/referrers/{digest}").json()["manifests"]
        assert [entry["digest"] for entry in listed] == [str(kept)]


def test_the_referrers_api_can_be_absent(server: RegistryServer, client: httpx.Client) -> None:
    digest = image_of([]).put(server.store, "app")
    assert client.get(f"/v2/app/referrers/{digest}").json()["manifests"] == []
    server.referrers = False
    assert client.get(f"/v2/app/referrers/{digest}").status_code == 404


def test_a_subject_is_acknowledged_only_by_those_who_list_it(
    server: RegistryServer, client: httpx.Client
) -> None:
    server.check_pushes = False
    digest = image_of([]).put(server.store, "app")
    artifact = artifact_of("a/x", [], subject=subject_of(server.store, "app", digest))
    put = client.put(f"/v2/app/manifests/{artifact.digest}", content=artifact.manifest)
    assert put.headers["oci-subject"] == str(digest)
    server.referrers = False
    put = client.put(f"/v2/app/manifests/{artifact.digest}", content=artifact.manifest)
    assert "oci-subject" not in put.headers


def test_what_is_on_disk_can_be_served_again(tmp_path: Path) -> None:
    image = image_of([layer_of([Member("a", b"1")])])
    with RegistryServer(tmp_path) as server:
        image.put(server.store, "team/app", "1.0")
    with RegistryServer(tmp_path) as again:
        got = httpx.get(f"{again.url}/v2/team/app/manifests/1.0")
        assert got.content == image.manifest
        layer = json.loads(got.content)["layers"][0]["digest"]
        assert httpx.get(f"{again.url}/v2/team/app/blobs/{layer}").content == image.blobs[1]


def test_basic_credentials_are_demanded() -> None:
    with RegistryServer(auth=BasicAuth("user", "c4nary-pass")) as server:
        refused = httpx.get(f"{server.url}/v2/")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == 'Basic realm="registry"'
        assert httpx.get(f"{server.url}/v2/", auth=("user", "wrong")).status_code == 401
        assert httpx.get(f"{server.url}/v2/", auth=("user", "c4nary-pass")).status_code == 200


def test_bearer_tokens_are_limited_in_scope_and_time() -> None:
    now = [0.0]
    auth = BearerAuth("user", "c4nary-pass", lifetime=60, clock=lambda: now[0])
    with RegistryServer(auth=auth) as server:
        server.store.put_blob("app", b"x")
        url = f"{server.url}/v2/app/tags/list"
        challenge = httpx.get(url).headers["www-authenticate"]
        assert f'realm="{server.url}/token"' in challenge
        assert 'scope="repository:app:pull"' in challenge

        def ask(scope: str) -> str:
            answer = httpx.get(
                f"{server.url}/token", params={"scope": scope}, auth=("user", "c4nary-pass")
            )
            assert answer.json()["expires_in"] == 60
            return f"Bearer {answer.json()['token']}"

        assert httpx.get(f"{server.url}/token").status_code == 401
        right = {"Authorization": ask("repository:app:pull")}
        assert httpx.get(url, headers=right).status_code == 200
        assert httpx.post(f"{server.url}/v2/app/blobs/uploads/", headers=right).status_code == 401
        wrong = {"Authorization": ask("repository:other:pull,push")}
        assert httpx.get(url, headers=wrong).status_code == 401
        now[0] = 61
        assert httpx.get(url, headers=right).status_code == 401


def test_anybody_may_pull_with_an_anonymous_token() -> None:
    with RegistryServer(auth=BearerAuth()) as server:
        server.store.put_blob("app", b"x")
        scope = {"scope": "repository:app:pull,push"}
        token = httpx.get(f"{server.url}/token", params=scope).json()["token"]
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{server.url}/v2/app/tags/list", headers=headers).status_code == 200
        assert httpx.post(f"{server.url}/v2/app/blobs/uploads/", headers=headers).status_code == 401


def test_serves_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    data = bytes(300_000)
    with RegistryServer(tmp_path, tls=context) as server:
        digest = server.store.put_blob("app", data)
        answer = httpx.get(f"{server.url}/v2/app/blobs/{digest}", verify=trusted)
        assert answer.content == data
        assert server.url.startswith("https://")


def test_the_log_is_exact(server: RegistryServer, client: httpx.Client) -> None:
    digest = server.store.put_blob("app", b"x" * 100_000)
    client.get(f"/v2/app/blobs/{digest}")
    client.head(f"/v2/app/blobs/{digest}")
    client.get("/v2/app/manifests/nope?a=b")
    log = server.log.settled()
    assert [(r.method, r.status, r.bytes) for r in log][:2] == [
        ("GET", 200, 100_000),
        ("HEAD", 200, 0),
    ]
    assert [r.query for r in log] == ["", "", "a=b"]
    assert all(r.end is not None and r.end >= r.start for r in log)
    assert log.blob_downloads() == {str(digest): 1}
    assert (log.peak, log.concurrency()) == (1, 1)


def test_the_log_knows_how_many_were_served_at_once(server: RegistryServer) -> None:
    from conforma.serve.faults import Fault, Gate

    gate = Gate()
    server.faults.add(Fault(hang=gate), times=3)
    threads = [threading.Thread(target=httpx.get, args=(f"{server.url}/v2/",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    server.log.wait_for(3)
    gate.release()
    for thread in threads:
        thread.join()
    assert server.log.settled().peak == 3
    assert server.log.concurrency("GET", "/v2/") == 3
    assert server.log.concurrency("GET", "/blobs/") == 0


def test_two_uploads_of_one_digest_can_be_refused() -> None:
    digest = Digest.of(b"ab")
    with RegistryServer(exclusive_uploads=True) as server:
        slow = http.client.HTTPConnection(urlsplit(server.url).netloc)
        slow.putrequest("POST", f"/v2/app/blobs/uploads/?digest={digest}")
        slow.putheader("Content-Length", "2")
        slow.endheaders()
        slow.send(b"a")
        server.log.wait_for(1)
        url = f"{server.url}/v2/app/blobs/uploads/?digest={digest}"
        # The first upload holds the digest once its head was handled, which no
        # answer reports; until then the second is taken like any other.
        while httpx.post(url, content=b"ab").status_code == 201:
            pass
        slow.send(b"b")
        assert slow.getresponse().status == 201
        slow.close()
        assert httpx.post(url, content=b"ab").status_code == 201


def test_closing_cuts_connections(server: RegistryServer, client: httpx.Client) -> None:
    client.get("/v2/")
    server.close()
    with pytest.raises(httpx.HTTPError):
        client.get("/v2/")


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: 1x\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"Accept: a\r\n" * 1000,
    ],
    ids=["negative length", "no length", "negative chunk", "endless headers"],
)
def test_a_request_without_measure_ends_the_connection(server: RegistryServer, rest: bytes) -> None:
    host, _, port = server.host.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: h\r\n" + rest)
        # Still open on our side, so only the server can be the one to end it.
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(4096):
                pass
