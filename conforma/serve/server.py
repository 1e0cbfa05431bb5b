"""The HTTP/1.1 server of ``conforma serve``: one thread per connection, h11 for the protocol.

h11 decides what is a request and how an answer is framed; bodies go past it,
from file to socket in the kernel. A connection that is idle can be closed at
any time, and is, when another one wants its place. Why this and not a server
from the shelf: DESIGN.md.
"""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

import h11

from conforma.serve.bodies import Body, MemoryBody
from conforma.serve.httpd import Incoming, RequestBody, Response

_READ: Final = 64 * 1024
_LARGEST_HEAD: Final = 64 * 1024
_LARGEST_BODY: Final = 64 * 1024
_SMALL: Final = 16 * 1024
_LINGERING: Final = 1024 * 1024
_BACKLOG: Final = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections, and how patient we are with each; times in seconds."""

    connections: int = 512
    idle: float = 60.0
    """A connection without a request is closed."""
    head: float = 15.0
    """From the first byte of a request to its last."""
    stalled: float = 60.0
    """A client that takes nothing for so long is given up."""
    grace: float = 20.0
    """What is being sent may go on so long when the server stops."""


@dataclass(frozen=True, slots=True)
class Served:
    """One request that was answered, for metrics and logs."""

    method: str
    path: str
    status: int
    sent: int
    seconds: float
    client: str
    complete: bool


Handler = Callable[[Incoming], Response]


class _Placeholder:
    """Stands for a body in h11's account; the bytes themselves go past it."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


