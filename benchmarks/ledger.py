"""Publishing to a ledger: operations per second over publishers, beside one lock per task.

``python -m benchmarks ledger`` runs 1,000 operations by 1, 2, 4 and 8
publishers, in threads and in processes; ``-- --operations 1000,10000`` more of
them, ``--plot FILE`` draws the curves, ``--json FILE`` keeps the figures.
Preparing costs 20 ms and committing 50 ms on top of the real work, as calls to
a signing service do. The baseline does what a worker did that took a lock for
each task: wait for the lock, rewrite bin, snapshot and timestamp, release.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner, Signature, Signer

from benchmarks.ledger_plot import draw
from conforma.ledger import keys
from conforma.ledger.commit import Committer
from conforma.ledger.config import Config
from conforma.ledger.initialize import initialize
from conforma.ledger.ledger import Ledger
from conforma.ledger.operation import Numbering, Operation
from conforma.ledger.publisher import Publisher

PREPARE = 0.020
COMMIT = 0.050
WORKERS = (1, 2, 4, 8)
CONTENT = b'{"payload":"' + b"A" * 2400 + b'"}'


class SlowSigner(Signer):
    """The online key behind a service: snapshot and timestamp cost half a commit each."""

    def __init__(self, signer: CryptoSigner) -> None:
        self._signer = signer

    @property
    def public_key(self) -> Any:
        """The key that clients verify with."""
        return self._signer.public_key

    @classmethod
    def from_priv_key_uri(cls, *_: Any) -> SlowSigner:
        """Not offered."""
        raise NotImplementedError

    def sign(self, payload: bytes) -> Signature:
        """Sign, after the time that a service takes for it."""
        if payload.startswith((b'{"_type":"snapshot"', b'{"_type":"timestamp"', b'{"commit"')):
            time.sleep(COMMIT / 2)
        return self._signer.sign(payload)


@dataclass
class Result:
    """One measurement; times in seconds, ``held`` as a share of the run, bytes of metadata."""

    design: str
    mode: str
    workers: int
    operations: int
    rate: float
    commits: int
    batch: float
    p50: float
    p99: float
    held: float
    bytes_per_add: float
    snapshots: int


def slow(ledger: Ledger, key: str) -> SlowSigner:
    """The ledger's online key, slowed down."""
    signer = keys.online(key, ledger.state.root)
    assert isinstance(signer, CryptoSigner)
    return SlowSigner(signer)


def grouped(publisher: Publisher, name: str, count: int, acks: list[float]) -> None:
    """Prepare and publish ``count`` operations, waiting for none of them."""
    for number in range(count):
        time.sleep(PREPARE)
        dropped = time.perf_counter()
        publisher.publish(f"bench/sha256-{name}-{number}.json", CONTENT).when_done(
            lambda _, dropped=dropped: acks.append(time.perf_counter() - dropped)
        )


def locked(ledger: Ledger, committer: Committer, name: str, count: int, acks: list[float]) -> float:
    """The same with one lock per task; how long the lock was held."""
    numbering = Numbering()
    held = 0.0
    for number in range(count):
        time.sleep(PREPARE)
        dropped = time.perf_counter()
        path = f"bench/sha256-{name}-{number}.json"
        length, sha256 = ledger.inbox.store(path, CONTENT)
        ledger.right.acquire()
        taken = time.perf_counter()
        ledger.inbox.drop(Operation(numbering.next(), path=path, length=length, sha256=sha256))
        record = committer.commit()
        held += time.perf_counter() - taken
        ledger.right.release()
        assert record is not None and len(record.outcomes) == 1
        acks.append(time.perf_counter() - dropped)
    return held


def work(design: str, directory: Path, key: str, name: str, threads: int, count: int) -> None:
    """One process: say ready, wait for a line, work, and print what came out."""
    acks: list[float] = []
    with Ledger(directory) as ledger:
        signer = slow(ledger, key)
        publisher = Publisher(ledger, signer) if design == "group" else None
        print("ready", flush=True)
        sys.stdin.readline()
        started = time.monotonic()
        helds = [0.0] * threads
        commits = count * threads

        def run(number: int) -> None:
            own = f"{name}-{number}"
            if publisher is not None:
                grouped(publisher, own, count, acks)
            else:
                # Each thread is a worker of its own, as each process is.
                with Ledger(directory) as mine:
                    committer = Committer(
                        mine.storage, mine.state, mine.history, mine.inbox, signer
                    )
                    helds[number] = locked(mine, committer, own, count, acks)

        crew = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        if publisher is not None:
            publisher.close()
            commits, helds = publisher.stats.commits, [publisher.stats.held]
        document = {
            "seconds": time.monotonic() - started,
            "acks": acks,
            "commits": commits,
            "held": sum(helds),
        }
        print(json.dumps(document), flush=True)


