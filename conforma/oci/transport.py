"""The seam to HTTP: our own pooled connections.

:meth:`Transport.exchange` is the short way, for the many small questions;
:mod:`~conforma.oci.relay` lets an ``httpx.Client`` send over the same
connections. Every failure comes as a ``broken.TransportError``, around the
request and around every step of the body. Measurements behind this:
performance.md, section 3, and DESIGN.md.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final

from conforma.oci import broken
from conforma.oci.http1 import Answer, BadAnswer, Pairs
from conforma.oci.options import Lane, Patience
from conforma.oci.pool import Origin, Pool
from conforma.oci.proxies import Proxies
from conforma.oci.wire import Connection

if TYPE_CHECKING:
    import ssl

LANE: Final = "conforma.lane"
"""Request extension that names the lane; ``bulk`` for blob bodies, else ``small``."""


class Received:
    """An answer whose body is iterated to its end or closed; then its connection is free.

    Iterating raises ``broken.TransportError``.
    """

    __slots__ = ("_answer", "_connection", "_lane", "_origin", "_pool", "headers", "pairs", "queued",
                 "reason", "status")  # fmt: skip

    def __init__(
        self,
        pool: Pool,
        origin: Origin,
        lane: Lane,
        connection: Connection,
        answer: Answer,
        queued: float,
    ) -> None:
        self._pool = pool
        self._origin = origin
        self._lane: Lane = lane
        self._connection: Connection | None = connection
        self._answer = answer
        self.status = answer.status
        self.reason = answer.reason
        self.pairs: Pairs = answer.pairs
        self.headers: Mapping[str, str] = answer.fields
        """Values by lower-case name."""
        self.queued = queued
        """Seconds spent waiting for a place in the lane."""
        if answer.complete:
            self.close()

    def __iter__(self) -> Iterator[bytes]:
        if self._connection is None:
            return
        with _READING:
            yield from self._answer
        self.close()

    def close(self) -> None:
        """Give the connection back if it can be used again, else cut it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            keep = self._answer.is_reusable
            self._pool.release(self._origin, self._lane, connection, keep=keep)


class Transport:
    """Sends requests. Thread safe.

    ``tls`` is asked for the context when the first encrypted connection is made.
    """

    def __init__(
        self,
        *,
        patience: Patience,
        most: dict[Lane, int],
        tls: Callable[[], ssl.SSLContext],
        proxies: Proxies,
    ) -> None:
        self._patience = patience
        self._tls = tls
        self._proxies = proxies
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self.pool = Pool(self._connection, most)

    def proxy_for(self, origin: Origin) -> str | None:
        """The URL of the proxy that requests to ``origin`` must pass; ``None`` to go there directly."""
        return self._proxies.for_host(origin.scheme, origin.host, origin.port)

    def exchange(
        self,
        origin: Origin,
        lane: Lane,
        method: str,
        head: bytes,
        body: Iterable[bytes] = (),
        *,
        chunked: bool = False,
    ) -> Received:
        """Send a request of these bytes and return once the head of the answer is here.

        Raises ``broken.TransportError``.
        """
        started = time.monotonic()
        with _QUEUING:
            connection = self.pool.acquire(origin, lane)
        queued = time.monotonic() - started
        try:
            answer = _exchange(connection, method, head, body, chunked)
        except BaseException:
            self.pool.release(origin, lane, connection, keep=False)
            raise
        return Received(self.pool, origin, lane, connection, answer, queued)

    def close(self) -> None:
        """Cut every connection. Never blocks; safe to call from a signal handler."""
        self.pool.close()

    def _connection(self, origin: Origin) -> Connection:
        tls = self.tls_context if origin.scheme == "https" else None
        return Connection(origin.host, origin.port, self._patience, tls)

    def tls_context(self) -> ssl.SSLContext:
        """What servers are verified with. Raises what making it raises."""
        with self._lock:
            if self._context is None:
                self._context = self._tls()
            return self._context


def _exchange(
    connection: Connection, method: str, head: bytes, body: Iterable[bytes], chunked: bool
) -> Answer:
    if connection.wire is None:
        with _CONNECTING:
            connection.connect()
    send_failed: broken.TransportError | None = None
    try:
        with _WRITING:
            connection.send(head, body, chunked=chunked)
    except broken.WriteError as cause:
        # A server that refuses a large body answers before it has read it all.
        send_failed = cause
    try:
        with _READING:
            return connection.answer(method)
    except broken.TransportError:
        if send_failed is not None:
            raise send_failed from None
        raise


class _Translated:
    """A context that turns what sockets and :mod:`~conforma.oci.http1` raise into our own errors.

    It holds nothing, so one serves all threads: a generator for each step cost
    a request more than reading its answer.
    """

    __slots__ = ("_failed", "_timed_out")

    def __init__(
        self, timed_out: type[broken.Timeout], failed: type[broken.TransportError]
    ) -> None:
        self._timed_out = timed_out
        self._failed = failed

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        cause: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if cause is None:
            return
        if isinstance(cause, TimeoutError):
            raise self._timed_out(str(cause) or "timed out") from cause
        if isinstance(cause, (BadAnswer, EOFError)):
            raise broken.RemoteProtocolError(str(cause)) from cause
        if isinstance(cause, OSError):  # socket.gaierror is one, with its text in the same place
            detail = cause.strerror or str(cause) or type(cause).__name__
            raise self._failed(detail) from cause


_QUEUING: Final = _Translated(broken.PoolTimeout, broken.ConnectError)
_CONNECTING: Final = _Translated(broken.ConnectTimeout, broken.ConnectError)
_WRITING: Final = _Translated(broken.WriteTimeout, broken.WriteError)
_READING: Final = _Translated(broken.ReadTimeout, broken.ReadError)
