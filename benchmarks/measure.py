"""What the benchmarks share: timing a child process, and a table of ratios."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """One finished child process: wall and CPU seconds, peak memory in bytes."""

    wall: float
    cpu: float
    peak: int
    status: int
    stdout: bytes


def child(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Run:
    """Run a program to its end, measuring that process alone, not its children.

    ``peak`` is the resident-set high-water mark that ``wait4`` reports (Linux: KiB).
    Modules are compiled once and kept, as those of an installed package are.
    """
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    process = subprocess.Popen(
        list(arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**inherited, **(environment or {})},
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    return Run(
        wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, process.returncode, output
    )


def numbers(arguments: Sequence[str]) -> dict[str, int]:
    """The options in words of the form ``name=number``."""
    pairs = (argument.partition("=") for argument in arguments)
    return {name: int(value) for name, _, value in pairs}


def python(code: str) -> list[str]:
    """The arguments that run ``code`` in this interpreter."""
    return [sys.executable, "-c", code]


def medians(cases: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median of each case, taken in turn (A-B-A-B) so that noise hits all alike."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            taken[name].append(case())
    return {name: statistics.median(values) for name, values in taken.items()}


_recorders: list[list[tuple[str, str, str]]] = []


@contextmanager
def recorded() -> Iterator[list[tuple[str, str, str]]]:
    """The rows of all tables that are printed in the block."""
    rows: list[tuple[str, str, str]] = []
    _recorders.append(rows)
    try:
        yield rows
    finally:
        _recorders.remove(rows)


def table(title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    """Print measure, value, and what was asked for."""
    for recorder in _recorders:
        recorder += rows
    print(f"\n{title}")
    width = max(len(measure) for measure, _, _ in rows)
    for measure, value, target in rows:
        print(f"  {measure:{width}}  {value:>14}  {target}")


def mib(count: int) -> str:
    """A byte count for people."""
    return f"{count / 2**20:.1f} MiB"


class Served:
    """A server in a process of its own, so that its memory and lock are not ours.

    ``program`` is Python that prints where it listens, then answers each line
    it reads with one line of JSON, and ends when there are no more.
    """

    def __init__(self, program: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [*python(program), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.host = self._process.stdout.readline().strip()

    def asked(self) -> dict[str, object]:
        """What the program says it was asked; since when is the program's affair."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer: dict[str, object] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
