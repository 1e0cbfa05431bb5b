"""Faults 30 to 60 of the project's list (ecosystem-and-reliability.md, 4.3) that no other test is
about: redirects, TLS, proxies, names, logins, limits.

Registries that are not on this machine are played by a proxy.
"""

from __future__ import annotations

import gzip
import logging
import os
import pty
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from conforma.cancellation import Cancellation
from conforma.errors import (
    AccessDenied,
    BadArchive,
    BadResponse,
    ConformaError,
    RateLimited,
    RegistryUnreachable,
)
from conforma.oci import media_types, wire
from conforma.oci.credentials import Keychain
from conforma.oci.inflate import inflated
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry
from conforma.oci.tar import TarWalker
from conforma.serve.auth import BearerAuth
from conforma.serve.faults import Fault
from conforma.serve.registry import RegistryServer
from tests.oci.scenery import ClientFactory, login, put_image, stored
from tests.oci.test_transport import scripted

AWAY = Reference.parse("r.invalid/app:v1")
LIMITED = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}'


@pytest.fixture
def plain() -> Iterator[RegistryServer]:
    with RegistryServer() as running:
        yield running


@pytest.fixture
def away(client: ClientFactory, tmp_path: Path) -> Callable[[str], Registry]:
    """A client of registries elsewhere, for which the proxy at this address answers."""

    def make(proxy: str) -> Registry:
        names = frozenset({"r.invalid", "10.0.0.9:5000"})
        environment = {"HOME": str(tmp_path), "HTTP_PROXY": proxy, "HTTPS_PROXY": proxy}
        return client(environment=environment, insecure=names).registry

    return make


def answer(status: str, *headers: str, body: bytes = b"") -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    framing = f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return f"HTTP/1.1 {status}\r\n{lines}{framing}".encode() + body


