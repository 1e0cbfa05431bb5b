"""The HTTP seam against servers that are not registries: odd, broken or encrypted ones."""

from __future__ import annotations

import platform
import resource
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import trustme

from conforma.errors import InputError, RegistryUnreachable
from conforma.oci import media_types
from conforma.oci.options import Patience
from conforma.oci.proxies import Proxies
from conforma.oci.reference import Reference
from conforma.oci.relay import Relay
from conforma.oci.target import origin_of, server_of
from conforma.oci.tls import client_context
from conforma.oci.transport import Transport
from conforma.oci.wire import Wire
from conforma.serve.images import image_of
from conforma.serve.registry import RegistryServer
from tests.oci.scenery import ClientFactory, put_image


@contextmanager
def scripted(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives each request on one connection the next answer, then closes."""
    requests: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        left = list(answers)
        while left:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                while left:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        piece = connection.recv(65536)
                        if not piece:
                            break
                        head += piece
                    if not head:
                        break
                    requests.append(head)
                    connection.sendall(left.pop(0))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
    finally:
        listener.close()
        thread.join(5)


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    transport = Transport(
        patience=Patience(connect=20, head=20, read=20),
        most={"small": 4, "bulk": 4},
        tls=ssl.create_default_context,
        proxies=Proxies(),
    )
    with httpx.Client(transport=Relay(transport), trust_env=False) as client:
        yield client


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx", b"x"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n",
            b"abc",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
def test_bodies_of_every_kind_arrive(http: httpx.Client, answer: bytes, body: bytes) -> None:
    with scripted(answer) as (url, _):
        assert http.get(url).content == body


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n",
    ],
)
def test_whatever_is_wrong_comes_as_an_error_of_httpx(http: httpx.Client, answer: bytes) -> None:
    with scripted(answer) as (url, _), pytest.raises(httpx.TransportError):
        http.get(url)


def test_what_arrived_before_a_break_is_delivered(http: httpx.Client) -> None:
    received = b""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 70_000
    with (
        scripted(answer) as (url, _),
        http.stream("GET", url) as response,
        pytest.raises(httpx.RemoteProtocolError, match="ended 130000 bytes early"),
    ):
        for chunk in response.iter_raw():
            received += chunk
    assert received == b"x" * 70_000


def test_a_connection_with_surplus_bytes_serves_no_second_request(http: httpx.Client) -> None:
    poisoned = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n\r\nevil"
    good = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"
    with scripted(poisoned, good) as (url, _):
        assert http.get(url).content == b"abc"
        assert http.get(url).content == b"good"


def test_a_connection_the_server_closed_is_not_used_again(http: httpx.Client) -> None:
    first = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"
    last = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n2"
    with scripted(first, last) as (url, requests):
        assert [http.get(url).content for _ in range(2)] == [b"1", b"2"]
    assert len(requests) == 2


def test_a_refusal_before_the_whole_request_was_sent_is_heard(http: httpx.Client) -> None:
    answer = b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    with scripted(answer) as (url, _):
        assert http.put(url, content=bytes(20_000_000)).status_code == 413


def test_bodies_may_be_sent_in_pieces(http: httpx.Client) -> None:
    with scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (url, requests):
        http.post(url, content=iter([b"ab", b"c"]))
    assert b"Transfer-Encoding: chunked" in requests[0]


def test_a_head_that_drips_is_given_up() -> None:
    transport = Transport(
        patience=Patience(head=0.2, read=5),
        most={"small": 1, "bulk": 1},
        tls=ssl.create_default_context,
        proxies=Proxies(),
    )
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def drip() -> None:
        connection, _ = listener.accept()
        with connection:
            while not stop.wait(0.01):
                try:
                    connection.sendall(b"H")
                except OSError:
                    return

    thread = threading.Thread(target=drip)
    thread.start()
    with (
        httpx.Client(transport=Relay(transport), trust_env=False) as client,
        pytest.raises(httpx.ReadTimeout, match=r"no complete answer within 0\.2 s|timed out"),
    ):
        client.get(f"http://127.0.0.1:{listener.getsockname()[1]}")
    stop.set()
    thread.join(5)
    listener.close()


def test_requests_for_others_go_through_the_proxy(client: ClientFactory, tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n" + b'{"tags": ["a"]}'[:13]
    with scripted(answer) as (url, requests):
        env = {"HOME": str(tmp_path), "HTTP_PROXY": url}
        registry = client(environment=env, insecure=frozenset({"r.invalid"})).registry
        with pytest.raises(Exception, match="list of tags"):
            registry.tags(Reference.parse("r.invalid/app"))
    assert requests[0].startswith(b"GET http://r.invalid/v2/app/tags/list?n=1000 HTTP/1.1")


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def encrypted(authority: trustme.CA) -> Iterator[Callable[[str], RegistryServer]]:
    servers: list[RegistryServer] = []

    def make(name: str) -> RegistryServer:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        servers.append(RegistryServer(tls=context))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_a_private_authority_is_believed_when_it_is_named(
    client: ClientFactory,
    encrypted: Callable[[str], RegistryServer],
    authority: trustme.CA,
    tmp_path: Path,
    variable: str,
) -> None:
    server = encrypted("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    place = tmp_path / "ca.pem"
    if variable == "SSL_CERT_DIR":
        place = tmp_path / "certs"
        place.mkdir()
        certificate = ssl.PEM_cert_to_DER_cert((tmp_path / "ca.pem").read_text())
        (place / f"{subject_hash(certificate)}.0").write_bytes((tmp_path / "ca.pem").read_bytes())
    env = {"HOME": str(tmp_path), variable: str(place)}
    registry = client(environment=env, encrypted=frozenset({server.host})).registry
    assert registry.head(put_image(server)).size > 0


def subject_hash(certificate: bytes) -> str:
    """The name under which OpenSSL looks for a certificate in a directory."""
    import subprocess

    command = ["openssl", "x509", "-inform", "der", "-noout", "-subject_hash"]
    return (
        subprocess.run(command, input=certificate, capture_output=True, check=True)
        .stdout.decode()
        .strip()
    )


def test_an_unknown_authority_is_named_with_a_hint(
    client: ClientFactory, encrypted: Callable[[str], RegistryServer]
) -> None:
    server = encrypted("127.0.0.1")
    made = client(encrypted=frozenset({server.host}))
    with pytest.raises(RegistryUnreachable, match="TLS: certificate of 127") as caught:
        made.registry.head(put_image(server))
    assert "SSL_CERT_FILE" in str(caught.value.hint)
    assert len(made.seen) == 1


def test_a_certificate_for_another_host_is_refused(
    client: ClientFactory,
    encrypted: Callable[[str], RegistryServer],
    authority: trustme.CA,
    tmp_path: Path,
) -> None:
    server = encrypted("other.example")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    env = {"HOME": str(tmp_path), "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
    with pytest.raises(RegistryUnreachable, match="IP address mismatch"):
        client(environment=env, encrypted=frozenset({server.host})).registry.head(put_image(server))


def test_a_registry_without_tls_is_recognised(
    client: ClientFactory, server: RegistryServer
) -> None:
    made = client(encrypted=frozenset({server.host}))
    with pytest.raises(RegistryUnreachable, match="TLS: ") as caught:
        made.registry.head(put_image(server))
    assert "insecure" in str(caught.value.hint)


def test_an_authority_that_is_no_file_stops_the_run() -> None:
    with pytest.raises(InputError, match="SSL_CERT_FILE names /nonexistent, which is not a file"):
        client_context({"SSL_CERT_FILE": "/nonexistent"})
    with pytest.raises(InputError, match="SSL_CERT_FILE="):
        client_context({"SSL_CERT_FILE": __file__})


def test_the_machines_authorities_are_the_default() -> None:
    context = client_context({})
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what glibc does with memory")
def test_the_pieces_of_a_body_take_turns_in_the_same_memory() -> None:
    # In a process of its own: what others have freed before us changes the count.
    program = """
import resource, socket
from conforma.oci.options import Patience
from conforma.oci.wire import Wire
here, there = socket.socketpair()
wire = Wire(here, Patience())
piece = bytes(100_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(400):
    there.sendall(piece)
    left = len(piece)
    while left:
        left -= len(wire.receive(1 << 30))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    pages = 400 * 100_000 // resource.getpagesize()
    assert int(done.stdout) < pages / 4


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "registry",
    [
        *("127.0.0.1", "127.0.0.1:5000", "127.0.0.1:44705", "localhost:443", "localhost:80"),
        *("ghcr.io", "registry.example.com:8443", "a-b.x1", "10.0.0.1:5000", "[::1]:5000"),
        *("bücher.example", "UPPER.example", "x.example:65536", "x.example:0080", "under_score"),
        *("xn--bcher-kva.example", "1.example", "host-.example", "-host"),
    ],
)
def test_plain_names_of_registries_mean_what_they_mean_in_urls(scheme: str, registry: str) -> None:
    url = httpx.URL(f"{scheme}://{registry}/")
    assert server_of(scheme, registry) == (origin_of(url), url.netloc.decode("ascii"))


def test_a_registry_on_this_machine_is_asked_without_httpx_ssl_and_international_names() -> None:
    program = (
        "import sys; from conforma.cancellation import Cancellation;"
        "from conforma.oci.reference import Reference;"
        "from conforma.oci.registry import Registry, RegistryOptions;"
        "registry = Registry(RegistryOptions(environment={}), Cancellation());"
        "print(registry.manifest(Reference.parse(sys.argv[1])).media_type);"
        "print(len(registry.referrers(Reference.parse(sys.argv[1]))));"
        "assert not {'httpx', 'ssl', 'encodings.idna'} & set(sys.modules)"
    )
    with RegistryServer() as server:
        digest = image_of([]).put(server.store, "app")
        reference = f"{server.host}/app@{digest}"
        found = subprocess.run(
            [sys.executable, "-c", program, reference], capture_output=True, text=True, check=True
        )
    assert found.stdout.split() == [media_types.OCI_MANIFEST, "0"]


def test_a_server_that_takes_or_sends_nothing_is_given_up() -> None:
    here, there = socket.socketpair()
    with here, there:
        wire = Wire(here, Patience(read=0.05, head=30))
        with pytest.raises(TimeoutError, match=r"nothing was taken for 0\.05 s"):
            wire.send(bytes(10_000_000))
        wire.await_head()
        with pytest.raises(TimeoutError, match=r"nothing came for 0\.05 s"):
            wire.receive(1000)
        wire.head_is_complete()
        there.sendall(b"late")
        assert wire.receive(1000) == b"late"
