"""One connection to one server, and a socket that watches the clock.

A time-out per ``recv`` alone lets a server that drips bytes hold a worker for
hours, so the head of an answer has a deadline and its body a pace to keep.
"""

from __future__ import annotations

import contextlib
import functools
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from conforma.oci.http1 import Answer
from conforma.oci.options import Patience

if TYPE_CHECKING:
    import ssl

# One read of a plain socket asks for this much. A single transfer gains nothing
# beyond 256 KiB (performance.md, section 3); six transfers that are inflated at
# the same time do, because each piece hands the interpreter lock around a few
# times: with 256 KiB inflated at once, a cold run took a sixth less time. A TLS
# record holds 16 KiB, and asking for more than can come costs an allocation of
# that size each time.
_BLOCK: Final = 1024 * 1024
_RECORD: Final = 16 * 1024
# glibc maps memory anew, zeroed page by page, for every piece larger than any it
# has seen given back, and pieces that come shorter than asked for never teach it.
# One larger block given back does; until then, up to a third of a download's
# processor time went into page faults.
_LESSON: Final = 4 * _BLOCK
# A host's first addresses may lead nowhere (IPv6 without a route); seconds
# until the next one is tried.
_NEXT_ADDRESS_AFTER: Final = 3.0
_SMALL_BODY: Final = 16 * 1024


@functools.cache
def keep_memory_of_pieces() -> None:
    """From now on the memory of one piece serves the next one. Elsewhere than on glibc: nothing."""
    bytes(_LESSON)


def set_patience(connection: socket.socket, option: int, seconds: float) -> None:
    """Give up on a read (``SO_RCVTIMEO``) or write (``SO_SNDTIMEO``) after so long.

    The kernel does it, with ``BlockingIOError``. Python reads on when the
    kernel interrupts a TLS socket, so that gets Python's own time-out, one for
    both: what was set last counts.
    """
    if _is_encrypted(connection):
        connection.settimeout(seconds)
        return
    # Nothing at all would mean for ever.
    whole, rest = divmod(max(1, int(seconds * 1_000_000)), 1_000_000)
    connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", whole, rest))


def _is_encrypted(connection: socket.socket) -> bool:
    # By what it can do: its class is in ssl, which a run over plain sockets need not load.
    return hasattr(connection, "do_handshake")


class Wire:
    """A connected socket with reads that respect a :class:`Patience`."""

    def __init__(self, sock: socket.socket, patience: Patience) -> None:
        keep_memory_of_pieces()
        # With a time-out of Python's own, each read would be two system calls
        # and lose the interpreter lock twice; the kernel can keep time as well.
        sock.settimeout(None)
        set_patience(sock, socket.SO_SNDTIMEO, patience.read)
        self._wait = 0.0
        self._sock = sock
        self._patience = patience
        self._most = _RECORD if _is_encrypted(sock) else _BLOCK
        self._deadline: float | None = None
        self._waited = 0.0
        self._received = 0
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN | select.POLLHUP | select.POLLERR)

    def await_head(self) -> None:
        """From now on the answer's head is due."""
        self._deadline = time.monotonic() + self._patience.head

    def head_is_complete(self) -> None:
        """From now on the pace of the body counts."""
        self._deadline = None
        self._waited, self._received = 0.0, 0
        self._wait_at_most(self._patience.read)

    def receive(self, most: int) -> bytes:
        """What is there, or the next bytes to come, at most ``most``; none at the end.

        Raises ``OSError``; ``TimeoutError`` for a server that is too slow.
        """
        started = time.monotonic()
        left = self._patience.read if self._deadline is None else self._deadline - started
        try:
            if left <= 0:
                raise BlockingIOError
            self._wait_at_most(min(self._patience.read, left))
            data = self._sock.recv(min(most, self._most))
        except BlockingIOError:
            raise TimeoutError(
                f"nothing came for {self._patience.read:g} s"
                if self._patience.read <= left
                else f"no complete answer within {self._patience.head:g} s"
            ) from None
        if self._deadline is None:
            self._keep_pace(len(data), time.monotonic() - started)
        return data

    def _wait_at_most(self, seconds: float) -> None:
        if seconds != self._wait:
            self._wait = seconds
            set_patience(self._sock, socket.SO_RCVTIMEO, seconds)

    def _keep_pace(self, count: int, seconds: float) -> None:
        self._received += count
        self._waited += seconds
        if self._waited < self._patience.window:
            return
        if self._received < self._patience.slowest * self._waited:
            raise TimeoutError(
                f"only {self._received} bytes in {self._waited:.0f} s, given up as too slow"
            )
        self._waited, self._received = 0.0, 0

    def is_stale(self) -> bool:
        """Whether an idle connection was closed by the server, or holds bytes nobody asked for."""
        try:
            return bool(self._poller.poll(0))
        except (OSError, ValueError):
            return True

    def send(self, data: bytes) -> None:
        """Send everything. Raises ``OSError``; ``TimeoutError`` for a server that takes nothing."""
        try:
            self._sock.sendall(data)
        except BlockingIOError:
            raise TimeoutError(f"nothing was taken for {self._patience.read:g} s") from None

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


