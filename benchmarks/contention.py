"""E1, E2 and E10: one blob wanted by many threads, by many processes, and after its leader was killed.

Baseline: the cache that writes under the final name while others read it (the
reference's idea, in ``tests/cache/tee.py``). ``wrong`` counts reads whose bytes
are not the blob's. Every server and every reader of E2 and E10 is a process of
its own. Arguments: ``reads=10000 processes=8 threads=8 size=64 rounds=3`` (MiB);
``only=1``, 2 or 10 runs one of them.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Served, medians, mib, numbers, table
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.manifest import Descriptor
from conforma.serve.store import Store
from tests.cache.candidates import opened

REPOSITORY = "bench/app"
PIECE = 64 * 1024
THREADS = (2, 5, 35)
AGAIN = 10  # reads by each thread of one blob

# Serves a store; a line asks who was answered what since the last one. With a
# pace it sends MiB after MiB so many seconds apart.
SERVER = """
import json, sys
from pathlib import Path
from conforma.serve.faults import Fault
from conforma.serve.registry import RegistryServer
directory, pause = Path(sys.argv[1]), float(sys.argv[2])
with RegistryServer(directory) as server:
    if pause:
        server.faults.add(Fault(drip=(1 << 20, pause)), path="/blobs/", times=None)
    print(server.host, flush=True)
    for _ in sys.stdin:
        seen = server.log.settled().matching("GET", "/blobs/")
        server.log.clear()
        print(json.dumps({"requests": len(seen), "bytes": sum(r.bytes for r in seen)}), flush=True)
"""

# Says ready, and for each request; on a line it reads the blob in all its threads.
READER = """
import hashlib, http.client, json, sys, threading, time
from contextlib import contextmanager
from pathlib import Path
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.manifest import Descriptor
from tests.cache.candidates import opened
kind, directory, host, path, digest, size, count = sys.argv[1:]
size = int(size)

def say(**event):
    print(json.dumps({**event, "at": time.monotonic()}), flush=True)

@contextmanager
def fetch(offset):
    say(event="asked", offset=offset)
    connection = http.client.HTTPConnection(host)
    connection.request("GET", path, headers={"Range": f"bytes={offset}-"} if offset else {})
    answer = connection.getresponse()
    def pieces():
        while piece := answer.read1(1 << 18):
            yield piece
    try:
        yield pieces()
    finally:
        connection.close()

def read(number):
    try:
        sources[number] = layer.compressed()
    except Exception as error:
        sources[number] = error

cache = opened(kind, Path(directory))
descriptor = Descriptor(media_types.OCI_LAYER_GZIP, Digest.parse(digest), size)
layer = cache.layer(descriptor, None, fetch)
sources = [None] * int(count)
say(event="ready")
sys.stdin.readline()
threads = [threading.Thread(target=read, args=(n,)) for n in range(len(sources))]
for t in threads: t.start()
for t in threads: t.join()
done = time.monotonic()
wrong = 0
for source in sources:
    hasher = hashlib.sha256()
    while not isinstance(source, Exception) and (piece := source.read(1 << 20)):
        hasher.update(piece)
    wrong += "sha256:" + hasher.hexdigest() != digest
