"""Starts actor processes, lines them up, and hears what they say."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cache.upstream import Sample

ROOT = Path(__file__).parents[2]


class Actor:
    """One process; :meth:`until` reads its events in order."""

    def __init__(self, task: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.races.actor", json.dumps(task)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def until(self, event: str) -> dict[str, Any]:
        """The next event of that name; other ones before it are dropped."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            found: dict[str, Any] = json.loads(line)
            if found["event"] == event:
                return found
        raise AssertionError(f"process ended before it said {event!r}")

    def results(self, count: int) -> list[dict[str, Any]]:
        """What its threads read; a missing answer fails the test."""
        return [self.until("result") for _ in range(count)]

    def go(self) -> None:
        """Let it go on from where it stands."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(20)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(20)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


class Stage:
    """A cache directory, a layer on disk to fetch from, and the log of all requests."""

    def __init__(self, directory: Path, what: Sample) -> None:
        self.directory, self.sample = directory, what
        self.cache = directory / "cache"
        self._blob, self._log = directory / "blob", directory / "log"
        self._blob.write_bytes(what.blob)
        self._log.touch()

    @property
    def offsets(self) -> list[int]:
        """The offsets of all requests, over all processes."""
        return [int(line) for line in self._log.read_text().split()]

    def expected(self, view: str) -> str:
        data = self.sample.plain if view == "uncompressed" else self.sample.blob
        return hashlib.sha256(data).hexdigest()

    def right(self, results: list[dict[str, Any]]) -> bool:
        return all(r.get("sha256") == self.expected(r["view"]) for r in results)

    @contextmanager
    def actors(self, *changes: dict[str, Any]) -> Iterator[list[Actor]]:
        """One process for each set of changes to the standard task."""
        what = self.sample
        actors: list[Actor] = []
        try:
            for change in changes:
                task = {
                    "directory": str(self.cache),
                    "blob": str(self._blob),
                    "log": str(self._log),
                    "media_type": what.media_type,
                    "digest": str(what.descriptor.digest),
                    "size": len(what.blob),
                    "diff_id": str(what.diff_id),
                    "views": ["compressed"],
                    **change,
                }
                actors.append(Actor(task))
            yield actors
        finally:
            for actor in actors:
                actor.close()
