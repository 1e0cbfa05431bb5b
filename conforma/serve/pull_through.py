"""The pull half of the distribution protocol, answered from the cache or from upstream.

Many clients that want one blob cost one download, and each of them reads
along while it lands. A blob is given to a repository only if upstream offers
it there: what names it is a manifest of that repository, or upstream's word.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Final

from conforma.errors import (
    AccessDenied,
    BadDigest,
    BadReference,
    ConformaError,
    InputError,
    Interrupted,
    NotFound,
    RateLimited,
)
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.manifest import Descriptor, Index
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry
from conforma.serve.auth import REALM_PATH, Access, BearerAuth
from conforma.serve.bodies import Body, MemoryBody, Slice
from conforma.serve.guard import refusal, token
from conforma.serve.httpd import Incoming, Response
from conforma.serve.landing import Landings
from conforma.serve.listing import page_of_names
from conforma.serve.metrics import CONTENT_TYPE
from conforma.serve.ranges import wanted_range
from conforma.serve.uploads import failure
from conforma.serve.upstreams import Upstreams

_ROUTE: Final = re.compile(
    r"/v2/(?:(?P<name>.+)/(?P<kind>blobs|manifests|referrers)/(?P<what>[^/]+)"
    r"|(?P<listed>.+)/tags/list)"
)
_HEALTH: Final = frozenset({"/healthz", "/readyz"})
METRICS_PATH: Final = "/metrics"
_REMEMBERED: Final = 50_000
_UNKNOWN: Final = {
    "blobs": "BLOB_UNKNOWN",
    "manifests": "MANIFEST_UNKNOWN",
    "referrers": "MANIFEST_UNKNOWN",
    "tags": "NAME_UNKNOWN",
}


class PullThrough:
    """Answers requests. Thread safe.

    A tag is asked about again after ``fresh`` seconds; what it named stays
    good for ever.
    """

    def __init__(
        self,
        registry: Registry,
        landings: Landings,
        upstreams: Upstreams,
        *,
        access: Access | None = None,
        metrics: Callable[[], str] = lambda: "",
        fresh: float = 60.0,
    ) -> None:
        self._registry = registry
        self._landings = landings
        self._upstreams = upstreams
        self._access = access
        self._metrics = metrics
        self._fresh = fresh
        self._lock = threading.Lock()
        self._asked: OrderedDict[Reference, float] = OrderedDict()
        self._offered: OrderedDict[Reference, int] = OrderedDict()

    def __call__(self, incoming: Incoming) -> Response:
        """The answer to one request; never raises an explainable error."""
        if incoming.path in _HEALTH:
            return Response.document(200, {"status": "ok"})
        if incoming.method not in ("GET", "HEAD"):
            answer = failure(405, "UNSUPPORTED", f"{incoming.method} is not possible here")
            answer.headers["Allow"] = "GET, HEAD"
            return answer
        if incoming.path == REALM_PATH and isinstance(self._access, BearerAuth):
            return token(self._access, incoming)
        match = _ROUTE.fullmatch(incoming.path)
        name = (match["name"] or match["listed"]) if match else None
        if (refused := self._refuse(incoming, name)) is not None:
            return refused
        if incoming.path == METRICS_PATH:
            return Response(
                200, {"Content-Type": CONTENT_TYPE}, MemoryBody(self._metrics().encode())
            )
        if incoming.path in ("/v2/", "/v2"):
            headers = {"Docker-Distribution-API-Version": "registry/2.0"}
            return Response.document(200, {}, **headers)
        if match is None:
            return failure(404, "NAME_INVALID", f"nothing at {incoming.path[:200]}")
        return self._answer(match, incoming)

    def _answer(self, match: re.Match[str], incoming: Incoming) -> Response:
        kind = match["kind"] or "tags"
        namespace = incoming.query.get("ns", "")
        try:
            if kind == "tags":
                listed = self._upstreams.reference(match["listed"], "latest", namespace)
                tags = tuple(sorted(self._registry.tags(listed)))
                return page_of_names(incoming, "tags", tags, None, name=match["listed"])
            place = self._upstreams.reference(match["name"], match["what"], namespace)
            if kind == "manifests":
                return self._manifest(place, incoming)
            if place.digest is None:
                return failure(400, "DIGEST_INVALID", f"{match['what'][:200]} is not a digest")
            if kind == "referrers":
                return self._referrers(place, incoming)
            return self._blob(place, place.digest, incoming)
        except BadDigest as error:
            return failure(400, "DIGEST_INVALID", error.message)
        except BadReference as error:
            code = "DIGEST_INVALID" if isinstance(error.__cause__, BadDigest) else "NAME_INVALID"
            return failure(400, code, error.message)
        except ConformaError as error:
            return _failed(error, kind)

    def _manifest(self, place: Reference, incoming: Incoming) -> Response:
        self._freshen(place)
        if incoming.method == "HEAD":
            found = self._registry.head(place)
            return Response(200, _headers(found.media_type, found.digest), _Absent(found.size))
        document = self._registry.manifest(place)
        digest = place.digest or self._registry.head(place).digest
        if not isinstance(document, Index):
            for blob in (document.config, *document.layers):
                self._remember(place.pinned(blob.digest), blob.size)
        return Response(200, _headers(document.media_type, digest), MemoryBody(document.raw))

    def _referrers(self, place: Reference, incoming: Incoming) -> Response:
        self._freshen(place)
        wanted = incoming.query.get("artifactType")
        try:
            found = self._registry.referrers(place, wanted)
        except NotFound:
            found = ()
        index = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_INDEX,
            "manifests": [descriptor.as_dict() for descriptor in found],
        }
        headers = {"Content-Type": media_types.OCI_INDEX}
        if wanted is not None:
            headers["OCI-Filters-Applied"] = "artifactType"
        return Response(200, headers, MemoryBody(json.dumps(index).encode()))

    def _blob(self, place: Reference, digest: Digest, incoming: Incoming) -> Response:
        size = self._size(place)
        headers = {**_headers(media_types.OCTETS, digest), "Accept-Ranges": "bytes"}
        if incoming.method == "HEAD":
            return Response(200, headers, _Absent(size))
        wanted = wanted_range(incoming.headers.get("range"), size)
        if wanted is not None and wanted[0] > wanted[1]:
            answer = failure(416, "RANGE_INVALID", "nothing in this range")
            answer.headers["Content-Range"] = f"bytes */{size}"
            return answer
        body = self._body(place, Descriptor(media_types.OCTETS, digest, size))
        if wanted is None:
            return Response(200, headers, body)
        first, last = wanted
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        return Response(206, headers, Slice(body, first, last - first + 1))

    def _body(self, place: Reference, descriptor: Descriptor) -> Body:
        def fetch(offset: int) -> AbstractContextManager[Iterator[bytes]]:
            return self._registry.open_blob(place, descriptor, offset=offset)

        return self._landings.open(descriptor, fetch, place.repository_name)

    def _size(self, place: Reference) -> int:
        """The blob's length, if upstream offers it in this repository."""
        with self._lock:
            known = self._offered.get(place)
        if known is None:
            digest = place.digest
            assert digest is not None
            known = self._registry.blob_size(place, digest)
            self._remember(place, known)
        return known

    def _remember(self, place: Reference, size: int) -> None:
        with self._lock:
            self._offered[place] = size
            self._offered.move_to_end(place)
            if len(self._offered) > _REMEMBERED:
                self._offered.popitem(last=False)

    def _freshen(self, place: Reference) -> None:
        """Have upstream asked again about what may have changed since we asked."""
        now = time.monotonic()
        stale: list[Reference] = []
        with self._lock:
            asked = self._asked.setdefault(place, now)
            if now - asked > self._fresh:
                self._asked[place] = now
                self._asked.move_to_end(place)
                stale.append(place)
            if len(self._asked) > _REMEMBERED:
                stale.append(self._asked.popitem(last=False)[0])
        for reference in stale:
            self._registry.forget(reference)

    def _refuse(self, incoming: Incoming, name: str | None) -> Response | None:
        scheme = incoming.headers.get("x-forwarded-proto", "http")
        url = f"{scheme}://{incoming.headers.get('host', '')}"
        return refusal(self._access, incoming, name, frozenset({"pull"}), url)