say(event="done", opened=done, wrong=wrong)
"""


@dataclass(frozen=True, slots=True)
class Options:
    """See the module."""

    reads: int = 10_000
    processes: int = 8
    threads: int = 8
    size: int = 64
    rounds: int = 3
    only: int = 0

    @classmethod
    def parse(cls, arguments: list[str]) -> Options:
        """From ``name=number`` words."""
        return cls(**numbers(arguments))


def racing(kind: str, directory: Path, threads: int, reads: int) -> tuple[int, int, int]:
    """Reads, wrong ones and requests: each blob is wanted by all threads at once, while it comes."""
    wrong = requests = done = 0
    lock = threading.Lock()
    while done < reads:
        blob = random.Random(done).randbytes(4 << 20)
        descriptor = Descriptor(media_types.OCI_LAYER_GZIP, Digest.of(blob), len(blob))
        barrier = threading.Barrier(threads)

        @contextmanager
        def fetch(offset: int, blob: bytes = blob) -> Iterator[Iterator[bytes]]:
            nonlocal requests
            with lock:
                requests += 1
            yield (blob[at : at + PIECE] for at in range(offset, len(blob), PIECE))

        cache = opened(kind, directory)
        layer = cache.layer(descriptor, None, fetch)

        def read(layer: Any = layer, blob: bytes = blob, barrier: Any = barrier) -> None:
            nonlocal wrong
            barrier.wait()
            for _ in range(AGAIN):
                with layer.compressed() as source:
                    if source.read() != blob:
                        with lock:
                            wrong += 1

        crew = [threading.Thread(target=read) for _ in range(threads)]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        cache.close()
        done += threads * AGAIN
        if kind == "safe":
            opened(kind, directory, max_bytes=1, grace=0.0).collect()
        else:
            cache.final_name(descriptor.digest).unlink()
    return done, wrong, requests


def in_threads(directory: Path, reads: int) -> list[tuple[str, str, str]]:
    """E1."""
    rows = []
    for threads in THREADS:
        share = reads // len(THREADS)
        blobs = max(1, -(-share // (threads * AGAIN)))
        done, wrong, requests = racing("safe", directory / f"safe-{threads}", threads, share)
        count, bad, asked = racing(
            "tee", directory / f"tee-{threads}", threads, min(share, 20 * threads * AGAIN)
        )
        rows.append(
            (
                f"E1 {threads} threads: wrong reads",
                f"{wrong} of {done}",
                f"= 0; in place {bad / count:.0%} of {count}, first reads {_first(bad, count)}",
            )
        )
        rows.append(
            (
                f"E1 {threads} threads: requests per blob",
                f"{requests / blobs:.2f}",
                f"= 1; in place {asked / (count / (threads * AGAIN)):.2f}",
            )
        )
    return rows


def _first(bad: int, count: int) -> str:
    """Only the first of :data:`AGAIN` reads can come while the file is being written."""
    return f"{min(1.0, bad * AGAIN / count):.0%}"


class Reader:
    """A process of :data:`READER`, and what it says."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", READER, *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.heard: list[dict[str, Any]] = []
        self.until("ready")

    def until(self, event: str) -> dict[str, Any]:
        """The next event of that name."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.heard.append(json.loads(line))
            if self.heard[-1]["event"] == event:
                return self.heard[-1]
        raise AssertionError(f"a reader ended before it was {event}")

    def go(self) -> None:
        """Read."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def swarm(
    kind: str, cache: Path, host: str, blob: tuple[str, int], processes: int, threads: int
) -> tuple[float, int]:
    """Seconds until the last of them had the blob open, and wrong reads."""
    digest, size = blob
    path = f"/v2/{REPOSITORY}/blobs/{digest}"
    readers = [Reader(kind, cache, host, path, digest, size, threads) for _ in range(processes)]
    started = time.monotonic()
    for reader in readers:
        reader.go()
    ends = [reader.until("done") for reader in readers]
    for reader in readers:
        reader.process.wait()
    return max(e["opened"] for e in ends) - started, sum(e["wrong"] for e in ends)


def put(directory: Path, size: int) -> tuple[str, int]:
    """A random blob in a store: digest and length."""
    data = os.urandom(size << 20)
    return str(Store(directory).put_blob(REPOSITORY, data)), len(data)


