"""Bodies of requests: how large, how slow and how many at a time they may be."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from conforma.serve.bodies import MemoryBody
from conforma.serve.faults import Gate
from conforma.serve.httpd import Incoming, Response
from conforma.serve.limits import Limits
from conforma.serve.server import Server

HEAD = b"POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"


def echo(incoming: Incoming) -> Response:
    """The body, backwards: an answer that only who has read all of it can give."""
    return Response(200, {"X-Client": incoming.client}, MemoryBody(incoming.body.read(1000)[::-1]))


def refused(status: int, incoming: Incoming | None) -> Response:
    path = incoming.path if incoming is not None else "nothing"
    return Response.document(status, {"refused": path})


@contextmanager
def running(**limits: float) -> Iterator[Server]:
    chosen = Limits(**{"largest_body": 100, "body": 60.0, **limits})  # type: ignore[arg-type]
    server = Server(echo, limits=chosen, refusal=refused)
    try:
        yield server
    finally:
        server.close()


def connected(server: Server, data: bytes) -> socket.socket:
    connection = socket.create_connection(server.address, timeout=10)
    connection.sendall(data)
    return connection


def everything(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def until_head(connection: socket.socket) -> bytes:
    """What comes up to the end of the first head."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += connection.recv(1)
    return data


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_a_body_of_the_greatest_size_is_handed_over_plain_or_in_chunks() -> None:
    body = bytes(range(100))
    with running() as server:
        with connected(server, HEAD + b"Content-Length: 100\r\n\r\n" + body) as plain:
            client = f"X-Client: 127.0.0.1:{plain.getsockname()[1]}\r\n".encode()
            answer = everything(plain)
        assert answer.endswith(b"\r\n\r\n" + body[::-1]) and client in answer
        pieces = chunk(body[:1]) + chunk(body[1:]) + chunk(b"")
        with connected(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + pieces) as chunked:
            assert everything(chunked).endswith(body[::-1])


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes() -> None:
    announced = b"Content-Length: 101\r\nExpect: 100-continue\r\n\r\n"
    with running() as server, connected(server, HEAD + announced) as connection:
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 413 ") and answer.endswith(b'{"refused": "/x"}')


def test_a_body_that_turns_out_too_large_is_refused_and_the_client_gets_to_read_it() -> None:
    with running() as server:
        sent = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"x" * 101)
        with connected(server, sent) as connection:
            connection.sendall(chunk(b"y" * 500_000) + chunk(b""))
            answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 413 ") and answer.endswith(b'{"refused": "/x"}')


def test_a_client_that_waits_for_leave_to_send_gets_it() -> None:
    with (
        running() as server,
        connected(server, HEAD + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n") as waiting,
    ):
        assert until_head(waiting).startswith(b"HTTP/1.1 100 ")
        waiting.sendall(b"ab")
        answer = everything(waiting)
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"ba")


def test_a_body_that_does_not_come_in_time_is_refused() -> None:
    with (
        running(body=0.3) as server,
        connected(server, HEAD + b"Content-Length: 2\r\n\r\na") as slow,
    ):
        assert everything(slow).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_ends_early_is_refused() -> None:
    with running() as server, connected(server, HEAD + b"Content-Length: 2\r\n\r\na") as broken:
        broken.shutdown(socket.SHUT_WR)
        answer = everything(broken)
    assert answer.startswith(b"HTTP/1.1 400 ") and answer.endswith(b'{"refused": "/x"}')


def test_what_is_no_request_is_refused_without_a_head() -> None:
    with running() as server, connected(server, b"nonsense\r\n\r\n") as connection:
        assert everything(connection).endswith(b'{"refused": "nothing"}')


def test_bodies_share_a_limit_and_give_back_what_they_took() -> None:
    gate = Gate()

    def held(incoming: Incoming) -> Response:
        if incoming.path == "/held":
            gate.stop_here()
        return echo(incoming)

    limits = Limits(largest_body=100, bodies=150, body=60.0)
    server = Server(held, limits=limits, refusal=refused)
    body = b"Content-Length: 100\r\n\r\n" + b"x" * 100
    try:
        first = connected(server, HEAD.replace(b"/x", b"/held") + body)
        gate.wait_reached()
        with connected(server, HEAD + body) as second:
            assert everything(second).startswith(b"HTTP/1.1 503 ")
        with connected(server, HEAD + b"Content-Length: 1\r\n\r\ny") as small:
            assert everything(small).endswith(b"y")
        gate.release()
        assert everything(first).endswith(b"x" * 100)
        first.close()
        with connected(server, HEAD + body) as third:
            assert everything(third).startswith(b"HTTP/1.1 200 ")
    finally:
        server.close()


def test_a_client_that_takes_its_answer_too_slowly_is_given_up() -> None:
    def large(_: Incoming) -> Response:
        return Response(200, {}, MemoryBody(bytes(64 << 20)))

    ended: list[bool] = []
    server = Server(
        large,
        limits=Limits(answer=0.2, stalled=0.4),
        on_served=lambda served: ended.append(served.complete),
    )
    try:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.settimeout(10)
            slow.connect(server.address)
            slow.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            # Takes something all the time, so that it never counts as stalled.
            taken = 0
            while piece := slow.recv(1):
                taken += len(piece)
                if ended:
                    break
        assert ended == [False] and taken < 64 << 20
    finally:
        server.close()