class Server:
    """Listens from construction until :meth:`close`. ``handler`` is called from many threads."""

    def __init__(
        self,
        handler: Handler,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
        on_served: Callable[[Served], None] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._handler = handler
        self._tls = tls
        self._on_served = on_served
        self._changed = threading.Condition()
        self._connections: dict[socket.socket, float | None] = {}  # idle since, or at work
        self._closing = False
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._thread = threading.Thread(target=self._accept, name="serve-accept", daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        """``address:port`` as it appears in an image reference."""
        address, port = self.address
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        with self._changed:
            return len(self._connections)

    def close(self) -> None:
        """Take no more requests, let running answers end within the grace, cut the rest."""
        with self._changed:
            self._closing = True
            idle = [s for s, since in self._connections.items() if since is not None]
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept(); a close would not
        self._listener.close()
        self._thread.join(5)
        for connection in idle:
            _cut(connection)
        with self._changed:
            self._changed.wait_for(lambda: not self._connections, self.limits.grace)
            rest = list(self._connections)
        for connection in rest:
            _cut(connection)

    def _accept(self) -> None:
        while True:
            try:
                connection, client = self._listener.accept()
            except OSError:
                if self._closing:
                    return
                time.sleep(0.05)  # out of descriptors: those that are open will end
                continue
            if not self._admit(connection):
                _refuse(connection)
                continue
            threading.Thread(
                target=self._serve, args=(connection, str(client[0])), name="serve", daemon=True
            ).start()

    def _admit(self, connection: socket.socket) -> bool:
        """Give the connection a place, if need be that of the one that is idle for longest."""
        victim: socket.socket | None = None
        with self._changed:
            if self._closing:
                return False
            if len(self._connections) >= self.limits.connections:
                idle = {s: since for s, since in self._connections.items() if since is not None}
                if not idle:
                    return False
                victim = min(idle, key=lambda s: idle[s])
                del self._connections[victim]
            self._connections[connection] = time.monotonic()
        if victim is not None:
            _cut(victim)
        return True

    def _serve(self, plain: socket.socket, client: str) -> None:
        connection = plain
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _patience(plain, socket.SO_SNDTIMEO, self.limits.stalled)
            _patience(plain, socket.SO_RCVTIMEO, self.limits.head)
            if self._tls is not None:
                connection = self._tls.wrap_socket(plain, server_side=True)
            protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=_LARGEST_HEAD)
            while self._one_request(connection, plain, protocol, client):
                protocol.start_next_cycle()
        except (OSError, h11.ProtocolError):
            pass  # the client went away, stalled, or speaks no HTTP: there is nobody to tell
        finally:
            with self._changed:
                self._connections.pop(plain, None)
                self._changed.notify_all()
            connection.close()

    def _one_request(
        self, connection: socket.socket, plain: socket.socket, protocol: h11.Connection, client: str
    ) -> bool:
        """Answer one request; whether another may follow on this connection."""
        self._idle(plain)
        _patience(plain, socket.SO_RCVTIMEO, self.limits.idle)
        try:
            incoming = self._read(connection, plain, protocol)
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint or 400
            _send(connection, protocol, Response.document(status, {}), head_only=False)
            _linger(connection, plain)
            return False
        if incoming is None:
            return False
        started = time.monotonic()
        response = self._handler(incoming)
        if self._closing:
            response.close = True
        sent = 0

        def count(more: int) -> None:
            nonlocal sent
            sent += more

        complete = False
        try:
            head_only = incoming.method == "HEAD"
            _send(connection, protocol, response, head_only=head_only, sent=count)
            complete = True
        finally:
            if self._on_served is not None:
                seconds = time.monotonic() - started
                self._on_served(
                    Served(incoming.method, incoming.path, response.status, sent, seconds,
                           client, complete)
                )  # fmt: skip
        return protocol.our_state is h11.DONE and protocol.their_state is h11.DONE

    def _idle(self, plain: socket.socket) -> None:
        with self._changed:
            if plain in self._connections:
                self._connections[plain] = time.monotonic()

    def _busy(self, plain: socket.socket) -> None:
        """Take the connection out of reach of :meth:`_admit`. Raises ``OSError`` if it is too late."""
        with self._changed:
            if plain not in self._connections or self._closing:
                raise ConnectionAbortedError
            self._connections[plain] = None

    def _read(
        self, connection: socket.socket, plain: socket.socket, protocol: h11.Connection
    ) -> Incoming | None:
        """The next request; ``None`` when the client has no more."""
        request: h11.Request | None = None
        begun: float | None = None
        body = 0
        while True:
            event = protocol.next_event()
            if event is h11.NEED_DATA:
                if begun is not None and time.monotonic() - begun > self.limits.head:
                    raise TimeoutError
                protocol.receive_data(connection.recv(_READ))
                if begun is None:
                    begun = time.monotonic()
                    self._busy(plain)
                    _patience(plain, socket.SO_RCVTIMEO, self.limits.head)
            elif isinstance(event, h11.Request):
                request = event
                if begun is None:  # it had come with the one before
                    self._busy(plain)
                    begun = time.monotonic()
            elif isinstance(event, h11.Data):
                body += len(event.data)
                if body > _LARGEST_BODY:
                    raise h11.RemoteProtocolError("too large", error_status_hint=413)
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                return _incoming(request)
            else:
                return None


def _incoming(request: h11.Request) -> Incoming:
    headers: dict[str, str] = {}
    for raw_name, raw_value in request.headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    target = request.target.decode("latin-1")
    url = urlsplit(target)
    return Incoming(
        request.method.decode("latin-1"),
        unquote(url.path),
        dict(parse_qsl(url.query, keep_blank_values=True)),
        headers,
        RequestBody(io.BytesIO(), {}),
        target,
        f"HTTP/{request.http_version.decode()}",
    )


def _send(
    connection: socket.socket,
    protocol: h11.Connection,
    response: Response,
    *,
    head_only: bool,
    sent: Callable[[int], None] = lambda _more: None,
) -> None:
    body: Body = response.body
    headers = [("Content-Length", str(body.size)), *response.headers.items()]
    if response.close:
        headers.append(("Connection", "close"))
    head = protocol.send(h11.Response(status_code=response.status, headers=headers))
    assert head is not None
    if head_only or body.size == 0:
        connection.sendall(head)
    elif body.size <= _SMALL and isinstance(body, MemoryBody):
        # One segment for a small answer.
        connection.sendall(head + body.read(0, body.size))
        sent(body.size)
    else:
        connection.sendall(head)
        body.send(connection, 0, body.size, sent)
    if not head_only and body.size:
        # The type says bytes; h11 documents any object that has a length.
        protocol.send_with_data_passthrough(h11.Data(data=_Placeholder(body.size)))  # type: ignore[arg-type]
    protocol.send(h11.EndOfMessage())


def _patience(connection: socket.socket, option: int, seconds: float) -> None:
    # In the kernel, because Python's own time-outs make sockets non-blocking,
    # which sendfile would have to poll for.
    whole = int(seconds)
    value = struct.pack("ll", whole, int((seconds - whole) * 1_000_000))
    connection.setsockopt(socket.SOL_SOCKET, option, value)


def _linger(connection: socket.socket, plain: socket.socket) -> None:
    """Take what is still coming: closing before that would reset the answer away (RFC 9112, 9.6)."""
    with contextlib.suppress(OSError):
        plain.shutdown(socket.SHUT_WR)
        _patience(plain, socket.SO_RCVTIMEO, 1.0)
        taken = 0
        while taken < _LINGERING and (piece := connection.recv(_READ)):
            taken += len(piece)


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _refuse(connection: socket.socket) -> None:
    """Every place is taken by somebody who is being served: ask to come again."""
    with contextlib.suppress(OSError):
        connection.setblocking(False)
        connection.send(
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
            b"Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
    connection.close()
