"""A small threaded HTTP/1.1 server: keep-alive, bodies straight from disk, faults on demand.

It is not ``http.server`` because the faults need the socket: an answer cut
short, a reset in mid-body, a length that is a lie. One thread serves one
connection, so a slow client delays nobody.
"""

from __future__ import annotations

import contextlib
import io
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct, field

from conforma.oci.wire import set_patience
from conforma.serve.bodies import Body, MemoryBody
from conforma.serve.faults import Fault, FaultPlan
from conforma.serve.limits import Limits, PatientReader, cut, refuse
from conforma.serve.log import RequestLog
from conforma.serve.sending import Sender, phrase

MAX_HEAD_LINE = 64 * 1024
MAX_HEADERS = 200
DRAIN_LIMIT = 16 * 1024 * 1024
PIECE = 256 * 1024


class BadRequest(Exception):
    """Bytes that are no HTTP/1 request; the connection is closed."""


class Response(Struct):
    """An answer. The length is that of ``body``; ``close`` ends the connection after it."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Body = field(default_factory=lambda: MemoryBody(b""))
    close: bool = False

    @classmethod
    def document(cls, status: int, value: Any, **headers: str) -> Response:
        """An answer whose body is this value as JSON."""
        named = {"Content-Type": "application/json"}
        named.update({name.replace("_", "-"): text for name, text in headers.items()})
        return cls(status, named, MemoryBody(json.dumps(value).encode()))


class RequestBody:
    """The body of a request, readable once, plain or chunked."""

    def __init__(self, stream: BinaryIO, headers: Mapping[str, str]) -> None:
        self._stream = stream
        self._chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        self._left = _length(headers.get("content-length", "0") or "0", 10)
        self._pieces = self._chunks() if self._chunked else self._plain()
        self.done = False
        self._broken = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._pieces
        except BadRequest:
            self._broken = True
            raise
        self.done = True

    def read(self, limit: int) -> bytes:
        """Everything, or ``BadRequest`` if it is more than ``limit`` bytes."""
        collected = bytearray()
        for piece in self:
            collected += piece
            if len(collected) > limit:
                raise BadRequest(f"body over {limit} bytes")
        return bytes(collected)

    def drained(self) -> bool:
        """Skip what nobody read; False if the connection cannot be used again after that."""
        if self._broken:
            return False
        skipped = 0
        for piece in self:
            skipped += len(piece)
            if skipped > DRAIN_LIMIT:
                return False
        return True

    def _plain(self) -> Iterator[bytes]:
        while self._left:
            piece = self._stream.read(min(self._left, PIECE))
            if not piece:
                raise BadRequest("body ends early")
            self._left -= len(piece)
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        while True:
            size = left = _length(self._stream.readline(MAX_HEAD_LINE).split(b";")[0], 16)
            while left:
                piece = self._stream.read(min(left, PIECE))
                if not piece:
                    raise BadRequest("chunk ends early")
                left -= len(piece)
                yield piece
            if size == 0:
                while self._stream.readline(MAX_HEAD_LINE).strip():
                    pass
                return
            self._stream.readline(MAX_HEAD_LINE)


def _length(text: str | bytes, base: int) -> int:
    """A number of bytes. Raises ``BadRequest``: reading a negative one would never end."""
    try:
        length = int(text, base)
    except ValueError as error:
        raise BadRequest(f"{text!r} is no length") from error
    if length < 0:
        raise BadRequest(f"{text!r} is no length")
    return length


class Incoming(Struct):
    """A request as the handler sees it; header names are in lower case.

    ``client`` is the address and port it came from, where the server tells. While inside what
    ``watch`` gives, what it is given is called when the client has gone, where the server can tell.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: RequestBody
    target: str
    version: str
    client: str = ""
    watch: Callable[[Callable[[], None]], AbstractContextManager[object]] = nullcontext


Handler = Callable[[Incoming], Response]


