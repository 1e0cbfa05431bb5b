"""A registry on a real socket that speaks the OCI distribution specification 1.1.

It is the one behind ``conforma demo`` and behind every test that needs a
registry. What makes it fit for tests: :attr:`RegistryServer.log` knows every
request, :attr:`RegistryServer.faults` breaks any of them, and
:attr:`RegistryServer.store` takes content directly, checked by nobody.

::

    with RegistryServer() as server:
        server.store.put_blob("app", b"layer")
        server.faults.add(Fault(status=503), method="GET", path="/blobs/")
        ...  # talk to server.host
        assert server.log.blob_downloads().total() == 2
"""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from types import TracebackType

from conforma.errors import BadDigest
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.serve.auth import REALM_PATH, Access, BearerAuth
from conforma.serve.bodies import MemoryBody, Slice
from conforma.serve.guard import refusal, token
from conforma.serve.httpd import BadRequest, HttpServer, Incoming, Response
from conforma.serve.limits import Limits
from conforma.serve.listing import page_of_names, page_of_referrers
from conforma.serve.log import RequestLog
from conforma.serve.ranges import wanted_range
from conforma.serve.repository import Repository, StoredManifest
from conforma.serve.store import Store
from conforma.serve.uploads import Uploads, failure

# Distribution specification 1.1: registries should accept manifests of 4 MiB.
MAX_MANIFEST = 4 * 1024 * 1024
_NAME = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
_TAG = r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"
_ROUTE = re.compile(
    rf"/v2/(?P<name>{_NAME})/(?:"
    r"blobs/uploads/(?P<session>[0-9a-f]*)|blobs/(?P<blob>[^/]+)|"
    r"manifests/(?P<manifest>[^/]+)|referrers/(?P<subject>[^/]+)|(?P<tags>tags/list))"
)