def measure(design: str, mode: str, workers: int, operations: int) -> Result:
    """One run in a new ledger."""
    with tempfile.TemporaryDirectory(prefix="conforma-bench-") as name:
        directory = Path(name, "ledger")
        initialize(directory, Path(name, "keys"), Config())
        before = sum(path.stat().st_size for path in (directory / "metadata").iterdir())
        processes = workers if mode == "processes" else 1
        each = operations // workers
        crew = [
            subprocess.Popen(
                [
                    *[sys.executable, "-m", "benchmarks.ledger", "--work", design, str(directory)],
                    *[f"{name}/keys/online.pem", str(number), str(workers // processes), str(each)],
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(processes)
        ]
        for process in crew:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        started = time.monotonic()
        for process in crew:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [json.loads(process.communicate()[0]) for process in crew]
        seconds = time.monotonic() - started
        acks = sorted(ack for answer in answers for ack in answer["acks"])
        done = each * workers
        assert len(acks) == done
        with Ledger(directory) as ledger:
            commits = sum(answer["commits"] for answer in answers)
            assert ledger.state.head.version == commits + 1, "versions rise by one per commit"
            timestamp = (directory / "metadata/timestamp.json").stat().st_size
        after = sum(path.stat().st_size for path in (directory / "metadata").iterdir())
        return Result(
            design=design,
            mode=mode,
            workers=workers,
            operations=done,
            rate=done / max(answer["seconds"] for answer in answers),
            commits=commits,
            batch=done / commits,
            p50=statistics.median(acks),
            p99=acks[int(len(acks) * 0.99)],
            held=sum(answer["held"] for answer in answers) / seconds,
            bytes_per_add=(after - before + timestamp * commits) / done,
            snapshots=commits,
        )


def report(results: list[Result]) -> None:
    """The table, and the ratios that are asked for."""
    print(
        f"\n{'design':8} {'mode':10} {'W':>2} {'ops':>6} {'ops/s':>8} {'commits':>8} {'batch':>6} "
        f"{'p50 ms':>7} {'p99 ms':>7} {'held':>5} {'B/add':>7}"
    )
    for r in results:
        print(
            f"{r.design:8} {r.mode:10} {r.workers:2} {r.operations:6} {r.rate:8.1f} {r.commits:8} "
            f"{r.batch:6.1f} {r.p50 * 1000:7.0f} {r.p99 * 1000:7.0f} {r.held:5.0%} "
            f"{r.bytes_per_add:7.0f}"
        )
    for design, mode, operations in dict.fromkeys(
        (r.design, r.mode, r.operations) for r in results
    ):
        rates = {
            r.workers: r.rate
            for r in results
            if (r.design, r.mode, r.operations) == (design, mode, operations)
        }
        if {1, 8} <= set(rates):
            print(
                f"{design}, {mode}, {operations}: ops/s(8) = {rates[8] / rates[1]:.2f} x ops/s(1)"
            )


def main(arguments: list[str]) -> None:
    """Measure both designs and say what came out."""
    if arguments[:1] == ["--work"]:
        design, directory, key, name, threads, count = arguments[1:]
        return work(design, Path(directory), key, name, int(threads), int(count))
    parser = argparse.ArgumentParser(prog="ledger")
    parser.add_argument("--operations", default="1000")
    parser.add_argument("--baseline", type=int, default=96, help="operations of the baseline")
    parser.add_argument("--modes", default="threads,processes")
    parser.add_argument("--workers", default=",".join(map(str, WORKERS)))
    parser.add_argument("--plot")
    parser.add_argument("--json")
    options = parser.parse_args(arguments)
    results = []
    runs = [("group", int(count)) for count in options.operations.split(",")]
    if options.baseline:
        runs.append(("lock", options.baseline))
    for design, operations in runs:
        for mode in options.modes.split(","):
            for workers in map(int, options.workers.split(",")):
                results.append(measure(design, mode, workers, operations))
                print(".", end="", flush=True, file=sys.stderr)
    report(results)
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")
    if options.plot:
        Path(options.plot).write_text(draw([asdict(r) for r in results]))
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
