"""Which connections exist: kept alive, bounded for each server, in two lanes.

Small requests (manifests, tags, tokens) never queue behind blob bodies: each
lane of a server has its own limit. The limit adapts: it shrinks by half when
the server is overloaded and grows back by one after as many good answers.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from msgspec import Struct, field

from conforma.oci.options import Lane
from conforma.oci.wire import Connection

# Servers usually close idle connections after 60 s or more; ours go first.
_IDLE_SECONDS: Final = 50.0


class Origin(NamedTuple):
    """A server: scheme, host and port."""

    scheme: str
    host: str
    port: int


class _Limit(Struct):
    most: int
    now: float
    active: int = 0


class _Server(Struct):
    lanes: dict[Lane, _Limit]
    idle: list[tuple[float, Connection]] = field(default_factory=list)


class Pool:
    """Connections by origin. Thread safe; the one lock is never held during I/O."""

    def __init__(self, open_connection: Callable[[Origin], Connection], most: dict[Lane, int]):
        self._open = open_connection
        self._most = most
        # Reentrant: cancelling may happen in a signal handler, in the thread
        # that holds it.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._queued = 0
        self._servers: dict[Origin, _Server] = {}
        self._live: set[Connection] = set()
        self._closed = False
        self.opened = 0

    def acquire(self, origin: Origin, lane: Lane) -> Connection:
        """A connection of our own, perhaps not connected yet, once the lane has room.

        Waits as long as it takes: whoever holds a connection is watched by its
        own time-outs. Raises ``ConnectionAbortedError`` after :meth:`close`.
        """
        stale: list[Connection] = []
        try:
            with self._lock:
                server = self._server(origin)
                limit = server.lanes[lane]
                while limit.active >= int(limit.now) and not self._closed:
                    self._wait()
                if self._closed:
                    raise ConnectionAbortedError("stopped")
                while server.idle:
                    since, connection = server.idle.pop()
                    wire = connection.wire
                    if time.monotonic() - since < _IDLE_SECONDS and wire and not wire.is_stale():
                        limit.active += 1
                        return connection
                    self._live.discard(connection)
                    stale.append(connection)
                connection = self._open(origin)
                self._live.add(connection)
                self.opened += 1
                limit.active += 1
                return connection
        finally:
            for connection in stale:
                connection.close()

    def release(self, origin: Origin, lane: Lane, connection: Connection, *, keep: bool) -> None:
        """Give a connection back; ``keep`` says that the next request may use it."""
        with self._lock:
            server = self._server(origin)
            server.lanes[lane].active -= 1
            keep = keep and not self._closed
            if keep:
                server.idle.append((time.monotonic(), connection))
            else:
                self._live.discard(connection)
            if self._queued:
                self._changed.notify_all()
        if not keep:
            connection.close()

    def adapt(self, origin: Origin, *, overloaded: bool) -> None:
        """Learn from an answer: additive increase, multiplicative decrease."""
        with self._lock:
            for limit in self._server(origin).lanes.values():
                if overloaded:
                    limit.now = max(1.0, limit.now / 2)
                elif limit.now < limit.most:
                    limit.now = min(limit.most, limit.now + 1 / limit.now)
                    self._changed.notify_all()

    def limit(self, origin: Origin, lane: Lane) -> int:
        """How many requests the lane lets through at once right now."""
        with self._lock:
            return int(self._server(origin).lanes[lane].now)

    def close(self) -> None:
        """Cut every connection and refuse new ones. Never blocks."""
        self._closed = True
        with self._changed:
            live = list(self._live)
            idle = [
                connection for server in self._servers.values() for _, connection in server.idle
            ]
            for server in self._servers.values():
                server.idle.clear()
            self._changed.notify_all()
        for connection in live:
            connection.abort()
        for connection in idle:
            with contextlib.suppress(OSError):
                connection.close()

    def _wait(self) -> None:
        self._queued += 1
        try:
            self._changed.wait()
        finally:
            self._queued -= 1

    def _server(self, origin: Origin) -> _Server:
        server = self._servers.get(origin)
        if server is None:
            lanes = {lane: _Limit(most, float(most)) for lane, most in self._most.items()}
            server = self._servers[origin] = _Server(lanes)
        return server
