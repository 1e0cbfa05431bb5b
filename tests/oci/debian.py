"""Debian's docker-registry behind our own server's log, faults and logins.

The client's tests run against it as they run against our registry: what a
request means is decided by docker-registry, and the log in front of it is the
same witness. Every server gets a part of the registry's name space to itself.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import pytest

from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.serve.auth import REALM_PATH, BearerAuth
from conforma.serve.bodies import MemoryBody
from conforma.serve.guard import token
from conforma.serve.httpd import Incoming, Response
from conforma.serve.registry import RegistryServer
from conforma.serve.repository import StoredManifest

_LISTENING: Final = re.compile(r"listening on (127\.0\.0\.1:\d+)")
_WHERE: Final = re.compile(r"/v2/(?P<name>.+?)/(?P<rest>(?:manifests|blobs|tags|referrers)/.*)")
# Framing is the business of the server in front.
_FRAMING: Final = frozenset({"content-length", "transfer-encoding", "connection", "date"})
_NUMBERS: Final = itertools.count()


@contextmanager
def docker_registry(place: Path) -> Iterator[str]:
    """Run docker-registry with its data in ``place``; skips the test if it is not installed."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed (Debian: apt-get install docker-registry)")
    config = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": False}},
        "storage": {
            "filesystem": {"rootdirectory": str(place / "data")},
            "delete": {"enabled": True},
        },
        "http": {"addr": "127.0.0.1:0"},
    }
    (place / "config.yml").write_text(json.dumps(config))
    process = subprocess.Popen(
        [program, "serve", str(place / "config.yml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as lines:
        said = []
        for line in lines:
            said.append(line)
            if listening := _LISTENING.search(line):
                break
        else:
            raise AssertionError("".join(said))
        # It would stop if nobody read what it says.
        reader = threading.Thread(target=lines.read)
        reader.start()
        try:
            yield listening[1]
        finally:
            process.terminate()
            process.wait(10)
            reader.join(10)


class DebianRegistry(RegistryServer):
    """docker-registry at ``upstream``, asked through a server with a log, faults and logins."""

    def __init__(self, upstream: str, **options: Any) -> None:
        self._upstream = upstream
        self._prefix = f"n{os.getpid()}-{next(_NUMBERS)}"
        self._mounts = options.get("mounts", True)
        super().__init__(**options)
        self.store = _Store(self)  # type: ignore[assignment]

    def ask(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes, int]:
        """Status, headers, body and announced length of docker-registry's own answer."""
        connection = http.client.HTTPConnection(self._upstream, timeout=30)
        try:
            # Addresses in its answers are those of the server in front.
            named = {**(headers or {}), "host": self.host}
            connection.request(method, target, body or None, named)
            answer = connection.getresponse()
            found = dict(answer.getheaders())
            raw = answer.read()
        finally:
            connection.close()
        length = next((v for n, v in found.items() if n.lower() == "content-length"), "0")
        return answer.status, found, raw, int(length) if method == "HEAD" else len(raw)

    def inside(self, name: str) -> str:
        """The name of a repository as docker-registry knows it."""
        return f"{self._prefix}/{name}"

    def _handle(self, incoming: Incoming) -> Response:
        if incoming.path == REALM_PATH and isinstance(self.auth, BearerAuth):
            return token(self.auth, incoming)
        match = _WHERE.fullmatch(incoming.path)
        refusal = self._refuse(incoming, match and match["name"])
        if refusal is not None:
            return refusal
        query = dict(incoming.query)
        if "from" in query:
            query["from"] = self.inside(query["from"])
        if not self._mounts:
            query.pop("mount", None)
        place = f"/v2/{self.inside(match['name'])}/{match['rest']}" if match else incoming.path
        target = quote(place, safe="/:") + (f"?{urlencode(query)}" if query else "")
        passed = {
            n: v for n, v in incoming.headers.items() if n not in (*_FRAMING, "authorization")
        }
        body = b"".join(incoming.body)
        if body or incoming.method in ("POST", "PUT", "PATCH"):
            passed["Content-Length"] = str(len(body))
        status, headers, raw, length = self.ask(incoming.method, target, body, passed)
        kept = {n: v for n, v in headers.items() if n.lower() not in _FRAMING}
        if "Location" in kept:
            kept["Location"] = kept["Location"].replace(f"/v2/{self._prefix}/", "/v2/")
        return Response(status, kept, _Announced(raw, length))


class _Announced(MemoryBody):
    """The body of an answer; that to a HEAD has a size and no bytes."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self._announced = size

    @property
    def size(self) -> int:
        """What Content-Length said."""
        return self._announced


class _Store:
    """Content put into docker-registry directly, past the log and the faults."""

    def __init__(self, server: DebianRegistry) -> None:
        self._server = server

    def put_blob(self, name: str, data: bytes) -> Digest:
        """Upload a blob."""
        digest = Digest.of(data)
        base = f"/v2/{self._server.inside(name)}/blobs/uploads/"
        _, headers, _, _ = self._server.ask("POST", base, headers={"Content-Length": "0"})
        place = urlsplit(headers["Location"])
        self._accepted(
            *self._server.ask("PUT", f"{place.path}?{place.query}&digest={digest}", data)
        )
        return digest

    def repository(self, name: str) -> _Repository:
        """One repository."""
        return _Repository(self._server, name)

    @staticmethod
    def _accepted(status: int, _: dict[str, str], raw: bytes, __: int) -> None:
        assert status in (201, 202), f"docker-registry does not take this: {status} {raw[:200]!r}"


class _Repository:
    """Manifests and blobs of one repository."""

    def __init__(self, server: DebianRegistry, name: str) -> None:
        self._server = server
        self._base = f"/v2/{server.inside(name)}"

    @property
    def tags(self) -> tuple[str, ...]:
        """All tags in lexical order."""
        _, _, raw, _ = self._server.ask("GET", f"{self._base}/tags/list")
        return tuple(sorted(json.loads(raw)["tags"]))

    def put_manifest(
        self, raw: bytes, media_type: str, *, tag: str | None = None, digest: Digest | None = None
    ) -> Digest:
        """Push a manifest."""
        digest = digest or Digest.of(raw)
        target = f"{self._base}/manifests/{tag or digest}"
        _Store._accepted(*self._server.ask("PUT", target, raw, {"Content-Type": media_type}))
        return digest

    def find(self, tag_or_digest: str) -> tuple[Digest, StoredManifest] | None:
        """The manifest under a tag or digest."""
        accept = {"Accept": media_types.ACCEPT_MANIFEST}
        target = f"{self._base}/manifests/{tag_or_digest}"
        status, headers, raw, _ = self._server.ask("GET", target, headers=accept)
        return (
            (Digest.of(raw), StoredManifest(headers["Content-Type"], raw))
            if status == 200
            else None
        )

    def delete_manifest(self, name: str) -> bool:
        """Remove a manifest, as its owner might."""
        return self._server.ask("DELETE", f"{self._base}/manifests/{name}")[0] == 202

    def has_blob(self, digest: Digest) -> bool:
        """Whether the repository has the blob."""
        return self._server.ask("HEAD", f"{self._base}/blobs/{digest}")[0] == 200
