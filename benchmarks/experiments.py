"""Which command prints each experiment (E) and target (T), and all of them in one table.

Nothing is run without being asked for: ``-- E1 E10 T14`` runs what shows those
in small sizes, ``-- all`` everything (some ten minutes), and prints the set-up,
what others were seen to do, what is asked of us, and what we did here.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.measure import recorded


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is done, what it was before, what is asked for, and the command that shows it.

    ``small`` are the arguments for a run of seconds, ``full`` those of the experiment itself.
    """

    what: str
    before: str
    asked: str
    benchmark: str
    small: str = ""
    full: str = ""


EXPERIMENTS: Final = {
    "E1": Experiment(
        "2, 5, 35 threads, one blob of 4 MiB, in place and ours",
        "25-97 % wrong",
        "0 wrong in 100,000 reads, 1 GET",
        "contention",
        "only=1 reads=1500",
        "only=1 reads=100000",
    ),
    "E2": Experiment(
        "8 processes x 8 threads, 64 MiB, cold",
        "8 GETs, partial reads",
        "1 GET; wall <= 1.2 x single",
        "contention",
        "only=2 rounds=1",
        "only=2",
    ),
    "E3": Experiment(
        "warm open of 1 GiB, plain and gzip",
        "seconds",
        "< 5 ms",
        "layers",
        "entries=3000 rounds=1",
    ),
    "E4": Experiment(
        "10,000 tags, 2 ms: one lock (a loop), per key (httpx), ours",
        "15-20 s / 3-6 s",
        "<= per key",
        "lookup",
        "tags=300 rounds=1",
        "tags=10000 rounds=1",
    ),
    "E5": Experiment(
        "294 requests, bucket of 100 and 200",
        "117 s / 30 s",
        "<= 148 requests + scopes",
        "lookup",
        "tags=300 rounds=1",
    ),
    "E6": Experiment(
        "429 storm: 100 a minute, 4 processes",
        "429 without bound",
        "<= 2 a process and window, no failure",
        "limits",
    ),
    "E7": Experiment(
        "60 images, layers shared, uploads of one digest refused",
        "1.48 x spread, failures",
        "fastest, unique bytes, 0 failures",
        "mirror",
        "images=6 rounds=1",
        "images=60 shared=4 own=10",
    ),
    "E8": Experiment(
        "20 ms a piece of 5 KiB, a second client at 12 %",
        "latency doubles",
        "first bytes together",
        "streaming",
        "size=25 rounds=1",
    ),
    "E9": Experiment(
        "1 GiB to 8 followers, one stalled, one leaving",
        "stall or deadlock",
        "writer's speed, < 3 %",
        "streaming",
        "size=25 rounds=1",
        "size=1000 rate=100",
    ),
    "E10": Experiment(
        "SIGKILL of the leader at 90 %, 7 processes wait",
        "from zero, or wedged",
        "takeover < 1 s, <= 10 % + a block again",
        "contention",
        "only=10 rounds=1",
        "only=10",
    ),
    "E11": Experiment(
        "59 manifests at 50 ms, 1 and 5 at a time",
        "172.8 s -> 8.6 s",
        ">= 5 x (59 in fives take 12 rounds: 4.9 at best)",
        "lookup",
        "tags=59 latency=50 workers=5 rounds=1",
    ),
    "E12": Experiment(
        "publisher: prepare 20 ms, commit 50 ms, 1,000 operations",
        "14 a second for every W",
        ">= 0.8 x min(W/20 ms, batch/50 ms)",
        "ledger",
        "--operations 100 --baseline 16 --modes threads --workers 1,8",
    ),
    "E13": Experiment(
        "2,048 roles, 8 workers",
        "60 min -> 6 min",
        "linear until signing saturates",
        "renewal",
        "roles=128",
        "roles=2048",
    ),
    "E14": Experiment(
        "200 components x 50 MB, 35 workers: memory",
        "6 GB",
        "< 300 MB, flat",
        "release",
        "components=8 layers=4 size=5 rounds=1 baseline=2",
        "components=200 layers=35 size=50 workers=35 rounds=1 baseline=1",
    ),
}
TARGETS: Final = {
    "T1 T2 T3 T4 T5 T21": "transfer",
    "T6": "lookup",
    "T7": "layers",
    "T8 T9": "scans -- only=8",
    "T10 T11": "scans -- only=10",
    "T12 T14 T15": "release",
    "T13": "contention -- only=2",
    "T16 T17": "startup",
    "T18 T19": "documents",
    "T20": "scans -- only=20",
    "cold": "cold",
}
ROWS: Final = {
    "E4": r"^(wall, ours|sequential loop : ours|httpx, same threads : ours)$",
    "E5": r"^(requests|wait), ",
    "E7": r"^(blobs written|bytes read|conflicts|time|sequential)",
    "E8": r"follow: ",
    "E9": r"^(all done|one beside)",
    "E11": r"^(sequential loop : ours)$",
    "E14": r"^peak memory",
}
"""Which rows answer a question whose number they do not carry."""


def answers(number: str, rows: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Of all rows that a benchmark printed, those about this experiment."""
    mine = re.compile(ROWS.get(number, rf"\b{number}\b"))
    return [row for row in rows if mine.search(row[0])]


def run(number: str) -> list[tuple[str, str, str]]:
    """Do the experiment in its small size."""
    chosen = EXPERIMENTS[number]
    printed = io.StringIO()
    with recorded() as rows, contextlib.redirect_stdout(printed):
        importlib.import_module(f"benchmarks.{chosen.benchmark}").main(chosen.small.split())
    found = answers(number, rows)
    assert found or not rows, f"no row of {chosen.benchmark} is about {number}"
    return found or [(line, "", "") for line in printed.getvalue().splitlines() if line]


def command(benchmark: str, words: str) -> str:
    """What to type."""
    return f"python -m benchmarks {benchmark}" + (f" -- {words}" if words else "")


def main(arguments: list[str]) -> None:
    """Print the list, or run what was named and print the table."""
    wanted = list(EXPERIMENTS) if arguments == ["all"] else arguments
    unknown = [number for number in wanted if number not in EXPERIMENTS]
    for number in unknown:
        found = [name for numbers, name in TARGETS.items() if number in numbers.split()]
        print(f"{number}: python -m benchmarks {found[0]}" if found else f"{number}: not measured")
    for number, experiment in EXPERIMENTS.items():
        if wanted and number not in wanted:
            continue
        print(f"{number:4} {experiment.what}")
        print(f"     before: {experiment.before}; asked of us: {experiment.asked}")
        if wanted:
            for measure, value, target in run(number):
                print(f"     ours: {measure}{f': {value}  ({target})' if value else ''}")
        else:
            print(f"     {command(experiment.benchmark, experiment.full)}")
    if not wanted:
        for numbers, name in TARGETS.items():
            print(f"{numbers:20} python -m benchmarks {name}")
