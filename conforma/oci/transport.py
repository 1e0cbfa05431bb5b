"""The seam to HTTP: our own pooled connections, for us and for ``httpx.Client``.

:meth:`Transport.exchange` is the short way, for the many small questions;
``handle_request`` lets an ``httpx.Client`` send over the same connections.
Every failure comes as one of httpx's exceptions, around the request and around
every step of the body. Requests that must pass a proxy go to httpx's own
transport. Measurements behind this: performance.md, section 3, and DESIGN.md.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, cast

import httpx

from conforma.oci.http1 import Answer, BadAnswer, Pairs
from conforma.oci.options import Lane, Patience
from conforma.oci.pool import Origin, Pool
from conforma.oci.proxies import Proxies
from conforma.oci.wire import Connection

LANE: Final = "conforma.lane"
"""Request extension that names the lane; ``bulk`` for blob bodies, else ``small``."""
_PORTS: Final = {"http": 80, "https": 443}


class Received:
    """An answer whose body is iterated to its end or closed; then its connection is free.

    Iterating raises ``httpx.TransportError``.
    """

    __slots__ = ("_answer", "_connection", "_lane", "_origin", "_pool", "pairs", "queued", "reason",
                 "status")  # fmt: skip

    def __init__(
        self,
        pool: Pool,
        origin: Origin,
        lane: Lane,
        connection: Connection,
        answer: Answer,
        queued: float,
    ) -> None:
        self._pool = pool
        self._origin = origin
        self._lane: Lane = lane
        self._connection: Connection | None = connection
        self._answer = answer
        self.status = answer.status
        self.reason = answer.reason
        self.pairs: Pairs = answer.pairs
        self.queued = queued
        """Seconds spent waiting for a place in the lane."""
        if answer.complete:
            self.close()

    def __iter__(self) -> Iterator[bytes]:
        if self._connection is None:
            return
        with translated(httpx.ReadTimeout, httpx.ReadError):
            yield from self._answer
        self.close()

    def close(self) -> None:
        """Give the connection back if it can be used again, else cut it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            keep = self._answer.is_reusable
            self._pool.release(self._origin, self._lane, connection, keep=keep)


class Transport(httpx.BaseTransport):
    """Sends requests, directly or for an ``httpx.Client``. Thread safe.

    ``tls`` is asked for the context when the first encrypted connection is made.
    """

    def __init__(
        self,
        *,
        patience: Patience,
        most: dict[Lane, int],
        tls: Callable[[], ssl.SSLContext],
        proxies: Proxies,
    ) -> None:
        self._patience = patience
        self._tls = tls
        self._proxies = proxies
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._proxied: dict[str, httpx.HTTPTransport] = {}
        self.pool = Pool(self._connection, most)

    def is_direct(self, origin: Origin) -> bool:
        """Whether requests to ``origin`` go there without a proxy."""
        return self._proxies.for_host(origin.scheme, origin.host, origin.port) is None

    def exchange(
        self,
        origin: Origin,
        lane: Lane,
        method: str,
        head: bytes,
        body: Iterable[bytes] = (),
        *,
        chunked: bool = False,
    ) -> Received:
        """Send a request of these bytes and return once the head of the answer is here.

        Raises ``httpx.TransportError``.
        """
        started = time.monotonic()
        with translated(httpx.PoolTimeout, httpx.ConnectError):
            connection = self.pool.acquire(origin, lane)
        queued = time.monotonic() - started
        try:
            answer = _exchange(connection, method, head, body, chunked)
        except BaseException:
            self.pool.release(origin, lane, connection, keep=False)
            raise
        return Received(self.pool, origin, lane, connection, answer, queued)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send for an ``httpx.Client`` and return once the head of the answer is here.

        The body must be iterated to its end or closed. Raises
        ``httpx.TransportError``, also from the body.
        """
        origin = origin_of(request.url)
        proxy = self._proxies.for_host(origin.scheme, origin.host, origin.port)
        if proxy is not None:
            return self._through(proxy).handle_request(request)
        resource = request.url.raw_path
        lines = b"".join(b"%s: %s\r\n" % pair for pair in request.headers.raw)
        received = self.exchange(
            origin,
            request.extensions.get(LANE, "small"),
            request.method,
            b"%s %s HTTP/1.1\r\n%s\r\n" % (request.method.encode("ascii"), resource, lines),
            cast("Iterable[bytes]", request.stream),
            chunked="transfer-encoding" in request.headers,
        )
        return httpx.Response(
            received.status,
            headers=[(k.encode("latin-1"), v.encode("latin-1")) for k, v in received.pairs],
            stream=_Stream(received),
            extensions={
                "http_version": b"HTTP/1.1",
                "reason_phrase": received.reason.encode("latin-1"),
            },
        )

    def close(self) -> None:
        """Cut every connection. Never blocks; safe to call from a signal handler."""
        self.pool.close()
        for transport in list(self._proxied.values()):
            transport.close()

    def _connection(self, origin: Origin) -> Connection:
        tls = self._tls_context if origin.scheme == "https" else None
        return Connection(origin.host, origin.port, self._patience, tls)

    def _tls_context(self) -> ssl.SSLContext:
        with self._lock:
            if self._context is None:
                self._context = self._tls()
            return self._context

    def _through(self, proxy: str) -> httpx.HTTPTransport:
        context = self._tls_context()
        with self._lock:
            transport = self._proxied.get(proxy)
            if transport is None:
                transport = httpx.HTTPTransport(proxy=httpx.Proxy(proxy), verify=context)
                self._proxied[proxy] = transport
            return transport


def origin_of(url: httpx.URL) -> Origin:
    """The server a URL points to."""
    return Origin(url.scheme, url.host, url.port or _PORTS.get(url.scheme, 443))


class _Stream(httpx.SyncByteStream):
    """An answer's body in the form httpx wants it."""

    def __init__(self, received: Received) -> None:
        self._received = received

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._received)

    def close(self) -> None:
        self._received.close()


def _exchange(
    connection: Connection, method: str, head: bytes, body: Iterable[bytes], chunked: bool
) -> Answer:
    if connection.wire is None:
        with translated(httpx.ConnectTimeout, httpx.ConnectError):
            connection.connect()
    send_failed: httpx.TransportError | None = None
    try:
        with translated(httpx.WriteTimeout, httpx.WriteError):
            connection.send(head, body, chunked=chunked)
    except httpx.WriteError as cause:
        # A server that refuses a large body answers before it has read it all.
        send_failed = cause
    try:
        with translated(httpx.ReadTimeout, httpx.ReadError):
            return connection.answer(method)
    except httpx.TransportError:
        if send_failed is not None:
            raise send_failed from None
        raise


@contextmanager
def translated(
    timed_out: type[httpx.TimeoutException], failed: type[httpx.TransportError]
) -> Iterator[None]:
    """Turn what sockets and :mod:`~conforma.oci.http1` raise into httpx's exceptions."""
    try:
        yield
    except TimeoutError as cause:
        raise timed_out(str(cause) or "timed out") from cause
    except (BadAnswer, EOFError) as cause:
        raise httpx.RemoteProtocolError(str(cause)) from cause
    except socket.gaierror as cause:
        raise failed(cause.strerror or str(cause)) from cause
    except OSError as cause:
        detail = cause.strerror or str(cause) or type(cause).__name__
        raise failed(detail) from cause