def context_of(authority: trustme.CA, **certificate: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", **certificate).configure_cert(context)
    return context


@pytest.fixture
def believing(client: ClientFactory, tmp_path: Path) -> Callable[..., Registry]:
    """A client of an encrypted registry that believes this authority."""

    def make(authority: trustme.CA, server: RegistryServer) -> Registry:
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        environment = {"HOME": str(tmp_path), "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
        return client(environment=environment, encrypted=frozenset({server.host})).registry

    return make


# Redirects


def test_fault_32_a_redirect_does_not_take_tls_away(
    plain: RegistryServer, believing: Callable[..., Registry]
) -> None:
    authority = trustme.CA()
    with RegistryServer(tls=context_of(authority)) as server:
        reference = put_image(server)
        described = stored(server, "app", b"x")
        stored(plain, "app", b"x")
        target = f"{plain.url}/v2/app/blobs/{described.digest}"
        server.faults.add(Fault(redirect=target), path="/blobs/", times=None)
        with pytest.raises(BadResponse, match="refusing to follow a redirect without TLS"):
            believing(authority, server).read_blob(reference, described)
    assert len(plain.log) == 0


def test_fault_33_no_cookie_is_kept(plain: RegistryServer, client: ClientFactory) -> None:
    with RegistryServer() as storage:
        reference = put_image(plain)
        described = stored(plain, "app", b"x")
        stored(storage, "app", b"x")
        baked = Fault(headers={"Set-Cookie": "session=1; Path=/"})
        target = f"{storage.url}/v2/app/blobs/{described.digest}"
        plain.faults.add(Fault(redirect=target, headers=baked.headers), path="/blobs/sha256:")
        for server in (plain, storage):
            server.faults.add(baked, times=None)
        registry = client().registry
        assert registry.read_blob(reference, described) == b"x"
        registry.manifest(reference)
        registry.push_blob(reference, b"y")
        registry.push_blob(reference, b"z")
        seen = [*plain.log.settled(), *storage.log.settled()]
    assert {request.method for request in seen} >= {"GET", "POST"}
    assert [request.header("cookie") for request in seen] == [None] * len(seen)


INSIDE = [
    "169.254.169.254",
    "127.0.0.1:1",
    "localhost.",
    "0.0.0.0",
    "127.1",
    "0x7f.1",
    "2130706433",
    "[::ffff:127.0.0.1]",
    "[::ffff:169.254.169.254]",
    "[fe80::1]",
    "[::1]",
]


@pytest.mark.parametrize("host", INSIDE)
def test_fault_34_a_registry_elsewhere_does_not_send_us_home(
    away: Callable[[str], Registry], host: str
) -> None:
    moved = answer("307 Temporary Redirect", f"Location: http://{host}/latest/meta-data")
    with (
        scripted(moved) as (proxy, requests),
        pytest.raises(BadResponse, match="to an address of this machine or its network equipment"),
    ):
        away(proxy).manifest(AWAY)
    assert len(requests) == 1


# TLS, proxies and names


def test_fault_36_a_certificate_that_has_expired_is_refused(
    believing: Callable[..., Registry],
) -> None:
    authority = trustme.CA()
    past = datetime(2020, 1, 1, tzinfo=UTC)
    context = context_of(authority, not_before=datetime(2019, 1, 1, tzinfo=UTC), not_after=past)
    with RegistryServer(tls=context) as server:
        reference = put_image(server)
        with pytest.raises(
            RegistryUnreachable, match=r"TLS: certificate of 127\.0\.0\.1 not accepted: .*expired"
        ):
            believing(authority, server).manifest(reference)
        assert len(server.log) == 0


def test_fault_36_nothing_older_than_tls_1_2_is_spoken(believing: Callable[..., Registry]) -> None:
    authority = trustme.CA()
    context = context_of(authority)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with RegistryServer(tls=context) as server:
        reference = put_image(server)
        with pytest.raises(RegistryUnreachable, match="TLS: ") as caught:
            believing(authority, server).manifest(reference)
        assert len(server.log) == 0
    assert "PROTOCOL" in caught.value.message or "VERSION" in caught.value.message


@pytest.mark.parametrize("reference", ["r.invalid/app:v1", "encrypted.invalid/app:v1"])
def test_fault_37_a_proxy_that_wants_a_login_is_named(
    away: Callable[[str], Registry], reference: str
) -> None:
    refusal = answer("407 Proxy Authentication Required", 'Proxy-Authenticate: Basic realm="x"')
    with (
        scripted(refusal) as (proxy, requests),
        pytest.raises(RegistryUnreachable, match="407 Proxy Authentication Required") as caught,
    ):
        away(proxy).manifest(Reference.parse(reference))
    assert "HTTPS_PROXY" in str(caught.value.hint)
    assert len(requests) == 1


def test_fault_38_a_name_server_in_trouble_is_asked_again(
    plain: RegistryServer, client: ClientFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = put_image(plain)
    troubles = [socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")]
    resolve = socket.getaddrinfo

    def troubled(*arguments: Any, **options: Any) -> Any:
        if troubles:
            raise troubles.pop()
        return resolve(*arguments, **options)

    made = client()
    monkeypatch.setattr(socket, "getaddrinfo", troubled)
    assert made.registry.head(reference).size > 0
    assert [seen.attempt for seen in made.seen] == [1, 2]
    assert "Temporary failure" in made.seen[0].problem


def test_fault_38_an_address_that_swallows_everything_is_left_for_the_next(
    plain: RegistryServer, client: ClientFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = put_image(plain)
    monkeypatch.setattr(wire, "_NEXT_ADDRESS_AFTER", 0.05)
    hole = socket.socket()
    hole.bind(("127.0.0.1", 0))
    hole.listen(0)
    crowd = [socket.socket() for _ in range(4)]  # no further connection is taken
    for waiting in crowd:
        waiting.setblocking(False)
        waiting.connect_ex(hole.getsockname())
    resolve = socket.getaddrinfo

    def both(*arguments: Any, **options: Any) -> Any:
        (found,) = resolve(*arguments, **options)
        return [(*found[:4], hole.getsockname()), found]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    made = client()
    assert made.registry.head(reference).size > 0
    assert [seen.attempt for seen in made.seen] == [1]
    for opened in (hole, *crowd):
        opened.close()


# Logins


@pytest.mark.parametrize("host", [*INSIDE, "10.0.0.5", "192.168.1.1", "[::ffff:10.0.0.5]"])
def test_fault_40_a_registry_elsewhere_names_no_token_service_in_our_network(
    away: Callable[[str], Registry], host: str
) -> None:
    challenge = f'WWW-Authenticate: Bearer realm="http://{host}/token",service="s"'
    with (
        scripted(answer("401 Unauthorized", challenge)) as (proxy, requests),
        pytest.raises(AccessDenied, match="token service we do not talk to"),
    ):
        away(proxy).manifest(AWAY)
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("registry", "host"), [("10.0.0.9:5000", "10.0.0.5"), ("r.invalid", "auth.invalid")]
)
def test_fault_40_a_token_service_may_be_public_or_where_the_registry_is(
    away: Callable[[str], Registry], registry: str, host: str
) -> None:
    challenge = f'WWW-Authenticate: Bearer realm="http://{host}/token",service="s"'
    refusal, token = answer("401 Unauthorized", challenge), answer("200 OK", body=b'{"token":"t"}')
    tags = answer("200 OK", body=b'{"name":"app","tags":["v1"]}')
    with scripted(refusal, token, tags) as (proxy, requests):
        assert away(proxy).tags(Reference.parse(f"{registry}/app")) == ("v1",)
    assert requests[1].startswith(f"GET http://{host}/token?service=s&scope=".encode())


def test_fault_41_credentials_go_to_no_token_service_without_tls(
    plain: RegistryServer, believing: Callable[..., Registry]
) -> None:
    authority = trustme.CA()
    with RegistryServer(tls=context_of(authority)) as server:
        reference = put_image(server)
        challenge = {"WWW-Authenticate": f'Bearer realm="{plain.url}/token",service="s"'}
        server.faults.add(Fault(status=401, headers=challenge), times=None)
        with pytest.raises(AccessDenied, match="token service we do not talk to"):
            believing(authority, server).manifest(reference)
    assert len(plain.log) == 0


def test_fault_44_a_token_that_dies_during_a_download_costs_no_second_start(
    client: ClientFactory,
) -> None:
    auth = BearerAuth()
    with RegistryServer(auth=auth) as server:
        reference = put_image(server)
        described = stored(server, "app", b"x" * 300_000)
        server.faults.add(Fault(truncate_at=100_000), path="/blobs/", skip=1)
        registry = client().registry
        with registry.open_blob(reference, described) as chunks:
            received = next(chunks)
            auth.revoke_all()
            received += b"".join(chunks)
        asked = [
            (request.status, request.header("range"))
            for request in server.log.settled().matching(path="/blobs/")
        ]
    assert received == b"x" * 300_000
    again = "bytes=100000-"
    assert asked == [(401, None), (200, None), (401, again), (206, again)]
    assert registry.stats.tokens == 2


def test_fault_45_a_helper_has_no_terminal_and_its_input_ends(tmp_path: Path) -> None:
    script = tmp_path / "docker-credential-ask"
    script.write_text(
        "#!/bin/sh\nfound=none\n(exec </dev/tty) 2>/dev/null && found=terminal\ncat >/dev/null\n"
        'echo "{\\"Username\\":\\"$found\\",\\"Secret\\":\\"s\\"}"\n'
    )
    script.chmod(0o755)
    program = (
        "import os, sys; from conforma.cancellation import Cancellation;"
        "from conforma.oci.helpers import ask_helper;"
        "assert os.isatty(os.open('/dev/tty', os.O_RDWR));"
        "print(ask_helper('ask', 'r.example', os.environ, Cancellation()))"
    )
    # The program itself has a terminal: what it starts must not inherit it.
    starter = f"import pty, sys; sys.exit(pty.spawn([sys.executable, '-c', {program!r}]) >> 8)"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    outside, inside = pty.openpty()
    with os.fdopen(outside), os.fdopen(inside) as terminal:
        done = subprocess.run(
            [sys.executable, "-c", starter],
            env=environment,
            stdin=terminal,
            capture_output=True,
            text=True,
            check=True,
        )
    assert "('none', 's')" in done.stdout


@pytest.mark.parametrize(("mode", "warnings"), [(0o644, 1), (0o640, 0), (0o600, 0)])
def test_fault_48_credentials_that_everybody_can_read_are_warned_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, mode: int, warnings: int
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as text:
        home = Path(text)
        home.chmod(0o755)
        environment = login(home, "r.example")
        file = home / ".docker/config.json"
        (home / ".docker").chmod(0o755)
        file.chmod(mode)
        with caplog.at_level(logging.WARNING):
            found = Keychain(environment, Cancellation()).find(Reference.parse("r.example/app"))
        assert found is not None
        expected = f"{file}: everybody on this machine can read the credentials in it"
        assert [expected in message for message in caplog.messages] == [True] * warnings
        caplog.clear()
        (home / ".docker").chmod(0o700)  # nobody else gets there
        Keychain(environment, Cancellation()).find(Reference.parse("r.example/app"))
        assert caplog.messages == []


# Limits


def test_fault_52_a_storm_of_refusals_costs_each_request_once(
    plain: RegistryServer, client: ClientFactory
) -> None:
    reference = put_image(plain)
    plain.faults.add(Fault(status=429), times=None)
    made = client(throttled=0.0)
    references = [reference.with_tag(f"t{number}") for number in range(200)]

    def ask(wanted: Reference) -> ConformaError | None:
        try:
            made.registry.head(wanted)
        except ConformaError as error:
            return error
        return None

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(ask, references))
    assert {type(outcome) for outcome in outcomes} == {RateLimited}
    assert len(plain.log.settled()) <= 220


def test_fault_53_a_refusal_that_calls_itself_a_success_is_one(
    plain: RegistryServer, client: ClientFactory
) -> None:
    reference = put_image(plain)
    kind = {"Content-Type": "application/json"}
    plain.faults.add(Fault(status=200, headers=kind, body=LIMITED))
    registry = client().registry
    assert registry.manifest(reference).media_type == media_types.OCI_MANIFEST
    assert len(plain.log.settled()) == 2
    plain.faults.add(Fault(status=200, headers=kind, body=LIMITED), times=None)
    with pytest.raises(RateLimited, match="TOOMANYREQUESTS: slow down"):
        registry.referrers(registry.resolve(reference))


# Archives


def test_fault_58_only_one_layer_of_compression_is_taken_off() -> None:
    inner = gzip.compress(bytes(10_240))
    once = b"".join(inflated([gzip.compress(inner)], media_types.OCI_LAYER_GZIP))
    assert once == inner
    with pytest.raises(BadArchive):
        walker = TarWalker(lambda _entry: None)
        walker.feed(once.ljust(1024, b"\0"))
        walker.finish()


def test_fault_59_several_members_are_one_stream_and_garbage_is_none() -> None:
    members = gzip.compress(b"one") + gzip.compress(b"") + gzip.compress(b"two")

    def plain_bytes(data: bytes) -> bytes:
        pieces = [data[at : at + 7] for at in range(0, len(data), 7)]
        return b"".join(inflated(pieces, media_types.OCI_LAYER_GZIP, what="layer x"))

    assert plain_bytes(members) == b"onetwo"
    assert plain_bytes(members + bytes(512)) == b"onetwo"  # tape blocks are filled up
    with pytest.raises(BadArchive, match="layer x: broken gzip stream"):
        plain_bytes(members + b"garbage" * 9)
    with pytest.raises(BadArchive, match="layer x: gzip stream ends early"):
        plain_bytes(members[:-3])
