"""What one run of the ledger benchmark measured, and the table made of many."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass
class Result:
    """One measurement: times in seconds, ``held`` the sum over all, ``written`` bytes of metadata.

    ``acks`` are the times from dropping an operation to its acknowledgement.
    """

    design: str
    mode: str
    workers: int
    operations: int
    seconds: float
    commits: int
    held: float
    written: int
    acks: list[float]

    @property
    def rate(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds

    @property
    def commit(self) -> float:
        """How long one commit held the right, in seconds."""
        return self.held / self.commits

    def joined(self, other: Result) -> Result:
        """Both as one: the other went on in the same ledger."""
        return Result(
            self.design,
            self.mode,
            self.workers,
            self.operations + other.operations,
            self.seconds + other.seconds,
            self.commits + other.commits,
            self.held + other.held,
            self.written + other.written,
            sorted(self.acks + other.acks),
        )


def save(path: Path, results: Iterable[Result]) -> None:
    """Write figures to a file."""
    path.write_text(json.dumps([asdict(result) for result in results]) + "\n")


def load(paths: Iterable[str]) -> list[Result]:
    """The figures of several files; those of one file about the same cell are one measurement."""
    found: list[Result] = []
    for path in paths:
        pieces: dict[tuple[str, str, int], Result] = {}
        for document in json.loads(Path(path).read_text()):
            piece = Result(**document)
            cell = (piece.design, piece.mode, piece.workers)
            pieces[cell] = pieces[cell].joined(piece) if cell in pieces else piece
        found += pieces.values()
    return sorted(found, key=lambda r: (r.design, r.operations, r.mode != "threads", r.workers))


def report(results: Sequence[Result]) -> None:
    """The table in Markdown, and the ratios that are asked for."""
    print(
        "| Design | Publishers | Operations | ops/s | Commits | Mean batch | Right per commit "
        "| p50 ack | p99 ack | Right held | Metadata per add |"
    )
    print("|" + "---|" * 11)
    names = {"group": "group commit", "lock": "one lock per task"}
    for r in results:
        acks = sorted(r.acks)
        print(
            f"| {names[r.design]} | {r.workers} {r.mode} | {r.operations:,} | {r.rate:.0f} "
            f"| {r.commits:,} | {r.operations / r.commits:.1f} | {r.commit * 1000:.0f} ms "
            f"| {statistics.median(acks) * 1000:.0f} ms | {acks[int(len(acks) * 0.99)] * 1000:.0f}"
            f" ms | {r.held / r.seconds:.0%} | {r.written / r.operations:,.0f} B |"
        )
    rates: dict[tuple[str, str, int], dict[int, float]] = {}
    for r in results:
        rates.setdefault((r.design, r.mode, r.operations), {})[r.workers] = r.rate
    for (design, mode, operations), by_workers in rates.items():
        if {1, 8} <= set(by_workers):
            ratio = by_workers[8] / by_workers[1]
            print(f"{design}, {mode}, {operations:,}: ops/s(8) = {ratio:.2f} x ops/s(1)")
