"""Real processes that fill the cache, seen from the test: started, awaited, let go, killed."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.races.filler import CONTINUE
from tests.races.layers import LAYERS

ROOT = Path(__file__).parents[2]


class Fill:
    """One process that reads one view; ``moved`` is set when it has come somewhere."""

    def __init__(self, number: int, view: str) -> None:
        self.number, self.view = number, view
        self.allowed: set[str] = set()
        """Errors that it may end with, because somebody it may have waited for met them."""
        self.armed = True
        """Whether it may still stop, or be stopping, before its step."""
        self.forked, self.moved, self.ended = (threading.Event() for _ in range(3))
        self._process: int | None = None  # a handle on it, which no other process can inherit
        self.outcome: dict[str, Any] = {}

    def hear(self, event: dict[str, Any]) -> None:
        if event["event"] == "forked":
            with contextlib.suppress(ProcessLookupError):  # it has ended already
                self._process = os.pidfd_open(event["pid"])
            self.forked.set()
            return
        if event["event"] == "done":
            self.outcome = event
            self.ended.set()
        self.moved.set()

    def go(self) -> None:
        """Do not stop any more."""
        self.armed = False
        self._signal(CONTINUE)

    def kill(self) -> None:
        """Returns when the process is dead, and its locks are free."""
        self.armed = False
        self._signal(signal.SIGKILL)
        if self._process is not None:
            assert select.select([self._process], [], [], 20)[0], "a killed process lives on"
        self.close()

    def close(self) -> None:
        """Forget the process."""
        handle, self._process = self._process, None
        if handle is not None:
            os.close(handle)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, number)

    def check(self) -> None:
        """It read what it should, or was told why not."""
        self.close()
        if "error" in self.outcome:
            assert self.outcome["error"] in self.allowed, self.outcome
            return
        right = hashlib.sha256(LAYERS[self.number].expected(self.view)).hexdigest()
        assert self.outcome["sha256"] == right, "a process read wrong bytes"


class Filler:
    """The process that makes the fills, and a thread that hears what they say."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._fills: dict[int, Fill] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.races.filler"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        threading.Thread(target=self._listen, daemon=True).start()

    def start(
        self, kind: str, directory: Path, verify: str, log: Path, fill: Fill, step: int
    ) -> None:
        """Have a process made; returns when it exists."""
        number = next(self._numbers)
        self._fills[number] = fill
        task = {
            "id": number, "kind": kind, "directory": str(directory), "verify": verify,
            "log": str(log), "layer": fill.number, "view": fill.view, "step": step,
        }  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        assert fill.forked.wait(20), "no process was made"

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            self._fills[event["id"]].hear(event)
