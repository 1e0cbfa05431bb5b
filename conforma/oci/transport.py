"""The seam to HTTP: an ``httpx.Client`` whose bodies arrive without httpx's copies.

``Transport`` sends over pooled ``http.client`` connections and translates every
failure, around the request and around every step of the body, into httpx's
exceptions. Requests that must pass a proxy go to httpx's own transport.
Measurements behind this: performance.md, section 3.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from typing import Final, cast

import httpx

from conforma.oci.options import Lane, Patience
from conforma.oci.pool import Origin, Pool
from conforma.oci.proxies import Proxies
from conforma.oci.wire import Connection, body_of

LANE: Final = "conforma.lane"
"""Request extension that names the lane; ``bulk`` for blob bodies, else ``small``."""
_PORTS: Final = {"http": 80, "https": 443}


class Transport(httpx.BaseTransport):
    """Sends requests for an ``httpx.Client``. Thread safe.

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

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send and return once the head of the answer is here.

        The body must be iterated to its end or closed. Raises
        ``httpx.TransportError``, also from the body.
        """
        origin = origin_of(request.url)
        proxy = self._proxies.for_host(origin.scheme, origin.host, origin.port)
        if proxy is not None:
            return self._through(proxy).handle_request(request)
        lane: Lane = request.extensions.get(LANE, "small")
        with translated(request, httpx.PoolTimeout, httpx.ConnectError):
            connection = self.pool.acquire(origin, lane)
        try:
            answer = _exchange(connection, request)
        except BaseException:
            self.pool.release(origin, lane, connection, keep=False)
            raise

        def done(complete: bool) -> None:
            keep = complete and connection.is_reusable(answer)
            answer.close()
            self.pool.release(origin, lane, connection, keep=keep)

        return httpx.Response(
            answer.status,
            headers=[(k.encode("latin-1"), v.encode("latin-1")) for k, v in answer.msg.items()],
            stream=_Body(answer, request, done),
            extensions={
                "http_version": b"HTTP/1.1",
                "reason_phrase": answer.reason.encode("latin-1"),
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


class _Body(httpx.SyncByteStream):
    """The body of one answer; gives the connection back exactly once."""

    def __init__(
        self, answer: HTTPResponse, request: httpx.Request, done: Callable[[bool], None]
    ) -> None:
        self._answer = answer
        self._request = request
        self._done: Callable[[bool], None] | None = done
        if answer.length == 0:
            self._finish(complete=True)

    def __iter__(self) -> Iterator[bytes]:
        if self._done is None:
            return
        with translated(self._request, httpx.ReadTimeout, httpx.ReadError):
            yield from body_of(self._answer)
        self._finish(complete=True)

    def close(self) -> None:
        self._finish(complete=False)

    def _finish(self, *, complete: bool) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(complete)


def _exchange(connection: Connection, request: httpx.Request) -> HTTPResponse:
    if connection.sock is None:
        with translated(request, httpx.ConnectTimeout, httpx.ConnectError):
            connection.connect()
    send_failed: httpx.TransportError | None = None
    try:
        with translated(request, httpx.WriteTimeout, httpx.WriteError):
            connection.putrequest(
                request.method,
                request.url.raw_path.decode("ascii"),
                skip_host=True,
                skip_accept_encoding=True,
            )
            for name, value in request.headers.raw:
                connection.putheader(name, value)
            connection.endheaders(
                cast("Iterator[bytes]", request.stream),
                encode_chunked="transfer-encoding" in request.headers,
            )
    except httpx.WriteError as cause:
        # A server that refuses a large body answers before it has read it all.
        send_failed = cause
    try:
        with translated(request, httpx.ReadTimeout, httpx.ReadError):
            return connection.answer()
    except httpx.TransportError:
        if send_failed is not None:
            raise send_failed from None
        raise


@contextmanager
def translated(
    request: httpx.Request,
    timed_out: type[httpx.TimeoutException],
    failed: type[httpx.TransportError],
) -> Iterator[None]:
    """Turn what sockets and ``http.client`` raise into httpx's exceptions."""
    try:
        yield
    except TimeoutError as cause:
        raise timed_out(str(cause) or "timed out", request=request) from cause
    except (HTTPException, EOFError) as cause:
        detail = str(cause) or type(cause).__name__
        raise httpx.RemoteProtocolError(detail, request=request) from cause
    except socket.gaierror as cause:
        raise failed(cause.strerror or str(cause), request=request) from cause
    except OSError as cause:
        detail = cause.strerror or str(cause) or type(cause).__name__
        raise failed(detail, request=request) from cause
