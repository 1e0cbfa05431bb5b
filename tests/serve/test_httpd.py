"""The test and demo registry's own HTTP server: how patient it is, and with how many."""

from __future__ import annotations

import select
import socket
import ssl

import pytest
import trustme

from conforma.serve.bodies import MemoryBody
from conforma.serve.faults import Gate
from conforma.serve.httpd import HttpServer, Incoming, Response
from conforma.serve.limits import Limits
from conforma.serve.server import Server
from tests.oci.scenery import until
from tests.serve.test_server import everything

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def hello(incoming: Incoming) -> Response:
    return Response(200, {}, MemoryBody(b"hello" + incoming.body.read(100)))


def is_closed(connection: socket.socket, wait: float = 0.05) -> bool:
    """Whether the server has ended the connection; looks for so long."""
    if not select.select([connection], [], [], wait)[0]:
        return False
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


class Secured:
    """A server's context for TLS, and connections that trust it; or neither."""

    def __init__(self, *, encrypted: bool) -> None:
        self.tls: ssl.SSLContext | None = None
        if encrypted:
            authority = trustme.CA()
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(self.tls)
            self._trusting = ssl.create_default_context()
            authority.configure_trust(self._trusting)

    def connect(self, server: HttpServer | Server) -> socket.socket:
        plain = socket.create_connection(server.address, timeout=10)
        if self.tls is None:
            return plain
        return self._trusting.wrap_socket(
            plain, server_hostname="127.0.0.1", suppress_ragged_eofs=True
        )


@pytest.fixture(params=["plain", "encrypted"])
def secured(request: pytest.FixtureRequest) -> Secured:
    return Secured(encrypted=request.param == "encrypted")


@pytest.fixture(params=[HttpServer, Server])
def kind(request: pytest.FixtureRequest) -> type[HttpServer | Server]:
    """The same holds for the server of ``conforma serve``."""
    found: type[HttpServer | Server] = request.param
    return found


def test_a_head_that_drips_is_given_up(kind: type[HttpServer | Server], secured: Secured) -> None:
    server = kind(hello, tls=secured.tls, limits=Limits(head=0.3))
    try:
        with secured.connect(server) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\nX: ")
            for _ in range(200):
                if is_closed(slow):
                    break
                slow.send(b"y")  # each byte comes well within the time for one read
            else:
                pytest.fail("the server went on waiting")
    finally:
        server.close()


def test_a_head_that_never_ends_is_given_up(
    kind: type[HttpServer | Server], secured: Secured
) -> None:
    server = kind(hello, tls=secured.tls, limits=Limits(head=0.2))
    try:
        with secured.connect(server) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\nX: ")
            assert everything(slow) == b""
    finally:
        server.close()


def test_an_idle_connection_is_closed_after_its_answers(
    kind: type[HttpServer | Server], secured: Secured
) -> None:
    server = kind(hello, tls=secured.tls, limits=Limits(idle=0.2))
    try:
        with secured.connect(server) as idle:
            idle.sendall(REQUEST)
            assert everything(idle).endswith(b"hello")
    finally:
        server.close()


def test_closing_cuts_connections(kind: type[HttpServer | Server], secured: Secured) -> None:
    server = kind(hello, tls=secured.tls)
    with secured.connect(server) as idle:
        idle.sendall(REQUEST)
        while not idle.recv(1000).endswith(b"hello"):
            pass
        server.close()
        assert everything(idle) == b""


def test_a_body_that_stalls_is_given_up(secured: Secured) -> None:
    server = HttpServer(hello, tls=secured.tls, limits=Limits(stalled=0.2))
    try:
        with secured.connect(server) as stalled:
            stalled.sendall(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
            assert everything(stalled) == b""
    finally:
        server.close()


def test_a_request_may_come_late_and_its_body_later_than_its_head_may() -> None:
    server = HttpServer(hello, limits=Limits(head=0.2))
    try:
        with socket.create_connection(server.address, timeout=10) as late:
            for _ in range(2):
                assert not is_closed(late, 0.4), "nothing was begun, so nothing was due"
                late.sendall(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nha")
                assert not is_closed(late, 0.4), "the head was complete"
                late.sendall(b"lf")
                assert late.recv(1000).endswith(b"hellohalf")
    finally:
        server.close()


def test_a_client_that_takes_nothing_is_given_up() -> None:
    big = MemoryBody(bytes(50_000_000))
    server = HttpServer(lambda _: Response(200, {}, big), limits=Limits(stalled=0.2))
    try:
        with socket.create_connection(server.address, timeout=10) as stalled:
            stalled.sendall(REQUEST)
            assert stalled.recv(1) == b"H"
            (request,) = server.log.settled()
            assert request.bytes < 50_000_000
            until(lambda: not server._connections)
    finally:
        server.close()


def test_a_connection_too_many_is_asked_to_come_again() -> None:
    gate = Gate()

    def held(incoming: Incoming) -> Response:
        gate.stop_here()
        return hello(incoming)

    server = HttpServer(held, limits=Limits(connections=1))
    try:
        with socket.create_connection(server.address, timeout=10) as first:
            first.sendall(REQUEST)
            gate.wait_reached()
            with socket.create_connection(server.address, timeout=10) as second:
                answer = everything(second)
            assert answer.startswith(b"HTTP/1.1 503 ") and b"Retry-After: 1" in answer
            gate.release()
            assert first.recv(1000).endswith(b"hello")
        until(lambda: not server._connections)
        with socket.create_connection(server.address, timeout=10) as third:
            third.sendall(REQUEST)
            assert third.recv(1000).endswith(b"hello"), "the place is free again"
    finally:
        server.close()