class RegistryServer:
    """Serves from construction until :meth:`close`, on a loopback port unless told otherwise.

    ``directory`` keeps everything on disk, for large layers or for another
    time. ``referrers=False`` switches the referrers API off (404), as older
    registries do; ``page_size`` limits tag and referrer pages.
    ``check_pushes=False`` accepts manifests whose blobs are missing.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        auth: Access | None = None,
        referrers: bool = True,
        page_size: int | None = None,
        exclusive_uploads: bool = False,
        mounts: bool = True,
        check_pushes: bool = True,
        limits: Limits | None = None,
    ) -> None:
        self.store = Store(directory)
        self.auth = auth
        self.referrers = referrers
        self.page_size = page_size
        self.check_pushes = check_pushes
        self._uploads = Uploads(self.store, exclusive=exclusive_uploads, mounts=mounts)
        self._scheme = "https" if tls else "http"
        self._http = HttpServer(self._handle, host=host, port=port, tls=tls, limits=limits)
        self.faults = self._http.faults

    def __enter__(self) -> RegistryServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving and cut all connections; what is stored stays readable."""
        self._http.close()

    @property
    def log(self) -> RequestLog:
        """Every request so far."""
        return self._http.log

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._http.address[1]

    @property
    def host(self) -> str:
        """``address:port`` as it appears in an image reference."""
        address = self._http.address[0]
        return f"[{address}]:{self.port}" if ":" in address else f"{address}:{self.port}"

    @property
    def url(self) -> str:
        """Where it listens, with the scheme."""
        return f"{self._scheme}://{self.host}"

    def _handle(self, incoming: Incoming) -> Response:
        if incoming.path == REALM_PATH and isinstance(self.auth, BearerAuth):
            return token(self.auth, incoming)
        match = _ROUTE.fullmatch(incoming.path)
        if (refused := self._refuse(incoming, match and match["name"])) is not None:
            return refused
        try:
            if match is not None:
                return self._in_repository(match, incoming)
            if incoming.path in ("/v2/", "/v2"):
                return Response.document(200, {})
            if incoming.path == "/v2/_catalog":
                return page_of_names(incoming, "repositories", self.store.names, self.page_size)
        except BadDigest as error:
            return failure(400, "DIGEST_INVALID", str(error))
        except BadRequest as error:
            return failure(413, "SIZE_INVALID", str(error))
        return failure(404, "NAME_INVALID", f"nothing at {incoming.path}")

    def _refuse(self, incoming: Incoming, name: str | None) -> Response | None:
        reading = incoming.method in ("GET", "HEAD")
        actions = frozenset({"pull"} if reading else {"pull", "push"})
        url = f"{self._scheme}://{incoming.headers.get('host', self.host)}"
        return refusal(self.auth, incoming, name, actions, url)

    def _in_repository(self, match: re.Match[str], incoming: Incoming) -> Response:
        name, method = match["name"], incoming.method
        if match["session"] is not None:
            if match["session"]:
                return self._uploads.proceed(name, match["session"], incoming)
            if method == "POST":
                return self._uploads.start(name, incoming)
        elif match["manifest"] is not None and method == "PUT":
            return self._put_manifest(name, match["manifest"], incoming)
        else:
            repository = self.store.existing(name)
            if repository is None:
                return failure(404, "NAME_UNKNOWN", f"repository {name} is unknown")
            if match["blob"] is not None:
                return self._blob(repository, Digest.parse(match["blob"]), incoming)
            if match["manifest"] is not None:
                return self._manifest(repository, match["manifest"], incoming)
            if method in ("GET", "HEAD") and match["tags"] is not None:
                return page_of_names(incoming, "tags", repository.tags, self.page_size, name=name)
            if method in ("GET", "HEAD") and match["subject"] is not None and self.referrers:
                subject = Digest.parse(match["subject"])
                return page_of_referrers(incoming, repository, subject, self.page_size)
            if match["subject"] is not None:
                return failure(404, "NOT_FOUND", "no referrers here")
        return failure(405, "UNSUPPORTED", f"{method} is not possible here")

    def _blob(self, repository: Repository, digest: Digest, incoming: Incoming) -> Response:
        if incoming.method == "DELETE":
            return Response(202 if repository.unlink_blob(digest) else 404)
        body = self.store.blob(digest) if repository.has_blob(digest) else None
        if body is None:
            return failure(404, "BLOB_UNKNOWN", f"{digest} is unknown to {repository.name}")
        headers = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": str(digest),
            "Accept-Ranges": "bytes",
        }
        wanted = wanted_range(incoming.headers.get("range"), body.size)
        if wanted is None:
            return Response(200, headers, body)
        first, last = wanted
        if first > last:
            answer = failure(416, "RANGE_INVALID", "nothing in this range")
            answer.headers["Content-Range"] = f"bytes */{body.size}"
            return answer
        headers["Content-Range"] = f"bytes {first}-{last}/{body.size}"
        return Response(206, headers, Slice(body, first, last - first + 1))

    def _manifest(self, repository: Repository, name: str, incoming: Incoming) -> Response:
        if incoming.method == "DELETE":
            if repository.delete_manifest(name):
                return Response(202)
            return failure(404, "MANIFEST_UNKNOWN", f"{name} is unknown to {repository.name}")
        found = repository.find(name)
        if found is None:
            return failure(404, "MANIFEST_UNKNOWN", f"{name} is unknown to {repository.name}")
        digest, stored = found
        headers = {
            "Content-Type": stored.media_type,
            "Docker-Content-Digest": str(digest),
            "ETag": f'"{digest}"',
        }
        if headers["ETag"] in incoming.headers.get("if-none-match", ""):
            return Response(304, headers)
        return Response(200, headers, MemoryBody(stored.raw))

    def _put_manifest(self, name: str, reference: str, incoming: Incoming) -> Response:
        raw = incoming.body.read(MAX_MANIFEST)
        media_type = incoming.headers.get("content-type", media_types.OCI_MANIFEST)
        digest = Digest.of(raw)
        tag = None
        if ":" in reference:
            expected = Digest.parse(reference)
            digest = Digest.of(raw, expected.algorithm)
            if digest != expected:
                return failure(400, "DIGEST_INVALID", "the content has another digest")
        elif re.fullmatch(_TAG, reference):
            tag = reference
        else:
            return failure(400, "TAG_INVALID", f"{reference} is no tag")
        document = StoredManifest(media_type, raw).document
        if not document:
            return failure(400, "MANIFEST_INVALID", "not a JSON object")
        repository = self.store.repository(name)
        if self.check_pushes and (missing := _missing(repository, document)):
            return failure(404, "MANIFEST_BLOB_UNKNOWN", f"{missing} was not uploaded before")
        repository.put_manifest(raw, media_type, tag=tag, digest=digest)
        headers = {
            "Location": f"/v2/{name}/manifests/{digest}",
            "Docker-Content-Digest": str(digest),
        }
        if self.referrers and isinstance(document.get("subject"), dict):
            headers["OCI-Subject"] = str(document["subject"].get("digest"))
        return Response(201, headers)


def _missing(repository: Repository, document: dict[str, object]) -> str | None:
    """The first blob or child manifest that a manifest names and the repository lacks."""
    layers, children = document.get("layers") or [], document.get("manifests") or []
    blobs = [document.get("config"), *(layers if isinstance(layers, list) else [])]
    for blob in blobs:
        if isinstance(blob, dict) and not blob.get("urls"):
            digest = Digest.parse(str(blob.get("digest")))
            if not repository.has_blob(digest):
                return str(digest)
    for child in children if isinstance(children, list) else []:
        digest = Digest.parse(str(child.get("digest") if isinstance(child, dict) else child))
        if repository.find(digest) is None:
            return str(digest)
    return None
