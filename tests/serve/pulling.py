"""A pull-through server before an upstream registry, and clients that read as tests need it."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.cancellation import Cancellation
from conforma.oci.digest import Digest
from conforma.oci.options import RegistryOptions
from conforma.oci.places import Places
from conforma.oci.retry import RetryPolicy
from conforma.serve.auth import Access
from conforma.serve.landing import Landings
from conforma.serve.limits import Limits
from conforma.serve.metrics import Metrics
from conforma.serve.pull_through import PullThrough
from conforma.serve.registry import RegistryServer
from conforma.serve.server import Server
from conforma.serve.upstreams import Upstream, Upstreams


@dataclass
class Pulling:
    """Both servers."""

    upstream: RegistryServer
    server: Server

    def get(
        self, path: str, method: str = "GET", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own; header names in lower case."""
        connection = http.client.HTTPConnection(*self.server.address, timeout=30)
        try:
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, found, answer.read()
        finally:
            connection.close()

    def opened(self, path: str, **headers: str) -> http.client.HTTPResponse:
        """An answer whose body is still to be read."""
        connection = http.client.HTTPConnection(*self.server.address, timeout=30)
        connection.request(
            "GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        return connection.getresponse()

    def raw(self, request: bytes, receive_buffer: int | None = None) -> socket.socket:
        """A connection on which these bytes were sent."""
        connection = socket.socket()
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(30)
        connection.connect(self.server.address)
        connection.sendall(request)
        return connection

    def blob(self, data: bytes, repository: str = "app") -> str:
        """Put a blob upstream; returns its path on both servers."""
        return f"/v2/{repository}/blobs/{self.upstream.store.put_blob(repository, data)}"

    def downloads(self, data: bytes) -> int:
        """How often upstream was asked for the blob's bytes."""
        return self.upstream.log.blob_downloads()[str(Digest.of(data))]


@contextmanager
def pulling(
    directory: Path,
    *,
    access: Access | None = None,
    limits: Limits | None = None,
    fresh: float = 60.0,
    upstream: RegistryServer | None = None,
    places: tuple[str, ...] = (),
) -> Iterator[Pulling]:
    """A server with a cache of its own in ``directory``."""
    with ExitStack() as stack:
        origin = upstream or stack.enter_context(RegistryServer())
        cancellation = Cancellation()
        options = RegistryOptions(retry=RetryPolicy(max_retry=1, duration=0.01, max_wait=0.01))
        registry = stack.enter_context(Places(options, cancellation))
        cache = stack.enter_context(SafeCache.open(CacheOptions(directory=directory), cancellation))
        stack.callback(cancellation.cancel)
        metrics = Metrics(lambda: cache.stats, lambda: registry.stats)
        handler = PullThrough(
            registry,
            Landings(cache, cancellation),
            Upstreams([Upstream.parse(text) for text in (origin.host, *places)]),
            access=access,
            metrics=metrics.text,
            fresh=fresh,
        )
        server = Server(handler, limits=limits, on_served=metrics.served)
        stack.callback(server.close)
        yield Pulling(origin, server)
