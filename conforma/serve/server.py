"""The HTTP/1.1 server of ``conforma serve``: one thread per connection, h11 for the protocol.

h11 decides what is a request and how an answer is framed; bodies go past it,
from file to socket in the kernel. A connection that is idle can be closed at
any time, and is, when another one wants its place. Why this and not a server
from the shelf: DESIGN.md.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Final

import h11
from msgspec import Struct

from conforma.oci.wire import set_patience
from conforma.serve.departures import Departures
from conforma.serve.httpd import Incoming, Response
from conforma.serve.limits import Limits, cut, refuse
from conforma.serve.reading import LARGEST_HEAD, Refused, RequestReader, Room
from conforma.serve.wire import linger, send_answer

_BACKLOG: Final = 1024


class Served(Struct, frozen=True):
    """One request that was answered, for metrics and logs."""

    method: str
    path: str
    status: int
    sent: int
    seconds: float
    client: str
    complete: bool


Handler = Callable[[Incoming], Response]
Refusal = Callable[[int, Incoming | None], Response]


def _bare_refusal(status: int, _: Incoming | None) -> Response:
    return Response.document(status, {})


class Server:
    """Listens from construction until :meth:`close`.

    ``handler`` is called from many threads. Requests that do not come to it,
    because of what :class:`Refused` lists, get the answer that ``refusal``
    makes of the reason's status and the request's head.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
        on_served: Callable[[Served], None] | None = None,
        refusal: Refusal = _bare_refusal,
        departures: Departures | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._handler = handler
        self._refusal = refusal
        self._room = Room(self.limits.bodies)
        self._tls = tls
        self._on_served = on_served
        self._departures = departures or Departures()
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
        return _written(self.address)

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
            cut(connection)
        with self._changed:
            self._changed.wait_for(lambda: not self._connections, self.limits.grace)
            rest = list(self._connections)
        for connection in rest:
            cut(connection)

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
                refuse(connection)
                continue
            thread = threading.Thread(
                target=self._serve, args=(connection, client), name="serve", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # out of threads: those that run will end
                self._leave(connection)
                refuse(connection)

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
            cut(victim)
        return True

    def _serve(self, plain: socket.socket, client: tuple[str, int]) -> None:
        connection = plain
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                connection = self._tls.wrap_socket(
                    plain, server_side=True, do_handshake_on_connect=False
                )
                self._replace(plain, connection)
                set_patience(connection, socket.SO_RCVTIMEO, self.limits.head)
                connection.do_handshake()
            protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_HEAD)
            reader = RequestReader(
                connection,
                protocol,
                self.limits,
                self._room,
                client=_written(client),
                begin=lambda: self._busy(connection),
            )
            while self._one_request(connection, protocol, reader):
                protocol.start_next_cycle()
        except (OSError, h11.ProtocolError):
            pass  # the client went away, stalled, or speaks no HTTP: there is nobody to tell
        finally:
            self._leave(connection)
            connection.close()

    def _leave(self, connection: socket.socket) -> None:
        """The connection has no place any more."""
        with self._changed:
            self._connections.pop(connection, None)
            self._changed.notify_all()

    def _replace(self, plain: socket.socket, encrypted: ssl.SSLSocket) -> None:
        """The descriptor has moved. Raises ``OSError`` if the place was given to another."""
        with self._changed:
            if plain not in self._connections:
                raise ConnectionAbortedError
            self._connections[encrypted] = self._connections.pop(plain)

    def _one_request(
        self, connection: socket.socket, protocol: h11.Connection, reader: RequestReader
    ) -> bool:
        """Answer one request; whether another may follow on this connection."""
        if not self._idle(connection):
            return False
        try:
            with reader.next() as incoming:
                if incoming is None:
                    return False
                self._answer(connection, protocol, incoming)
        except Refused as refused:
            set_patience(connection, socket.SO_SNDTIMEO, self.limits.stalled)
            response = self._refusal(refused.status, refused.incoming)
            response.close = True
            send_answer(connection, protocol, response, head_only=False)
            linger(connection, self.limits.largest_body)
            return False
        return protocol.our_state is h11.DONE and protocol.their_state is h11.DONE

    def _answer(
        self, connection: socket.socket, protocol: h11.Connection, incoming: Incoming
    ) -> None:
        set_patience(connection, socket.SO_SNDTIMEO, self.limits.stalled)
        incoming.watch = lambda on_gone: self._departures.watch(connection, on_gone)
        started = time.monotonic()
        response = self._handler(incoming)
        if self._closing:
            response.close = True
        due = None if self.limits.answer is None else time.monotonic() + self.limits.answer
        sent = 0

        def count(more: int) -> None:
            nonlocal sent
            sent += more
            if due is not None and time.monotonic() > due:
                raise TimeoutError

        complete = False
        try:
            head_only = incoming.method == "HEAD"
            send_answer(connection, protocol, response, head_only=head_only, sent=count)
            complete = True
        finally:
            if self._on_served is not None:
                seconds = time.monotonic() - started
                self._on_served(
                    Served(incoming.method, incoming.path, response.status, sent, seconds,
                           incoming.client, complete)
                )  # fmt: skip

    def _idle(self, connection: socket.socket) -> bool:
        """Put the connection within reach of :meth:`_admit`; False if the server has ended."""
        with self._changed:
            if connection in self._connections:
                self._connections[connection] = time.monotonic()
            return not self._closing

    def _busy(self, connection: socket.socket) -> None:
        """Take the connection out of reach of :meth:`_admit`. Raises ``OSError`` if it is too late."""
        with self._changed:
            if connection not in self._connections or self._closing:
                raise ConnectionAbortedError
            self._connections[connection] = None


def _written(client: tuple[str, int]) -> str:
    """``address:port``; an IPv6 address in brackets."""
    address, port = client[:2]
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
