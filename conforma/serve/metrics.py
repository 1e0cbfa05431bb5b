"""What a server has done, in the text format of Prometheus."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator

from conforma.cache.stats import CacheStats
from conforma.oci.meter import RegistryStats
from conforma.serve.server import Served

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_KINDS = ("blobs", "manifests", "referrers", "tags")
# A client may make up methods, and each label is kept for ever.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})


class Metrics:
    """Counters of one server. Thread safe."""

    def __init__(
        self, cache: Callable[[], CacheStats], upstream: Callable[[], RegistryStats]
    ) -> None:
        self._cache = cache
        self._upstream = upstream
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._sent: Counter[str] = Counter()
        self._broken = 0
        self.gauges: dict[str, tuple[str, Callable[[], int]]] = {}

    def served(self, request: Served) -> None:
        """Count one request."""
        kind = next((kind for kind in _KINDS if f"/{kind}/" in request.path), "other")
        method = request.method if request.method in _METHODS else "other"
        with self._lock:
            self._requests[method, kind, request.status] += 1
            self._sent[kind] += request.sent
            self._broken += not request.complete

    def text(self) -> str:
        """Everything, as Prometheus reads it."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        with self._lock:
            requests, sent, broken = dict(self._requests), dict(self._sent), self._broken
        yield from _head("requests_total", "counter", "Requests answered.")
        for (method, kind, status), count in sorted(requests.items()):
            yield (
                f'conforma_serve_requests_total{{method="{method}",kind="{kind}",'
                f'status="{status}"}} {count}'
            )
        yield from _head("sent_bytes_total", "counter", "Bytes of bodies sent to clients.")
        for kind, count in sorted(sent.items()):
            yield f'conforma_serve_sent_bytes_total{{kind="{kind}"}} {count}'
        yield from _one(
            "broken_answers_total", "counter", "Answers that did not reach their end.", broken
        )
        for name, (text, value) in self.gauges.items():
            yield from _one(name, "gauge", text, value())
        cache, upstream = self._cache(), self._upstream()
        yield from _one(
            "cache_requests_total", "counter", "Blobs asked of the cache.", cache.requests
        )
        yield from _one("cache_hits_total", "counter", "Blobs the cache had.", cache.hits)
        yield from _one("cache_coalesced_total", "counter", "Blobs another one was fetching.",
                        cache.coalesced)  # fmt: skip
        yield from _one("upstream_requests_total", "counter", "Requests to upstreams.",
                        upstream.requests)  # fmt: skip
        yield from _one("upstream_received_bytes_total", "counter", "Bytes received from upstreams.",
                        upstream.received_bytes)  # fmt: skip


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP conforma_serve_{name} {text}"
    yield f"# TYPE conforma_serve_{name} {kind}"


def _one(name: str, kind: str, text: str, value: int) -> Iterator[str]:
    yield from _head(name, kind, text)
    yield f"conforma_serve_{name} {value}"
