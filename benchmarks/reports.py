"""Writing a report of 100 MB: the memory it takes beside the findings themselves.

Baseline: the same JSON made as one text and then written. Each format is
written by a process of its own that holds the findings already; what the
kernel calls its resident peak from then on, less what it held before, is the
cost of writing. Arguments: ``size=100`` (MiB of messages), ``each=25000``
(bytes of one), ``components=50``.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measure import mib, numbers, table
from conforma.findings import Violation
from conforma.report.formats import Options as Shown
from conforma.report.formats import render
from conforma.report.targets import Target, write
from conforma.validate.result import ComponentResult, Report
from conforma.validate.snapshot import Component

FORMATS = ("json", "yaml", "text", "junit", "sarif", "html")
STATUS = Path("/proc/self/status")
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Options:
    """See the module."""

    size: int = 100
    each: int = 25_000
    components: int = 50

    @classmethod
    def parse(cls, arguments: list[str]) -> Options:
        """From ``name=number`` words."""
        return cls(**numbers(arguments))


def large(options: Options) -> Report:
    """A report with so many bytes of messages, no two the same."""
    count = options.size * MIB // options.each // options.components + 1

    def violation(component: int, number: int) -> Violation:
        text = f"{component:04}-{number:06} " * (options.each // 12)
        return Violation(text, {"code": f"main.rule_{number % 20}", "title": "A rule"})

    components = tuple(
        ComponentResult(
            Component(f"app-{c}", f"reg.example/app-{c}"),
            f"reg.example/app-{c}",
            tuple(violation(c, n) for n in range(count)),
        )
        for c in range(options.components)
    )
    moment = datetime(2026, 1, 6, tzinfo=UTC)
    return Report(components, "", "", {}, "benchmark", moment.isoformat(), moment)


def resident(field: str) -> int:
    """``VmRSS`` or ``VmHWM`` of this process, in bytes (proc_pid_status(5): kB)."""
    line = next(li for li in STATUS.read_text().splitlines() if li.startswith(field))
    return int(line.split()[1]) * 1024


def whole(report: Report, path: Path) -> None:
    """The naive way."""
    pieces = (p if isinstance(p, str) else p.decode() for p in render(report, "json", Shown()))
    path.write_text("".join(pieces))


def streamed(name: str) -> Callable[[Report, Path], None]:
    """The way of the program."""
    return lambda report, path: write(report, [Target(name, Shown(), str(path))], sys.stdout.buffer)


def cost(options: Options, name: str, answer: multiprocessing.SimpleQueue[tuple[int, ...]]) -> None:
    """Bytes held before, more at the peak, and written; in a process that does nothing else."""
    report = large(options)
    work = whole if name == "whole" else streamed(name)
    with tempfile.TemporaryDirectory(prefix="conforma-benchmark-") as place:
        path = Path(place) / "report"
        Path("/proc/self/clear_refs").write_text("5")  # proc_pid_clear_refs(5): forget the peak
        before = resident("VmRSS")
        work(report, path)
        answer.put((before, max(0, resident("VmHWM") - before), path.stat().st_size))


def measured(options: Options, name: str) -> tuple[int, int, int]:
    """What :func:`cost` finds."""
    context = multiprocessing.get_context("spawn")
    answer: multiprocessing.SimpleQueue[tuple[int, int, int]] = context.SimpleQueue()
    process = context.Process(target=cost, args=(options, name, answer))
    process.start()
    process.join()
    assert process.exitcode == 0
    return answer.get()


def main(arguments: list[str]) -> None:
    """Print the table."""
    options = Options.parse(arguments)
    held, once, size = measured(options, "whole")
    rows = [
        ("the process with its findings", mib(held), ""),
        (
            "json as one text: memory : report written",
            f"{once / size:.3f}",
            f"baseline ({mib(once)})",
        ),
    ]
    for name in FORMATS:
        held, more, size = measured(options, name)
        rows.append(
            (f"{name}: memory : report written", f"{more / size:.3f}", f"< 1 ({mib(more)})")
        )
    table(f"reports of {options.size} MiB of messages", rows)
