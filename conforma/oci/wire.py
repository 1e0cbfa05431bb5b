"""One connection to one server: ``http.client`` over a socket that watches the clock.

``http.client`` brings chunked decoding and header limits; the reading side is
ours, because a time-out per ``recv`` alone lets a server that drips bytes hold
a worker for hours.
"""

from __future__ import annotations

import contextlib
import io
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse
from typing import Any, Final

from conforma.oci.options import Patience

# One read asks for this much; a bigger buffer gains nothing any more
# (measured in performance.md, section 3).
BLOCK: Final = 256 * 1024
# TLS hands over at most 16 KiB at a time; smaller pieces are collected up to
# this before they go to the consumer.
_GATHER: Final = 64 * 1024
# A host's first addresses may lead nowhere (IPv6 without a route); seconds
# until the next one is tried.
_NEXT_ADDRESS_AFTER: Final = 3.0


class Wire:
    """What ``http.client`` needs of a socket, with reads that respect a :class:`Patience`."""

    def __init__(self, sock: socket.socket, patience: Patience) -> None:
        self._sock = sock
        self._patience = patience
        self._deadline: float | None = None
        self._waited = 0.0
        self._received = 0
        self._readers = 0
        self._closing = False
        self.drained = False

    def await_head(self) -> None:
        """From now on the answer's head is due."""
        self._deadline = time.monotonic() + self._patience.head
        self.drained = False

    def await_body(self) -> None:
        """The head is complete; from now on the pace of the body counts."""
        self._deadline = None
        self._waited, self._received = 0.0, 0
        self._sock.settimeout(self._patience.read)

    def recv_into(self, buffer: memoryview) -> int | None:
        """Read what is there, or wait for it; ``None`` once the answer was read completely."""
        if self.drained:
            return None
        started = time.monotonic()
        if self._deadline is not None:
            if started >= self._deadline:
                raise TimeoutError(f"no complete answer within {self._patience.head:g} s")
            self._sock.settimeout(min(self._patience.read, self._deadline - started))
        count = self._sock.recv_into(buffer)
        if self._deadline is None:
            self._keep_pace(count, time.monotonic() - started)
        return count

    def _keep_pace(self, count: int, seconds: float) -> None:
        self._received += count
        self._waited += seconds
        if self._waited < self._patience.window:
            return
        if self._received < self._patience.slowest * self._waited:
            raise TimeoutError(
                f"only {self._received} bytes in {self._waited:.0f} s, given up as too slow"
            )
        self._waited, self._received = 0.0, 0

    def is_stale(self) -> bool:
        """Whether an idle connection was closed by the server, or holds bytes nobody asked for."""
        try:
            poller = select.poll()
            poller.register(self._sock, select.POLLIN | select.POLLHUP | select.POLLERR)
            return bool(poller.poll(0))
        except (OSError, ValueError):
            return True

    def makefile(self, mode: str) -> io.BufferedReader:
        """The reading side, as ``http.client`` asks for it."""
        assert mode == "rb"
        self._readers += 1
        return io.BufferedReader(_Reader(self), 16 * 1024)

    def sendall(self, data: bytes) -> None:
        """Send everything."""
        self._sock.settimeout(self._patience.read)
        self._sock.sendall(data)

    def close(self) -> None:
        """Close once the last reader is done, as a socket does."""
        self._closing = True
        if self._readers <= 0:
            self._sock.close()

    def reader_closed(self) -> None:
        """A reader is done."""
        self._readers -= 1
        if self._closing:
            self.close()


class _Reader(io.RawIOBase):
    """The raw file under the buffer ``http.client`` reads from."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        return self._wire.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._wire.reader_closed()


class Connection(HTTPConnection):
    """An ``http.client`` connection whose socket is a :class:`Wire` and that can be aborted."""

    def __init__(
        self,
        host: str,
        port: int,
        patience: Patience,
        tls: Callable[[], ssl.SSLContext] | None,
    ) -> None:
        super().__init__(host, port, timeout=patience.connect)
        self._patience = patience
        self._tls = tls
        self._raw: socket.socket | None = None
        self._aborted = False
        self.wire: Wire | None = None

    def connect(self) -> None:
        """Open the socket, with TLS if a context is offered. Raises ``OSError``."""
        sock = self._first_that_answers()
        try:
            sock.settimeout(self._patience.connect)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock = self._tls().wrap_socket(
                    sock, server_hostname=self.host, do_handshake_on_connect=False
                )
                self._watch(sock)
                sock.do_handshake()
        except BaseException:
            sock.close()
            raise
        self.wire = self.sock = Wire(sock, self._patience)

    def _first_that_answers(self) -> socket.socket:
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        for position, (family, kind, protocol, _, address) in enumerate(found, 1):
            last = position == len(found)
            sock = socket.socket(family, kind, protocol)
            sock.settimeout(self._patience.connect if last else _NEXT_ADDRESS_AFTER)
            try:
                self._watch(sock)
                sock.connect(address)
            except BaseException as cause:
                sock.close()
                if last or not isinstance(cause, OSError) or self._aborted:
                    raise
            else:
                return sock
        raise OSError(f"no address for {self.host}")

    def _watch(self, sock: socket.socket) -> None:
        self._raw = sock
        if self._aborted:
            raise ConnectionAbortedError("stopped")

    def abort(self) -> None:
        """Make whoever connects, reads or writes here fail at once. Never blocks."""
        self._aborted = True
        if self._raw is not None:
            with contextlib.suppress(OSError):
                # The plain method: that of a TLS socket would talk to the peer.
                socket.socket.shutdown(self._raw, socket.SHUT_RDWR)

    def answer(self) -> HTTPResponse:
        """Read the head of the answer. Raises ``OSError`` or ``HTTPException``."""
        assert self.wire is not None
        wire = self.wire
        wire.await_head()
        response = self.getresponse()
        wire.await_body()
        return response

    def is_reusable(self, response: HTTPResponse) -> bool:
        """Whether another request may follow on this connection after ``response`` was read."""
        if response.will_close or self.sock is None or self.wire is None:
            return False
        surplus = b""
        if response.fp is not None:
            # Bytes beyond the end of the answer would become the next one's head.
            self.wire.drained = True
            surplus = response.fp.peek(1)
        response.close()
        return not surplus


def body_of(response: HTTPResponse) -> Iterator[bytes]:
    """The body in pieces of useful size, everything that arrived before an error included.

    Raises ``OSError`` or ``HTTPException``; a body shorter than its
    ``Content-Length`` raises ``EOFError``.
    """
    left = response.length
    pieces: list[bytes] = []
    gathered = 0
    error: Exception | None = None
    while left != 0:
        try:
            piece = response.read1(BLOCK if left is None else min(BLOCK, left))
        except Exception as cause:  # delivered below, after what arrived before it
            error = cause
            break
        if not piece:
            if left is not None:
                error = EOFError(f"the connection ended {left} bytes early")
            break
        if left is not None:
            left -= len(piece)
        pieces.append(piece)
        gathered += len(piece)
        if gathered >= _GATHER:
            yield pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces, gathered = [], 0
    if pieces:
        yield b"".join(pieces)
    if error is not None:
        raise error