class HttpServer:
    """Listens on ``host``:``port`` (0: any free one) from construction until :meth:`close`.

    With a TLS context every connection is encrypted. ``handler`` is called
    from many threads at once. A connection beyond ``limits`` is refused with
    a 503; the grace there is not given.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.log = RequestLog()
        self.faults = FaultPlan()
        self._handler = handler
        self._tls = tls
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._closing = False
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=512)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._thread = threading.Thread(target=self._accept, name="httpd-accept", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and cut every connection; whoever is held goes on and ends."""
        with self._lock:
            self._closing = True
            connections = list(self._connections)
        # accept() in another thread is only woken by a shutdown, not by a close.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in connections:
            cut(connection)
        self.faults.clear()
        self._thread.join(timeout=5)

    def _accept(self) -> None:
        while True:
            try:
                connection, client = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._closing:
                    connection.close()
                    return
                room = len(self._connections) < self._limits.connections
                if room:
                    self._connections.add(connection)
            if not room:
                refuse(connection)
                continue
            threading.Thread(
                target=self._connection, args=(connection, client[:2]), name="httpd", daemon=True
            ).start()

    def _connection(self, plain: socket.socket, client: tuple[str, int]) -> None:
        connection = plain
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            set_patience(plain, socket.SO_SNDTIMEO, self._limits.stalled)
            if self._tls is not None:
                connection = self._encrypted(plain, self._tls)
            reader = PatientReader(connection, self._limits)
            with io.BufferedReader(reader) as stream:
                while self._one_request(connection, reader, stream, client):
                    pass
        except (OSError, BadRequest, ValueError):
            # The client went away, stalled or speaks no HTTP: there is nobody to tell.
            pass
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()

    def _encrypted(self, plain: socket.socket, tls: ssl.SSLContext) -> ssl.SSLSocket:
        """The connection after the handshake; its descriptor has moved to another object."""
        encrypted = tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self._connections.discard(plain)
            self._connections.add(encrypted)
        if self._closing:
            raise ConnectionAbortedError
        set_patience(encrypted, socket.SO_RCVTIMEO, self._limits.head)
        encrypted.do_handshake()
        return encrypted

    def _one_request(
        self,
        connection: socket.socket,
        reader: PatientReader,
        stream: BinaryIO,
        client: tuple[str, int],
    ) -> bool:
        """Answer one request; whether another may follow on this connection."""
        reader.await_head()
        incoming = read_head(stream)
        if incoming is None:
            return False
        reader.head_is_complete()
        entry = self.log.begin(
            incoming.method,
            incoming.path,
            urlsplit(incoming.target).query,
            incoming.headers,
            client,
        )
        sender = Sender(connection, entry)
        try:
            fault = self.faults.choose(incoming.method, incoming.target)
            if fault is not None:
                sender.before(fault)
            if incoming.headers.get("expect", "").lower() == "100-continue":
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            response = self._answer(incoming, fault)
            keep = incoming.body.drained() and not response.close
            keep = keep and incoming.headers.get("connection", "").lower() != "close"
            keep = keep and incoming.version == "HTTP/1.1"
            return sender.send(
                response.status,
                response.headers,
                response.body,
                head_only=incoming.method == "HEAD",
                keep=keep,
                fault=fault,
            )
        finally:
            entry.finished()

    def _answer(self, incoming: Incoming, fault: Fault | None) -> Response:
        if fault is None:
            return self._handler(incoming)
        if fault.ignore_range:
            incoming.headers.pop("range", None)
        status = 307 if fault.redirect is not None else fault.status
        if status is None:
            return self._handler(incoming)
        if fault.apply:
            self._handler(incoming)
        if fault.body is not None:
            response = Response(status, {}, MemoryBody(fault.body))
        else:
            reason = phrase(status)
            detail = {"code": reason.upper().replace(" ", "_"), "message": f"{reason} (injected)"}
            response = Response.document(status, {"errors": [detail]})
        if fault.redirect is not None:
            response.headers["Location"] = fault.redirect
        return response


def read_head(stream: BinaryIO) -> Incoming | None:
    """The next request on a connection, its body still unread; None at the end.

    Raises ``BadRequest``.
    """
    line = stream.readline(MAX_HEAD_LINE)
    if not line.strip():
        return None
    parts = line.decode("latin-1").split()
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise BadRequest(repr(line))
    method, target, version = parts
    headers: dict[str, str] = {}
    lines = 0
    while (line := stream.readline(MAX_HEAD_LINE)).strip():
        lines += 1
        if lines > MAX_HEADERS:
            raise BadRequest(f"more than {MAX_HEADERS} headers")
        name, separator, value = line.decode("latin-1").partition(":")
        if not separator:
            raise BadRequest(repr(line))
        name, value = name.lower(), value.strip()
        # Accept and others may come more than once; a list is their joint meaning (RFC 9110 5.3).
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    url = urlsplit(target)
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    return Incoming(
        method, unquote(url.path), query, headers, RequestBody(stream, headers), target, version
    )
