"""Real servers for policy sources: git over HTTPS, plain files over HTTPS, a small Kubernetes API.

Each listens on loopback, keeps a log of requests, and stops with its context.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme
import yaml

from conforma.cancellation import Cancellation

Answer = tuple[int, Mapping[str, str], bytes]
Handle = Callable[[str, str, Mapping[str, str], bytes], Answer]

GIT_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_AUTHOR_NAME": "t",
    "GIT_AUTHOR_EMAIL": "t@t.example",
    "GIT_COMMITTER_NAME": "t",
    "GIT_COMMITTER_EMAIL": "t@t.example",
    "GIT_AUTHOR_DATE": "2024-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2024-01-01T00:00:00Z",
}


@dataclass
class Service:
    """A running server. ``log`` holds method and path of each request."""

    host: str
    ca_file: Path
    log: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to believe this server."""
        return {**os.environ, "SSL_CERT_FILE": str(self.ca_file)}


@contextmanager
def serving(handle: Handle, directory: Path, *, tls: bool = True) -> Iterator[Service]:
    """Serve ``handle(method, path, headers, body)`` on loopback."""
    ca_file = directory / "ca.pem"

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            service.log.append(f"{self.command} {self.path}")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            status, headers, content = handle(self.command, self.path, self.headers, body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = respond

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(ca_file))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    service = Service(f"127.0.0.1:{server.server_port}", ca_file)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def git(directory: Path, *arguments: str) -> str:
    """Run git in ``directory`` as a developer would."""
    done = subprocess.run(
        ["git", *arguments], cwd=directory, env=GIT_ENVIRONMENT, capture_output=True, check=True
    )
    return done.stdout.decode().strip()


def repository(directory: Path, files: Mapping[str, str]) -> Path:
    """A repository ``directory`` with one commit on the branch ``main``."""
    directory.mkdir(parents=True)
    git(directory, "init", "-q", "-b", "main")
    commit(directory, files)
    return directory


def commit(directory: Path, files: Mapping[str, str]) -> str:
    """Commit ``files`` (a value ``-> target`` makes a symbolic link); returns the commit."""
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("-> "):
            path.symlink_to(content.removeprefix("-> "))
        else:
            path.write_text(content)
    git(directory, "add", "-A")
    git(directory, "commit", "-q", "--allow-empty", "-m", "m")
    return git(directory, "rev-parse", "HEAD")


def git_backend(root: Path, *, environment: Mapping[str, str] | None = None) -> Handle:
    """Git's own smart HTTP server for the repositories below ``root``."""

    def handle(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        name, _, query = path.partition("?")
        done = subprocess.run(
            ["git", "http-backend"],
            env={
                **GIT_ENVIRONMENT,
                "GIT_PROJECT_ROOT": str(root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": method,
                "PATH_INFO": name,
                "QUERY_STRING": query,
                "CONTENT_TYPE": headers.get("Content-Type") or "",
                "HTTP_CONTENT_ENCODING": headers.get("Content-Encoding") or "",
                "GIT_PROTOCOL": headers.get("Git-Protocol") or "",
                **(environment or {}),
            },
            input=body,
            capture_output=True,
            check=False,
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        status = int(fields.pop("Status", "200").split()[0])
        return status, fields, content

    return handle


def files_at(files: Mapping[str, Answer | bytes]) -> Handle:
    """A server of files; a value may be a whole answer."""

    def handle(_: str, path: str, __: Mapping[str, str], ___: bytes) -> Answer:
        found = files.get(path.partition("?")[0], (404, {}, b"no such file"))
        return (200, {}, found) if isinstance(found, bytes) else found

    return handle


def kubernetes(objects: Mapping[str, Any]) -> Handle:
    """An API server that knows ``objects`` by path."""

    def handle(_: str, path: str, __: Mapping[str, str], ___: bytes) -> Answer:
        kind = {"Content-Type": "application/json"}
        found = objects.get(path.partition("?")[0])
        if isinstance(found, int):
            return (
                found,
                kind,
                json.dumps(
                    {"kind": "Status", "code": found, "message": "no", "reason": "no"}
                ).encode(),
            )
        if found is None:
            name = path.rpartition("/")[2]
            resource = path.rpartition("/")[0].rpartition("/")[2]
            status = {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "message": f'{resource} "{name}" not found',
                "reason": "NotFound",
                "code": 404,
            }
            return 404, kind, json.dumps(status).encode()
        return 200, kind, json.dumps(found).encode()

    return handle


def kubeconfig(directory: Path, host: str, **context: str) -> Path:
    """Like those of the acceptance kit: no users, none used, no namespace unless given."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://{host}"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "", **context}}],
        "current-context": "x",
        "users": None,
    }
    (directory / "kubeconfig").write_text(yaml.safe_dump(document))
    return directory / "kubeconfig"


def cancelled_while_it_hangs(
    work: Callable[[Service, Cancellation], object], directory: Path
) -> BaseException:
    """What ``work`` raises when it is cancelled and its server has not answered."""
    asked, release = threading.Event(), threading.Event()

    def handle(*_: object) -> Answer:
        asked.set()
        release.wait(30)
        return 500, {}, b""

    cancellation = Cancellation()
    raised: list[BaseException] = []

    def run(server: Service) -> None:
        try:
            work(server, cancellation)
        except BaseException as error:
            raised.append(error)

    with serving(handle, directory) as server:
        thread = threading.Thread(target=run, args=(server,))
        thread.start()
        try:
            assert asked.wait(20)
            cancellation.cancel()
            thread.join(20)
            assert not thread.is_alive(), "it waits for the answer"
        finally:
            release.set()
    (error,) = raised
    return error
