"""E6: four processes, and a registry that allows so many requests a minute and refuses the rest.

A minute takes ``minute`` seconds here, and nobody was told of the limit. The
baseline asks with httpx and, when it is refused, again after the seconds that
it was told, as clients do that know nothing of each other. Arguments:
``processes=4 each=40 allowed=100 minute=6``.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass

from benchmarks.measure import Served, numbers, python, table

SERVER = """
import json, sys
from conforma.oci import media_types
from conforma.serve.registry import RegistryServer
each, allowed, minute = map(float, sys.argv[1:])
raw = json.dumps({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": []}).encode()
with RegistryServer() as server:
    for number in range(int(each)):
        server.store.repository("app").put_manifest(raw, media_types.OCI_INDEX, tag=f"t{number}")
    server.faults.limit_rate(int(allowed), allowed / minute, retry_after="1")
    print(server.host, flush=True)
    for _ in sys.stdin:
        print(json.dumps([[r.status, r.start] for r in server.log.settled()]), flush=True)
        server.log.clear()
"""
OURS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from conforma.cancellation import Cancellation
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry, RegistryOptions
host, each, state = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
with (
    Registry(RegistryOptions(environment={}, state=state), Cancellation()) as registry,
    ThreadPoolExecutor(8) as pool,
):
    base = Reference.parse(f"{host}/app")
    answers = list(pool.map(lambda n: registry.head(base.with_tag(f"t{n}")), range(each)))
print(len(answers), flush=True)
"""
PLAIN = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
import httpx
host, each = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
def ask(number):
    while True:
        answer = client.head(f"http://{host}/v2/app/manifests/t{number}")
        if answer.status_code == 200:
            return 1
        time.sleep(float(answer.headers["retry-after"]))
with httpx.Client(trust_env=False) as client, ThreadPoolExecutor(8) as pool:
    answers = list(pool.map(ask, range(each)))
print(len(answers), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Options:
    """See the module."""

    processes: int = 4
    each: int = 40
    allowed: int = 100
    minute: int = 6

    @classmethod
    def parse(cls, arguments: list[str]) -> Options:
        """From ``name=number`` words."""
        return cls(**numbers(arguments))


@dataclass(frozen=True, slots=True)
class Seen:
    """How it went: seconds, answers, and refusals in the worst second of the server's log."""

    seconds: float
    answers: int
    refused: int
    worst: int


def storm(program: str, options: Options) -> Seen:
    """All processes ask at once."""
    served = Served(SERVER, *map(str, (options.each, options.allowed, options.minute)))
    try:
        with tempfile.TemporaryDirectory(prefix="conforma-limits-") as state:
            crew = [
                subprocess.Popen(
                    [*python(program), served.host, str(options.each), state],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                )
                for _ in range(options.processes)
            ]  # fmt: skip
            for process in crew:
                assert process.stdout is not None
                process.stdout.readline()
            started = time.perf_counter()
            outputs = [process.communicate("\n")[0] for process in crew]
            seconds = time.perf_counter() - started
        log: object = served.asked()
    finally:
        served.close()
    assert isinstance(log, list)
    windows = Counter(int(start) for status, start in log if status == 429)
    return Seen(
        seconds,
        sum(int(output or 0) for output in outputs),
        windows.total(),
        max(windows.values(), default=0),
    )


def main(arguments: list[str]) -> None:
    """Print the table."""
    options = Options.parse(arguments)
    ours, plain = storm(OURS, options), storm(PLAIN, options)
    wanted = options.processes * options.each
    per_process = ours.refused / options.processes
    floor = max(0.0, (wanted - options.allowed) * options.minute / options.allowed)
    table(
        f"{options.processes} processes x {options.each} requests, {options.allowed} allowed "
        f"in {options.minute} s",
        [
            ("E6 answers", f"{ours.answers}", f"= {wanted}; httpx {plain.answers}"),
            (
                "E6 refused (429), each process",
                f"{per_process:.1f}",
                f"httpx {plain.refused / options.processes:.1f}",
            ),
            (
                "E6 refused in the worst second, each process",
                f"{ours.worst / options.processes:.1f}",
                f"<= 2 a window; httpx {plain.worst / options.processes:.1f}",
            ),
            ("E6 seconds", f"{ours.seconds:.1f} s", f"httpx {plain.seconds:.1f} s; the server's limit {floor:.1f} s"),
        ],
    )  # fmt: skip