class Connection:
    """A connection that is opened when it is first used and can be aborted from any thread."""

    def __init__(
        self,
        host: str,
        port: int,
        patience: Patience,
        tls: Callable[[], ssl.SSLContext] | None,
    ) -> None:
        self._host = host
        self._port = port
        self._patience = patience
        self._tls = tls
        self._raw: socket.socket | None = None
        self._aborted = False
        self.wire: Wire | None = None

    def connect(self) -> None:
        """Open the socket, with TLS if a context is offered. Raises ``OSError``."""
        sock = self._first_that_answers()
        try:
            sock.settimeout(self._patience.connect)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock = self._tls().wrap_socket(
                    sock, server_hostname=self._host, do_handshake_on_connect=False
                )
                self._watch(sock)
                sock.do_handshake()
        except BaseException:
            sock.close()
            raise
        self.wire = Wire(sock, self._patience)

    def _first_that_answers(self) -> socket.socket:
        # Python loads its tables of international names for any name that is text.
        host = self._host.encode() if self._host.isascii() else self._host
        found = socket.getaddrinfo(host, self._port, type=socket.SOCK_STREAM)
        for position, (family, kind, protocol, _, address) in enumerate(found, 1):
            last = position == len(found)
            sock = socket.socket(family, kind, protocol)
            sock.settimeout(self._patience.connect if last else _NEXT_ADDRESS_AFTER)
            try:
                self._watch(sock)
                sock.connect(address)
            except BaseException as cause:
                sock.close()
                if last or not isinstance(cause, OSError) or self._aborted:
                    raise
            else:
                return sock
        raise OSError(f"no address for {self._host}")

    def _watch(self, sock: socket.socket) -> None:
        self._raw = sock
        if self._aborted:
            raise ConnectionAbortedError("stopped")

    def abort(self) -> None:
        """Make whoever connects, reads or writes here fail at once. Never blocks."""
        self._aborted = True
        if self._raw is not None:
            with contextlib.suppress(OSError):
                # The plain method: that of a TLS socket would talk to the peer.
                socket.socket.shutdown(self._raw, socket.SHUT_RDWR)

    def send(self, head: bytes, body: Iterable[bytes], *, chunked: bool) -> None:
        """Send one request, whose head says how its body is framed. Raises ``OSError``."""
        assert self.wire is not None
        waiting: bytes | None = head
        for piece in body:
            if not piece:
                continue
            data = b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece
            if waiting is not None and len(data) <= _SMALL_BODY:
                data = waiting + data  # one packet for a small request
            elif waiting is not None:
                self.wire.send(waiting)
            waiting = None
            self.wire.send(data)
        if waiting is not None:
            self.wire.send(waiting)
        if chunked:
            self.wire.send(b"0\r\n\r\n")

    def answer(self, method: str) -> Answer:
        """Read the head of the answer. Raises ``OSError``, ``EOFError`` or ``BadAnswer``."""
        assert self.wire is not None
        self.wire.await_head()
        return Answer(self.wire, method)

    def close(self) -> None:
        """Close the socket, if there is one."""
        wire, self.wire = self.wire, None
        if wire is not None:
            wire.close()
