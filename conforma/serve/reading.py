"""Takes the requests off one connection: heads and bodies have deadlines, and bodies a size."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import h11

from conforma.oci.wire import set_patience
from conforma.serve.httpd import Incoming, RequestBody
from conforma.serve.limits import Limits
from conforma.serve.wire import READ, incoming_of

LARGEST_HEAD: Final = 64 * 1024


class Refused(Exception):
    """A request that no handler gets to see; the connection ends with the answer to it.

    ``status`` says why: 400 not HTTP, or it ends early; 408 too slow; 413 too
    large; 503 no memory for it now. ``incoming`` is its head, if that is known.
    """

    def __init__(self, status: int, incoming: Incoming | None) -> None:
        super().__init__(status)
        self.status = status
        self.incoming = incoming


class Room:
    """The memory that bodies of requests may take together. Thread safe."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Whether there was room for so many bytes; if so, it is taken."""
        with self._lock:
            if count > self._left:
                return False
            self._left -= count
            return True

    def give_back(self, count: int) -> None:
        """These bytes are no longer needed."""
        with self._lock:
            self._left += count


class RequestReader:
    """The requests of one connection, one after the other."""

    def __init__(
        self,
        connection: socket.socket,
        protocol: h11.Connection,
        limits: Limits,
        room: Room,
        *,
        client: str,
        begin: Callable[[], None],
    ) -> None:
        """``begin`` is called with the first byte of each request; it may raise ``OSError``."""
        self._connection = connection
        self._protocol = protocol
        self._limits = limits
        self._room = room
        self._client = client
        self._begin = begin

    @contextlib.contextmanager
    def next(self) -> Iterator[Incoming | None]:
        """The next request, whose body is kept while inside; ``None`` if the client has no more.

        Raises ``Refused``, and ``OSError`` when the client went away or stalled in a head.
        """
        arriving = _Arriving(self._limits, self._room, self._client)
        try:
            yield self._read(arriving)
        finally:
            arriving.release()

    def _read(self, arriving: _Arriving) -> Incoming | None:
        set_patience(self._connection, socket.SO_RCVTIMEO, self._limits.idle)
        begun = False
        while True:
            try:
                event = self._protocol.next_event()
            except h11.RemoteProtocolError as error:
                raise Refused(error.error_status_hint or 400, arriving.head) from error
            if event is h11.NEED_DATA:
                self._go_on(arriving)
                self._receive(arriving)
            elif isinstance(event, h11.Data):
                arriving.add(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                return arriving.complete()
            elif not isinstance(event, h11.Request):
                return None
            if not begun:
                # Also for a request that had come with the one before.
                begun = True
                self._begin()
                arriving.due = time.monotonic() + self._limits.head
                set_patience(self._connection, socket.SO_RCVTIMEO, self._limits.head)
            if isinstance(event, h11.Request):
                arriving.begin(event)
                set_patience(self._connection, socket.SO_RCVTIMEO, self._limits.body)

    def _receive(self, arriving: _Arriving) -> None:
        """Hand the next bytes to the protocol."""
        try:
            if arriving.due is not None and time.monotonic() > arriving.due:
                raise TimeoutError
            data = self._connection.recv(READ)
        except (TimeoutError, BlockingIOError) as error:
            if arriving.head is None:
                raise
            raise Refused(408, arriving.head) from error
        self._protocol.receive_data(data)

    def _go_on(self, arriving: _Arriving) -> None:
        """Tell a client that waits for leave to send its body (RFC 9110, 10.1.1) that it has it."""
        if arriving.head is not None and self._protocol.they_are_waiting_for_100_continue:
            leave = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            self._connection.sendall(self._protocol.send(leave) or b"")


class _Arriving:
    """What has come of one request."""

    def __init__(self, limits: Limits, room: Room, client: str) -> None:
        self.head: Incoming | None = None
        self.due: float | None = None
        self._limits = limits
        self._room = room
        self._client = client
        self._pieces: list[bytes] = []
        self._size = 0

    def begin(self, request: h11.Request) -> None:
        """The head is here. Raises ``Refused`` if it makes no sense or announces too large a body."""
        try:
            self.head = incoming_of(request, self._client)
        except ValueError as error:  # its target is no URL
            raise Refused(400, None) from error
        self.due = time.monotonic() + self._limits.body
        if int(self.head.headers.get("content-length", "0")) > self._limits.largest_body:
            raise Refused(413, self.head)

    def add(self, piece: bytes) -> None:
        """A part of the body is here. Raises ``Refused`` if there is no place for it."""
        if self._size + len(piece) > self._limits.largest_body:
            raise Refused(413, self.head)
        if not self._room.take(len(piece)):
            raise Refused(503, self.head)
        self._size += len(piece)
        self._pieces.append(piece)

    def complete(self) -> Incoming | None:
        """The request with its body."""
        if self.head is not None and self._pieces:
            body = io.BytesIO(b"".join(self._pieces))
            self._pieces.clear()
            self.head.body = RequestBody(body, {"content-length": str(self._size)})
        return self.head

    def release(self) -> None:
        """Nobody needs the body any more."""
        self._room.give_back(self._size)
        self._size = 0
