"""CPU and memory of a process and its children, from ``/proc``."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds and resident bytes of a process with its living children."""

    cpu: float
    resident: int
    own: int
    """The part of ``resident`` that is the process's own."""


def usage(pid: int) -> Usage:
    """What the process and its living descendants use; nothing for one that has ended."""
    cpu, resident, own = 0.0, 0, 0
    for member in _family(pid):
        try:
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        cpu += (int(fields[11]) + int(fields[12])) / _TICK
        resident += int(fields[21]) * _PAGE
        if member == pid:
            own = resident
    return Usage(cpu, resident, own)


def _family(pid: int) -> Iterator[int]:
    yield pid
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return
    for thread in threads:
        try:
            children = (thread / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _family(int(child))


@contextmanager
def watched(pid: int, seconds: float = 0.05) -> Iterator[list[Usage]]:
    """Samples of the family's usage, taken every so often until the block ends."""
    samples: list[Usage] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(seconds):
            samples.append(usage(pid))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()
