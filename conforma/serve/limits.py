"""How many connections a server holds, and how patient it is with each.

Patience with plain connections is set in the kernel, because Python's own
time-outs make sockets non-blocking, which ``sendfile`` would have to poll for.
"""

from __future__ import annotations

import contextlib
import io
import socket
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from conforma.oci.wire import set_patience

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Limits(Struct, frozen=True):
    """How many connections, and how patient we are with each; times in seconds."""

    connections: int = 512
    idle: float = 60.0
    """A connection without a request is closed."""
    head: float = 15.0
    """From the first byte of a request to the end of its head."""
    body: float = 15.0
    """From there to the end of its body."""
    largest_body: int = 64 * 1024
    """A request with more bytes is refused."""
    bodies: int = 64 * 1024 * 1024
    """Bytes that the bodies of all requests together may take; one more has to come again."""
    stalled: float = 60.0
    """A client that takes nothing for so long is given up."""
    answer: float | None = None
    """From the first byte of an answer to its last, if there is a limit."""
    grace: float = 20.0
    """What is being sent may go on so long when the server stops."""


class PatientReader(io.RawIOBase):
    """The bytes of a connection, for an ``io.BufferedReader``; heads have a deadline.

    A time-out per read alone lets a client that drips bytes hold its thread
    for ever. Reading raises ``OSError``.
    """

    def __init__(self, connection: socket.socket, limits: Limits) -> None:
        super().__init__()
        self._connection = connection
        self._limits = limits
        self._awaiting = False
        self._due: float | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def await_head(self) -> None:
        """The next request may be long in coming, but once begun its head is due."""
        self._awaiting, self._due = True, None
        set_patience(self._connection, socket.SO_RCVTIMEO, self._limits.idle)

    def head_is_complete(self) -> None:
        """From now on each piece of the body may take as long as a client may stall."""
        self._awaiting, self._due = False, None
        set_patience(self._connection, socket.SO_RCVTIMEO, self._limits.stalled)

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read what is there, or the next bytes to come."""
        if self._due is not None and time.monotonic() > self._due:
            raise TimeoutError("the head of a request took too long")
        count = self._connection.recv_into(buffer)
        if self._awaiting and self._due is None:
            self._due = time.monotonic() + self._limits.head
            set_patience(self._connection, socket.SO_RCVTIMEO, self._limits.head)
        return count


def cut(connection: socket.socket) -> None:
    """End a connection that another thread may be using."""
    with contextlib.suppress(OSError):
        # The plain method: that of a TLS socket takes its state from whoever uses it.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def refuse(connection: socket.socket) -> None:
    """Every place is taken by somebody who is being served: ask to come again."""
    with contextlib.suppress(OSError):
        connection.setblocking(False)
        connection.send(
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
            b"Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
    connection.close()
