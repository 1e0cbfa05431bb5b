"""Publishing to a ledger: operations per second over publishers, beside one lock per task.

``python -m benchmarks ledger`` runs 1,000 operations by 1, 2, 4 and 8
publishers, in threads and in processes, and 240 of the baseline. Preparing
costs 20 ms and committing 50 ms on top of the real work, as calls to a signing
service do. The baseline does what a worker did that took a lock for each task:
wait for the lock, rewrite bin, snapshot and timestamp, release.

The table can be measured in pieces: ``-- --designs group --modes threads
--workers 1 --operations 5000 --ledger DIR --json FILE`` is one cell, or half of
one if the same is done again (it goes on in that ledger and adds to that
file). ``-- --merge FILE...`` prints the table of all, ``--plot FILE`` draws it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from benchmarks.ledger_plot import draw
from benchmarks.ledger_results import Result, load, report, save
from benchmarks.slow_signer import SlowSigner
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


def service_time(payload: bytes) -> float:
    """Seconds for a signature: snapshot and timestamp cost half a commit each."""
    serial = (b'{"_type":"snapshot"', b'{"_type":"timestamp"', b'{"commit"')
    return COMMIT / 2 if payload.startswith(serial) else 0.0


def slow(ledger: Ledger, key: str) -> SlowSigner:
    """The ledger's online key, slowed down."""
    signer = keys.online(key, ledger.state.root)
    assert isinstance(signer, CryptoSigner)
    return SlowSigner(signer, service_time)


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


def measure(
    design: str, mode: str, workers: int, operations: int, directory: Path | None = None
) -> Result:
    """One run, in a new ledger or in the one at ``directory``, which is made if need be."""
    with contextlib.ExitStack() as stack:
        if directory is None:
            made = stack.enter_context(tempfile.TemporaryDirectory(prefix="conforma-bench-"))
            directory = Path(made, "ledger")
        key = directory.with_name(f"{directory.name}-keys") / "online.pem"
        if not directory.exists():
            initialize(directory, key.parent, Config())
        before, first = _written(directory)
        processes = workers if mode == "processes" else 1
        each = operations // workers
        crew = [
            subprocess.Popen(
                [
                    *[sys.executable, "-m", "benchmarks.ledger", "--work", design, str(directory)],
                    *[str(key), f"{first}-{number}", str(workers // processes), str(each)],
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(processes)
        ]
        for process in crew:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for process in crew:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [json.loads(process.communicate()[0]) for process in crew]
        acks = sorted(round(ack, 5) for answer in answers for ack in answer["acks"])
        assert len(acks) == each * workers
        after, last = _written(directory)
        commits = sum(answer["commits"] for answer in answers)
        assert last == first + commits, "versions rise by one per commit"
        timestamp = (directory / "metadata/timestamp.json").stat().st_size
        return Result(
            design=design,
            mode=mode,
            workers=workers,
            operations=len(acks),
            seconds=max(answer["seconds"] for answer in answers),
            commits=commits,
            held=sum(answer["held"] for answer in answers),
            written=after - before + timestamp * commits,
            acks=acks,
        )


def _written(directory: Path) -> tuple[int, int]:
    """The bytes of all metadata, of which none is ever overwritten but the timestamp; the version."""
    with Ledger(directory) as ledger:
        size = sum(path.stat().st_size for path in (directory / "metadata").iterdir())
        return size, ledger.state.head.version


def main(arguments: list[str]) -> None:
    """Measure both designs and say what came out."""
    if arguments[:1] == ["--work"]:
        design, directory, key, name, threads, count = arguments[1:]
        return work(design, Path(directory), key, name, int(threads), int(count))
    parser = argparse.ArgumentParser(prog="ledger")
    parser.add_argument("--operations", default="1000")
    parser.add_argument("--baseline", type=int, default=240, help="operations of the baseline")
    parser.add_argument("--designs", default="group,lock")
    parser.add_argument("--modes", default="threads,processes")
    parser.add_argument("--workers", default=",".join(map(str, WORKERS)))
    parser.add_argument("--ledger", type=Path, help="go on in this ledger, or make it")
    parser.add_argument("--merge", nargs="+", default=[], help="measure nothing, read these files")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path, help="keep the figures, adding to those in the file")
    options = parser.parse_args(arguments)
    results = load(options.merge)
    if not options.merge:
        runs = [
            (design, int(count))
            for design in options.designs.split(",")
            for count in (
                options.operations.split(",") if design == "group" else [options.baseline]
            )
        ]
        for design, operations in runs:
            for mode in options.modes.split(","):
                for workers in map(int, options.workers.split(",")):
                    results.append(measure(design, mode, workers, operations, options.ledger))
                    print(".", end="", flush=True, file=sys.stderr)
    report(results)
    if options.json:
        earlier = load([options.json]) if options.json.exists() else []
        save(options.json, [*earlier, *results])
    if options.plot:
        options.plot.write_text(draw(results))
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
