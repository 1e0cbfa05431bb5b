"""The exact record of what a server was asked and what it sent.

An entry appears when the request head has been read, its status is there
before the first byte of the answer leaves, its size and end when the last byte
was written. A client that has its answer therefore always finds the entry;
:meth:`RequestLog.settled` waits for sizes and ends as well.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Request:
    """One request; times are seconds of the monotonic clock, ``end`` is None while it runs."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str] = field(repr=False)
    client: tuple[str, int]
    start: float
    status: int | None = None
    bytes: int = 0
    end: float | None = None

    def header(self, name: str) -> str | None:
        """The value of a request header, whatever its case."""
        return self.headers.get(name.lower())


class RequestLog:
    """Every request of one server in order of arrival; safe to read while it serves."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._entries: list[Request] = []
        self._running = 0
        self._peak = 0

    def __iter__(self) -> Iterator[Request]:
        with self._changed:
            return iter(tuple(self._entries))

    def __len__(self) -> int:
        with self._changed:
            return len(self._entries)

    @property
    def peak(self) -> int:
        """The most requests that were ever under way at once."""
        with self._changed:
            return self._peak

    def clear(self) -> None:
        """Forget finished requests and the peak; nothing may be under way."""
        self.settled()
        with self._changed:
            self._entries.clear()
            self._peak = 0

    def settled(self, timeout: float = 10.0) -> RequestLog:
        """Return this log once no request is under way.

        Raises ``TimeoutError`` if one still is after ``timeout`` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._running == 0, timeout):
                raise TimeoutError(f"{self._running} requests still running after {timeout:g}s")
        return self

    def wait_for(
        self, count: int, method: str | None = None, path: str = "", timeout: float = 10.0
    ) -> None:
        """Return once ``count`` matching requests have arrived; raises ``TimeoutError``."""
        with self._changed:
            if not self._changed.wait_for(
                lambda: len(_matching(self._entries, method, path)) >= count, timeout
            ):
                raise TimeoutError(f"fewer than {count} requests {method or ''} {path}")

    def matching(self, method: str | None = None, path: str = "") -> tuple[Request, ...]:
        """The requests with this method whose path the regular expression finds."""
        return tuple(_matching(list(self), method, path))

    def counts(self, method: str | None = None, path: str = "") -> Counter[str]:
        """How often each path was asked for, among the matching requests."""
        return Counter(request.path for request in self.matching(method, path))

    def blob_downloads(self) -> Counter[str]:
        """How often each digest was fetched with GET from any repository."""
        found = self.matching("GET", r"/blobs/[a-z0-9]+:[0-9a-f]+$")
        return Counter(request.path.rpartition("/")[2] for request in found)

    def concurrency(self, method: str | None = None, path: str = "") -> int:
        """The most matching requests that were under way at one moment."""
        steps: list[tuple[float, int]] = []
        for request in self.matching(method, path):
            steps.append((request.start, 1))
            steps.append((request.end if request.end is not None else float("inf"), -1))
        running = highest = 0
        for _, step in sorted(steps):
            running += step
            highest = max(highest, running)
        return highest

    def begin(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        client: tuple[str, int],
    ) -> Entry:
        """Record an arrival; the server reports the rest through the entry."""
        with self._changed:
            self._entries.append(Request(method, path, query, headers, client, time.monotonic()))
            self._running += 1
            self._peak = max(self._peak, self._running)
            self._changed.notify_all()
            return Entry(self, self._entries, len(self._entries) - 1)

    def _finish(self) -> None:
        self._running -= 1
        self._changed.notify_all()


class Entry:
    """The writing end of one log line, for the server only."""

    def __init__(self, log: RequestLog, entries: list[Request], position: int) -> None:
        self._log = log
        self._entries = entries
        self._position = position
        self.sent = 0

    def answered(self, status: int) -> None:
        """The status is about to be sent."""
        with self._log._changed:
            self._entries[self._position] = replace(self._entries[self._position], status=status)

    def finished(self) -> None:
        """Nothing more will be sent for this request."""
        with self._log._changed:
            self._entries[self._position] = replace(
                self._entries[self._position], bytes=self.sent, end=time.monotonic()
            )
            self._log._finish()


def _matching(entries: list[Request], method: str | None, path: str) -> list[Request]:
    pattern = re.compile(path)
    return [e for e in entries if (method is None or e.method == method) and pattern.search(e.path)]
