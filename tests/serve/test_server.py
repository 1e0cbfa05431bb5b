"""The HTTP server of conforma serve: its limits, its patience, its end."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from conforma.serve.bodies import MemoryBody
from conforma.serve.faults import Gate
from conforma.serve.httpd import Incoming, Response
from conforma.serve.limits import Limits
from conforma.serve.server import Served, Server
from tests.oci.scenery import until

Handler = Callable[[Incoming], Response]


def hello(incoming: Incoming) -> Response:
    return Response(200, {"X-Path": incoming.path}, MemoryBody(b"hello"))


@contextmanager
def running(handler: Handler = hello, **limits: float) -> Iterator[Server]:
    server = Server(handler, limits=Limits(**limits))  # type: ignore[arg-type]
    try:
        yield server
    finally:
        server.close()


def connected(server: Server, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(server.address, timeout=10)
    connection.sendall(data)
    return connection


def everything(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def test_one_connection_serves_many_requests_also_sent_at_once() -> None:
    with running() as server:
        client = http.client.HTTPConnection(*server.address)
        for path in ("/a", "/b%20c?d=e"):
            client.request("GET", path)
            answer = client.getresponse()
            assert (answer.status, answer.read()) == (200, b"hello")
        assert answer.getheader("X-Path") == "/b c"
        client.request("HEAD", "/")
        answer = client.getresponse()
        assert (answer.getheader("Content-Length"), answer.read()) == ("5", b"")
        client.close()
        request = b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n"
        last = b"GET /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        with connected(server, request + last) as pipelined:
            text = everything(pipelined)
        assert text.count(b"hello") == 2 and text.index(b"/1") < text.index(b"/2")


def test_a_connection_for_which_there_is_no_thread_is_asked_to_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start
    missing = ["one thread"]

    def short_of_one(thread: threading.Thread) -> None:
        if thread.name == "serve" and missing:
            missing.pop()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", short_of_one)
    with running() as server:
        with connected(server) as connection:
            assert everything(connection).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert server.connections == 0
        with connected(server, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") as again:
            assert everything(again).endswith(b"hello")


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no Host (RFC 9112, 3.2)
        b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 300_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(data: bytes) -> None:
    with running() as server, connected(server, data) as connection:
        head = everything(connection).partition(b"\r\n")[0]
        assert head.split()[1] in (b"400", b"431")


def test_a_head_that_never_ends_is_given_up() -> None:
    with running(head=0.3) as server, connected(server, b"GET / HTTP/1.1\r\nHost:") as slow:
        started = time.monotonic()
        assert everything(slow) == b""
        assert time.monotonic() - started < 5


def test_an_idle_connection_is_closed() -> None:
    with running(idle=0.3) as server, connected(server) as idle:
        assert everything(idle) == b""


def test_when_all_places_are_taken_by_work_a_client_is_asked_to_come_again() -> None:
    gate = Gate()

    def held(incoming: Incoming) -> Response:
        gate.stop_here()
        return hello(incoming)

    with running(held, connections=2) as server:
        request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        first, second = connected(server, request), connected(server, request)
        gate.wait_reached()
        until(lambda: list(server._connections.values()) == [None, None])
        with connected(server) as third:
            answer = everything(third)
        assert answer.startswith(b"HTTP/1.1 503 ") and b"Retry-After: 1" in answer
        gate.release()
        assert everything(first).endswith(b"hello") and everything(second).endswith(b"hello")


def test_a_place_is_taken_from_whoever_is_idle() -> None:
    with running(connections=1) as server:
        idle = http.client.HTTPConnection(*server.address, timeout=10)
        idle.request("GET", "/")
        assert idle.getresponse().read() == b"hello"
        until(lambda: None not in server._connections.values())
        other = http.client.HTTPConnection(*server.address, timeout=10)
        other.request("GET", "/")
        assert other.getresponse().read() == b"hello"
        assert idle.sock.recv(1) == b"", "the idle one was closed"


def test_stopping_lets_answers_end_and_takes_no_more() -> None:
    gate = Gate()

    def held(incoming: Incoming) -> Response:
        gate.stop_here()
        return hello(incoming)

    served: list[Served] = []
    server = Server(held, on_served=served.append)
    idle = connected(server)
    busy = connected(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    gate.wait_reached()
    closing = threading.Thread(target=server.close)
    closing.start()
    assert everything(idle) == b"", "idle connections end at once"
    with pytest.raises(OSError):
        connected(server, b"GET / HTTP/1.1\r\n\r\n").recv(1) or _refused()
    assert closing.is_alive()
    gate.release()
    answer = everything(busy)
    assert answer.endswith(b"hello") and b"Connection: close" in answer
    closing.join(10)
    assert not closing.is_alive()
    assert [(request.status, request.complete) for request in served] == [(200, True)]


def test_stopping_does_not_wait_for_ever() -> None:
    gate = Gate()

    def held(incoming: Incoming) -> Response:
        gate.stop_here()
        return hello(incoming)

    server = Server(held, limits=Limits(grace=0.2))
    busy = connected(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    gate.wait_reached()
    server.close()
    assert everything(busy) == b""
    gate.release()


def test_a_client_that_takes_nothing_is_given_up() -> None:
    big = MemoryBody(bytes(50_000_000))
    served: list[Served] = []
    server = Server(
        lambda _incoming: Response(200, {}, big),
        limits=Limits(stalled=0.3),
        on_served=served.append,
    )
    try:
        with connected(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as stalled:
            assert stalled.recv(1) == b"H"
            until(lambda: bool(served))
        assert not served[0].complete and served[0].sent < 50_000_000
        until(lambda: server.connections == 0)
    finally:
        server.close()


def _refused() -> None:
    raise ConnectionRefusedError
