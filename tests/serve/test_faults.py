"""Every fault reaches the client as what it says."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import pytest

from conforma.oci.digest import Digest
from conforma.serve.faults import Fault, Gate
from conforma.serve.registry import RegistryServer

DATA = bytes(range(256)) * 1000


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as server:
        server.store.put_blob("app", DATA)
        yield server


@pytest.fixture
def client(server: RegistryServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=10) as client:
        yield client


BLOB = f"/v2/app/blobs/{Digest.of(DATA)}"


def test_a_status_for_the_nth_match(server: RegistryServer, client: httpx.Client) -> None:
    rule = server.faults.add(Fault(status=503), method="GET", path="/blobs/", skip=1, times=2)
    assert client.head(BLOB).status_code == 200
    assert [client.get(BLOB).status_code for _ in range(4)] == [200, 503, 503, 200]
    assert rule.hits == 2


def test_rules_apply_in_their_order(server: RegistryServer, client: httpx.Client) -> None:
    server.faults.add(Fault(status=500))
    server.faults.add(Fault(status=502), times=None)
    assert [client.get(BLOB).status_code for _ in range(3)] == [500, 502, 502]
    server.faults.clear()
    assert client.get(BLOB).status_code == 200


def test_headers_and_body_of_a_refusal(server: RegistryServer, client: httpx.Client) -> None:
    server.faults.add(Fault(status=429, headers={"Retry-After": "7"}, body=b"slow down"))
    answer = client.get(BLOB)
    assert (answer.headers["retry-after"], answer.content) == ("7", b"slow down")


def test_a_challenge(server: RegistryServer, client: httpx.Client) -> None:
    server.faults.add(Fault(status=401, headers={"WWW-Authenticate": 'Bearer realm="x"'}))
    assert client.get(BLOB).headers["www-authenticate"] == 'Bearer realm="x"'


def test_a_redirect_to_another_host(server: RegistryServer, client: httpx.Client) -> None:
    with RegistryServer() as other:
        other.store.put_blob("app", DATA)
        server.faults.add(Fault(redirect=other.url + BLOB))
        assert client.get(BLOB, follow_redirects=True).content == DATA
        assert other.log.settled().blob_downloads().total() == 1


@pytest.mark.parametrize("length", [0, 1, 1000, len(DATA) - 1])
def test_a_truncated_body(server: RegistryServer, client: httpx.Client, length: int) -> None:
    server.faults.add(Fault(truncate_at=length))
    received = bytearray()
    with pytest.raises(httpx.RemoteProtocolError), client.stream("GET", BLOB) as answer:
        assert answer.headers["content-length"] == str(len(DATA))
        for piece in answer.iter_raw():
            received += piece
    assert bytes(received) == DATA[:length]
    assert server.log.settled().matching(path="blobs")[0].bytes == length


def test_a_reset(server: RegistryServer, client: httpx.Client) -> None:
    server.faults.add(Fault(reset_at=1000))
    with pytest.raises(httpx.ReadError):
        client.get(BLOB)


def test_stopping_before_a_byte_until_told(server: RegistryServer, client: httpx.Client) -> None:
    gate = Gate()
    server.faults.add(Fault(hold_at=1000, gate=gate))
    with client.stream("GET", BLOB) as answer:
        pieces = answer.iter_raw()
        received = bytearray()
        while len(received) < 1000:
            received += next(pieces)
        gate.wait_reached()
        assert bytes(received) == DATA[:1000]
        gate.release()
        for piece in pieces:
            received += piece
    assert bytes(received) == DATA


def test_hanging_until_released(server: RegistryServer, client: httpx.Client) -> None:
    gate = Gate()
    server.faults.add(Fault(hang=gate))
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(client.get(BLOB).status_code))
    thread.start()
    gate.wait_reached()
    assert answers == []
    gate.release()
    thread.join(10)
    assert answers == [200]


def test_extra_bytes_count_in_the_length(server: RegistryServer, client: httpx.Client) -> None:
    server.faults.add(Fault(extra=b"more"))
    answer = client.get(BLOB)
    assert answer.content == DATA + b"more"
    assert answer.headers["content-length"] == str(len(DATA) + 4)


@pytest.mark.parametrize("place", [0, 65535, 65536, len(DATA) - 1])
def test_a_flipped_bit(server: RegistryServer, client: httpx.Client, place: int) -> None:
    server.faults.add(Fault(flip_at=place))
    content = client.get(BLOB).content
    assert [i for i in range(len(DATA)) if content[i] != DATA[i]] == [place]


def test_a_wrong_length(server: RegistryServer, client: httpx.Client) -> None:
    server.faults.add(Fault(content_length=len(DATA) + 10))
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(BLOB)


def test_an_ignored_range(server: RegistryServer, client: httpx.Client) -> None:
    server.faults.add(Fault(ignore_range=True))
    answer = client.get(BLOB, headers={"Range": "bytes=5-"})
    assert (answer.status_code, answer.content) == (200, DATA)


def test_a_wrong_content_range(server: RegistryServer, client: httpx.Client) -> None:
    server.faults.add(Fault(headers={"Content-Range": "bytes 0-4/5"}))
    answer = client.get(BLOB, headers={"Range": "bytes=5-9"})
    assert answer.headers["content-range"] == "bytes 0-4/5"


def test_a_missing_header(server: RegistryServer, client: httpx.Client) -> None:
    server.faults.add(Fault(headers={"docker-content-digest": None}))
    assert "docker-content-digest" not in client.get(BLOB).headers


def test_http_1_0(server: RegistryServer, client: httpx.Client) -> None:
    server.faults.add(Fault(http10=True))
    answer = client.get(BLOB)
    assert (answer.http_version, answer.content) == ("HTTP/1.0", DATA)
    assert "content-length" not in answer.headers


def test_chunks_and_chunks_without_an_end(server: RegistryServer, client: httpx.Client) -> None:
    server.faults.add(Fault(chunked=True))
    server.faults.add(Fault(endless=True))
    assert client.get(BLOB).content == DATA
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(BLOB)


def test_dripping(server: RegistryServer, client: httpx.Client) -> None:
    server.faults.add(Fault(drip=(100_000, 0.0)))
    assert client.get(BLOB).content == DATA


def test_a_lost_answer_to_a_request_that_took_effect(
    server: RegistryServer, client: httpx.Client
) -> None:
    digest = Digest.of(b"new")
    server.faults.add(Fault(status=502, apply=True), method="POST")
    url = f"/v2/app/blobs/uploads/?digest={digest}"
    assert client.post(url, content=b"new").status_code == 502
    assert client.get(f"/v2/app/blobs/{digest}").content == b"new"


def test_a_hard_rate_limit(server: RegistryServer, client: httpx.Client) -> None:
    server.faults.limit_rate(2, 0.0, retry_after="1")
    answers = [client.get(BLOB) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].headers["retry-after"] == "1"


def test_a_place_to_hold_at_needs_a_gate() -> None:
    with pytest.raises(ValueError, match="gate"):
        Fault(hold_at=3)
