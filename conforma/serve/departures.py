"""Noticing that a client has gone while its answer is still being worked out.

Nobody reads from its connection meanwhile, so somebody has to look: one thread,
once a second, without taking anything that the client may have sent.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

_EVERY: Final = 1.0  # seconds


class Departures:
    """Looks after connections whose clients wait. Thread safe."""

    def __init__(self, every: float = _EVERY) -> None:
        self._every = every
        self._lock = threading.Lock()
        self._watched: dict[socket.socket, Callable[[], None]] = {}
        self._running = False

    @contextmanager
    def watch(self, connection: socket.socket, on_gone: Callable[[], None]) -> Iterator[None]:
        """While inside, ``on_gone`` is called, at most once, when the client has gone.

        A client that closes its half of the connection has gone: it is not told from one that
        closed all of it. Behind TLS nothing is noticed.
        """
        with self._lock:
            self._watched[connection] = on_gone
            if not self._running:
                thread = threading.Thread(target=self._run, name="departures", daemon=True)
                with suppress(RuntimeError):  # no thread to be had: the work goes on to its end
                    thread.start()
                    self._running = True
        try:
            yield
        finally:
            with self._lock:
                self._watched.pop(connection, None)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(self._every)
            with self._lock:
                if not self._watched:
                    self._running = False
                    return
            for call in self.look():
                call()

    def look(self) -> list[Callable[[], None]]:
        """What is to be called for those who have gone since the last look."""
        with self._lock:
            gone = [connection for connection in self._watched if _has_gone(connection)]
            return [self._watched.pop(connection) for connection in gone]


def _has_gone(connection: socket.socket) -> bool:
    try:
        # The plain method: that of a TLS socket refuses to look without taking.
        return not socket.socket.recv(connection, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True
