"""Serving a ledger over plain HTTP: its metadata and targets, and nothing else.

TUF protects what is served, so neither encryption nor a login is needed; the
queue, the records and the settings are not for readers.
"""

from __future__ import annotations

import logging
import re
import shutil
import socket
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO, Final

from conforma.errors import InputError

log = logging.getLogger(__name__)

_IDLE_SECONDS: Final = 60.0
_SERVED: Final = re.compile(r"/(?:metadata|targets)(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+")


def serve(directory: Path, host: str, port: int) -> ThreadingHTTPServer:
    """A server for the ledger, listening; ``serve_forever`` runs it.

    Raises ``InputError`` if it cannot listen there.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "conforma-ledger"
        timeout = _IDLE_SECONDS
        sys_version = ""

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def log_message(self, format: str, *args: object) -> None:
            log.info("%s %s", self.address_string(), format % args)

        def _answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            try:
                if not _SERVED.fullmatch(path):
                    raise FileNotFoundError
                file = (directory / path[1:]).open("rb")
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            except OSError as cause:
                # To clients, a root that is not found is one that was never made.
                log.error("%s: %s", cause.filename, cause.strerror)
                self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)
                return
            # The size is of the file that was opened: a switch in between changes nothing.
            with file:
                self._send(file, path, body=body)

        def _send(self, file: BinaryIO, path: str, *, body: bool) -> None:
            try:
                size = file.seek(0, 2)
                file.seek(0)
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Length", str(size))
                self.send_header("Content-Type", "application/json")
                self.send_header("Cache-Control", _cache_control(path))
                self.end_headers()
                if body:
                    shutil.copyfileobj(file, self.wfile)
            except OSError:  # falling short of the promised length is the way to tell
                self.close_connection = True

    class Listener(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    try:
        return Listener((host, port), Handler)
    except OSError as cause:
        raise InputError(f"cannot listen on {host}:{port}: {cause.strerror}") from cause


def _cache_control(path: str) -> str:
    """Only the timestamp changes; root is asked for by versions that do not exist yet."""
    return "no-cache" if path.endswith("/timestamp.json") else "public, max-age=31536000, immutable"
