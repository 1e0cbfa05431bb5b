"""httpx on top of our own connections: for everything but the many small questions.

Uploads and whatever has to pass a proxy go through an ``httpx.Client``, and so
do downloads that need its redirects.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import httpx

from conforma.oci import broken
from conforma.oci.http1 import Pairs, combined
from conforma.oci.options import Lane, Patience
from conforma.oci.target import origin_of
from conforma.oci.transport import LANE, Received, Transport


class Relay(httpx.BaseTransport):
    """Sends for an ``httpx.Client``. Thread safe; closing it closes ``transport``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._proxied: dict[str, httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send and return once the head of the answer is here.

        The body must be iterated to its end or closed. Raises
        ``httpx.TransportError``, also from the body.
        """
        origin = origin_of(request.url)
        proxy = self._transport.proxy_for(origin)
        if proxy is not None:
            return self._through(proxy).handle_request(request)
        resource = request.url.raw_path
        lines = b"".join(b"%s: %s\r\n" % pair for pair in request.headers.raw)
        with _theirs():
            received = self._transport.exchange(
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
        self._transport.close()
        for transport in list(self._proxied.values()):
            transport.close()

    def _through(self, proxy: str) -> httpx.HTTPTransport:
        context = self._transport.tls_context()
        with self._lock:
            transport = self._proxied.get(proxy)
            if transport is None:
                transport = httpx.HTTPTransport(proxy=httpx.Proxy(proxy), verify=context)
                self._proxied[proxy] = transport
            return transport


class Relayed:
    """An answer that came through an ``httpx.Client``, to be used as a :class:`Received`."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.pairs: Pairs = response.headers.multi_items()
        self.headers = combined(self.pairs)
        self.queued = 0.0

    def __iter__(self) -> Iterator[bytes]:
        with _ours():
            yield from self._response.iter_raw()

    def close(self) -> None:
        """The body is read or not wanted."""
        self._response.close()


class Client:
    """An ``httpx.Client`` over our connections that fails as they do. Thread safe."""

    def __init__(
        self, transport: Transport, patience: Patience, headers: Mapping[str, str]
    ) -> None:
        self._client = httpx.Client(
            transport=Relay(transport),
            timeout=httpx.Timeout(
                patience.connect, read=patience.read, write=patience.read, pool=None
            ),
            headers=headers,
            follow_redirects=False,
            trust_env=False,
        )

    def send(
        self,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str],
        content: bytes | Iterable[bytes] | None,
        lane: Lane,
    ) -> Relayed:
        """The head of the answer; the caller closes it. Raises ``broken.TransportError``."""
        request = self._client.build_request(
            method, url, headers=headers, content=content, extensions={LANE: lane}
        )
        # Cookies would tie requests of different repositories together. The client kept
        # those of earlier answers, perhaps of one that came since it was last told to forget.
        request.headers.pop("Cookie", None)
        self._client.cookies.clear()
        with _ours():
            return Relayed(self._client.send(request, stream=True))

    def close(self) -> None:
        """Cut every connection. Never blocks; safe to call from a signal handler."""
        self._client.close()


class _Stream(httpx.SyncByteStream):
    """An answer's body in the form httpx wants it."""

    def __init__(self, received: Received) -> None:
        self._received = received

    def __iter__(self) -> Iterator[bytes]:
        with _theirs():
            yield from self._received

    def close(self) -> None:
        self._received.close()


_THEIRS: Mapping[type[broken.TransportError], Callable[[str], httpx.TransportError]] = {
    broken.ConnectTimeout: httpx.ConnectTimeout,
    broken.ReadTimeout: httpx.ReadTimeout,
    broken.WriteTimeout: httpx.WriteTimeout,
    broken.PoolTimeout: httpx.PoolTimeout,
    broken.ConnectError: httpx.ConnectError,
    broken.ReadError: httpx.ReadError,
    broken.WriteError: httpx.WriteError,
    broken.RemoteProtocolError: httpx.RemoteProtocolError,
    broken.LocalProtocolError: httpx.LocalProtocolError,
    broken.ProxyError: httpx.ProxyError,
    broken.UnsupportedProtocol: httpx.UnsupportedProtocol,
}
_OURS = {theirs: ours for ours, theirs in _THEIRS.items()}


@contextmanager
def _theirs() -> Iterator[None]:
    """Turn our failures into those of httpx."""
    try:
        yield
    except broken.TransportError as cause:
        raise _THEIRS.get(type(cause), httpx.TransportError)(str(cause)) from cause


@contextmanager
def _ours() -> Iterator[None]:
    """Turn failures of httpx into ours."""
    try:
        yield
    except httpx.TransportError as cause:
        raise _OURS.get(type(cause), broken.TransportError)(str(cause)) from cause