def in_processes(directory: Path, options: Options) -> list[tuple[str, str, str]]:
    """E2, and with it T13."""
    blob = put(directory / "store", options.size)
    served = Served(SERVER, str(directory / "store"), "0")
    seen: dict[str, tuple[int, float]] = {}
    wrongs: dict[str, int] = {}
    number = 0

    def run(kind: str, processes: int, threads: int) -> float:
        nonlocal number
        number += 1
        cache = directory / f"cache-{number}"
        wall, wrong = swarm(kind, cache, served.host, blob, processes, threads)
        asked = served.asked()
        name = f"{kind} {processes}"
        seen[name] = int(str(asked["requests"])), int(str(asked["bytes"])) / blob[1]
        wrongs[name] = wrongs.get(name, 0) + wrong
        return wall

    many = options.processes
    try:
        walls = medians(
            {
                "single": lambda: run("safe", 1, 1),
                "ours": lambda: run("safe", many, options.threads),
                "tee": lambda: run("tee", many, options.threads),
            },
            options.rounds,
        )
    finally:
        served.close()
    ours, tee = f"safe {many}", f"tee {many}"
    reads = many * options.threads * options.rounds
    what = f"E2 {many} processes x {options.threads} threads, {options.size} MiB"
    return [
        (f"{what}: requests", f"{seen[ours][0]}", f"= 1; in place {seen[tee][0]}"),
        (
            "E2 (T13) blob bytes served : blob bytes",
            f"{seen[ours][1]:.2f}",
            f"= 1.00; in place {seen[tee][1]:.2f}",
        ),
        (
            "E2 wrong reads",
            f"{wrongs[ours]} of {reads}",
            f"= 0; in place {wrongs[tee]} of {reads}",
        ),
        (
            "E2 last has it open : one process, one thread",
            f"{walls['ours'] / walls['single']:.2f}",
            f"<= 1.2; alone {walls['single']:.2f} s",
        ),
    ]


def killed(directory: Path, options: Options) -> list[tuple[str, str, str]]:
    """E10: the leader dies at 90 %, the others wait for it."""
    digest, size = put(directory / "store-10", options.size)
    pause = 0.02
    served = Served(SERVER, str(directory / "store-10"), str(pause))
    path = f"/v2/{REPOSITORY}/blobs/{digest}"
    takeovers, extras = [], []
    try:
        for turn in range(options.rounds):
            cache = directory / f"cache-10-{turn}"
            arguments = ("safe", cache, served.host, path, digest, size, 1)
            readers = [Reader(*arguments) for _ in range(options.processes)]
            readers[0].go()
            readers[0].until("asked")
            for reader in readers[1:]:
                reader.go()
            while _written(cache) < size * 0.9:
                time.sleep(0.002)
            readers[0].process.send_signal(signal.SIGKILL)
            died = time.monotonic()
            ends = [reader.until("done") for reader in readers[1:]]
            assert sum(end["wrong"] for end in ends) == 0
            again = [e for r in readers[1:] for e in r.heard if e["event"] == "asked"]
            assert len(again) == 1, again
            takeovers.append(again[0]["at"] - died)
            extras.append((size - again[0]["offset"]) / size)
            for reader in readers:
                reader.process.wait()
            served.asked()
    finally:
        served.close()
    return [
        (
            f"E10 killed at 90 % of {mib(size)}, {options.processes - 1} wait: next request after",
            f"{statistics.median(takeovers) * 1000:.0f} ms",
            f"< 1000 ms; worst of {options.rounds}: {max(takeovers) * 1000:.0f} ms",
        ),
        ("E10 bytes asked for again : size", f"{max(extras):.3f}", "<= 0.10 + one block"),
    ]


def _written(cache: Path) -> int:
    """Bytes of the largest partial."""
    return max((p.stat().st_size for p in (cache / "v1/blobs").rglob("*.part")), default=0)


def main(arguments: list[str]) -> None:
    """Print the tables."""
    options = Options.parse(arguments)
    with tempfile.TemporaryDirectory(prefix="conforma-contention-") as name:
        directory = Path(name)
        rows = []
        if options.only in (0, 1):
            rows += in_threads(directory, options.reads)
        if options.only in (0, 2):
            rows += in_processes(directory, options)
        if options.only in (0, 10):
            rows += killed(directory, options)
    table("one blob, wanted by many", rows)