class _Absent:
    """A body of which an answer to HEAD tells the length."""

    def __init__(self, size: int) -> None:
        self.size = size

    def read(self, offset: int, count: int) -> bytes:
        """Never called: HEAD has no body."""
        raise NotImplementedError

    def send(
        self, connection: socket.socket, offset: int, count: int, sent: Callable[[int], None]
    ) -> None:
        """Never called: HEAD has no body."""
        raise NotImplementedError


def _headers(media_type: str, digest: Digest) -> dict[str, str]:
    return {
        "Content-Type": media_type,
        "Docker-Content-Digest": str(digest),
        "ETag": f'"{digest}"',
        "Docker-Distribution-API-Version": "registry/2.0",
    }


def _failed(error: ConformaError, kind: str) -> Response:
    """An upstream's failure as ours: absence stays absence, an outage is a bad gateway."""
    if isinstance(error, NotFound):
        return failure(404, _UNKNOWN[kind], error.message)
    if isinstance(error, AccessDenied):
        return failure(403, "DENIED", error.message)
    if isinstance(error, RateLimited):
        answer = failure(429, "TOOMANYREQUESTS", error.message)
        answer.headers["Retry-After"] = "5"
        return answer
    if isinstance(error, Interrupted):
        return failure(503, "UNAVAILABLE", "shutting down")
    if isinstance(error, InputError):
        return failure(400, "NAME_INVALID", error.message)
    return failure(502, "UNKNOWN", error.message)
