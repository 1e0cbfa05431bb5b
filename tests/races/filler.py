"""Forks a process for each fill it is told to make; each stops, or is killed, before any step.

``python -m tests.races.filler`` reads one JSON task a line. It has no threads
and has imported what a fill needs, so a fork is safe and costs milliseconds.
Every child writes JSON lines with its ``id`` to the common output: ``forked``,
``watching`` (somebody else has the lock), ``standing`` (before its step, until
SIGUSR1) and ``done``.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Imported before the forks, so that each fill costs milliseconds.
import diskcache  # noqa: F401
import filelock  # noqa: F401
import isal.isal_zlib  # noqa: F401

from conforma.cache.locks import EntryLock
from tests.cache.candidates import opened
from tests.races.layers import LAYERS, fetching

CONTINUE = signal.SIGUSR1


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    signal.pthread_sigmask(signal.SIG_BLOCK, {CONTINUE})
    for line in sys.stdin:
        task = json.loads(line)
        if os.fork() == 0:
            try:
                Child(task).run()
            finally:
                os._exit(1)


class Child:
    """One process that reads one view of one layer."""

    def __init__(self, task: dict[str, Any]) -> None:
        self._task = task
        self._lock = threading.Lock()
        self._steps = 0
        self._watching = False

    def say(self, **event: Any) -> None:
        # Shorter than a pipe's buffer, so lines of several children do not mix.
        os.write(1, json.dumps({"id": self._task["id"], **event}).encode() + b"\n")

    def run(self) -> None:
        self.say(event="forked", pid=os.getpid())
        self._announce_watching()
        what = LAYERS[self._task["layer"]]
        cache = opened(
            self._task["kind"],
            Path(self._task["directory"]),
            self._before_step,
            max_bytes=0,  # an evictor of its own could be at it when the test's comes
            verify=self._task["verify"],
        )
        layer = cache.layer(what.descriptor, what.diff_id, self._fetch(fetching(self._task)))
        outcome: dict[str, str]
        try:
            with getattr(layer, self._task["view"])() as source:
                outcome = {"sha256": hashlib.sha256(source.read()).hexdigest()}
        except Exception as error:
            outcome = {"error": type(error).__name__, "text": str(error)}
        cache.close()
        self.say(event="done", **outcome)
        os._exit(0)

    def _announce_watching(self) -> None:
        """Say once that another process has the lock that we want."""
        try_acquire = EntryLock.try_acquire

        def tried(lock: EntryLock) -> bool:
            got = try_acquire(lock)
            if not got and not self._watching:
                self._watching = True
                self.say(event="watching")
            return got

        EntryLock.try_acquire = tried  # type: ignore[method-assign]

    def _before_step(self, name: str, _path: Path) -> None:
        if name == "open":
            return  # reading changes nothing
        with self._lock:
            self._steps += 1
            stop = self._steps == self._task["step"]
        if stop:
            self.say(event="standing", step=name)
            signal.sigwait({CONTINUE})

    def _fetch(self, fetch: Any) -> Any:
        """The same, where each piece that arrives is a step as well."""

        @contextmanager
        def stepping(offset: int) -> Iterator[Iterator[bytes]]:
            with fetch(offset) as pieces:
                yield self._stepping(pieces)

        return stepping

    def _stepping(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._before_step("receive", Path())
            yield piece


if __name__ == "__main__":
    main()
