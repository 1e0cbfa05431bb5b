"""Looking up many tags of one repository: requests, processor time and wall, against named baselines.

All in this run and against the same loopback registry process, interleaved: a sequential loop of
our own client, plain httpx (sequential, and with as many threads), and ``wrk``, a C client, which
shows what the server can do. ``conforma lookup --brief`` is the whole command, its start-up and
output included. Then the token-bucket model in simulated time. Arguments:
``tags=2000 workers=16 latency=2 rounds=3`` (``latency`` in milliseconds per request, 0 for none).
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import child, medians, table
from conforma.cancellation import Cancellation
from conforma.oci import media_types
from conforma.oci.limiter import Rate
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry, RegistryOptions
from conforma.serve.auth import BearerAuth
from conforma.serve.registry import RegistryServer
from conforma.validate.growth import Growth
from conforma.validate.pool import in_parallel

# Serves one manifest under many tags and tells, for each line read, what was asked since.
SERVER = """
import json, sys
from conforma.oci import media_types
from conforma.serve.faults import Fault
from conforma.serve.registry import RegistryServer
count, latency = int(sys.argv[1]), float(sys.argv[2])
raw = json.dumps({"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": [],
                  "annotations": {"filler": "x" * 400}}).encode()
with RegistryServer() as server:
    for number in range(count):
        server.store.repository("app").put_manifest(raw, media_types.OCI_INDEX, tag=f"t{number}")
    if latency:
        server.faults.add(Fault(latency=latency / 1000), times=None)
    print(server.host, flush=True)
    for _ in sys.stdin:
        log = server.log.settled()
        print(json.dumps([len(log), sum(r.bytes for r in log), log.peak]), flush=True)
        log.clear()
"""
WRK = """
local n = 0
request = function() n = (n + 1) % COUNT; return wrk.format("GET", "/v2/app/manifests/t" .. n) end
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured; see the module."""

    tags: int = 2000
    workers: int = 16
    latency: int = 2
    rounds: int = 3


class Served:
    """The registry process and its log."""

    def __init__(self, tags: int, latency: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(tags), str(latency)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.host = self._process.stdout.readline().strip()

    def asked(self) -> tuple[int, int, int]:
        """Requests, bytes of bodies and most requests at once since the last call."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        requests, size, peak = json.loads(self._process.stdout.readline())
        return requests, size, peak

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def served(tags: int, latency: float) -> Iterator[Served]:
    """A server of so many tags."""
    server = Served(tags, latency)
    try:
        yield server
    finally:
        server.close()


def cpu() -> float:
    """Processor seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def ours(references: list[Reference], workers: int, *, bodies: bool = False) -> tuple[float, float]:
    """Wall and processor seconds of looking all up with a fresh client."""
    options = RegistryOptions(environment={}, small_requests=max(workers, 1))
    with Registry(options, Cancellation()) as registry:
        ask: Callable[[Reference], object] = registry.manifest if bodies else registry.head
        if workers <= 1:
            return timed(ask, references, workers)
        started, before = time.perf_counter(), cpu()
        answers = in_parallel(  # as `conforma lookup` does
            references, ask, workers=workers, cancellation=Cancellation(), growth=Growth()
        )
        assert not any(isinstance(answer, Exception) for answer in answers)
        return time.perf_counter() - started, cpu() - before


def command(references: list[Reference], workers: int) -> tuple[float, float]:
    """Wall and processor seconds of the program that looks all up, in a process of its own."""
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        (place / "references").write_text("".join(f"{r}\n" for r in references))
        arguments = [sys.executable, "-m", "conforma", "lookup", "--brief", "--output", "json"]
        arguments += ["--file", f"{place}/references", "--workers", str(workers)]
        run = child([*arguments, "--cache-dir", f"{place}/cache"])
    assert run.status == 0
    assert run.stdout.count(b'"found"') == len(references)
    return run.wall, run.cpu


def plain_httpx(references: list[Reference], workers: int) -> tuple[float, float]:
    """The same with httpx as it comes: one client, one HEAD each."""
    import httpx

    with httpx.Client(headers={"Accept": media_types.ACCEPT_MANIFEST}, trust_env=False) as client:

        def ask(reference: Reference) -> None:
            answer = client.head(
                f"http://{reference.registry}/v2/{reference.repository}/manifests/{reference.tag}"
            )
            assert answer.status_code == 200
            assert answer.headers["docker-content-digest"]

        return timed(ask, references, workers)


def timed(
    ask: Callable[[Reference], object], references: list[Reference], workers: int
) -> tuple[float, float]:
    """Wall and processor seconds of asking for all."""
    started, before = time.perf_counter(), cpu()
    if workers <= 1:
        for reference in references:
            ask(reference)
    else:
        with ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(ask, references):
                pass
    return time.perf_counter() - started, cpu() - before


def limit(host: str, tags: int, connections: int) -> float | None:
    """Requests a second that wrk gets out of the server; ``None`` without wrk."""
    program = shutil.which("wrk")
    if program is None:
        return None
    with tempfile.TemporaryDirectory() as place:
        script = Path(place) / "tags.lua"
        script.write_text(WRK.replace("COUNT", str(tags)))
        command = [program, "-t1", f"-c{connections}", "-d2", "-s", str(script), f"http://{host}"]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (line,) = (line for line in output.splitlines() if "Requests/sec" in line)
    return float(line.split()[-1])


def compare(options: Options, latency: int) -> None:
    """One table: the same tags looked up in each way."""
    count, workers = options.tags, options.workers
    with served(count, latency) as server:
        references = [Reference.parse(f"{server.host}/app:t{n}") for n in range(count)]
        processor: dict[str, list[float]] = {}

        def case(name: str, run: Callable[[], tuple[float, float]]) -> Callable[[], float]:
            def measured() -> float:
                wall, used = run()
                processor.setdefault(name, []).append(used)
                return wall

            return measured

        walls = medians(
            {
                "loop": case("loop", lambda: ours(references, 1)),
                "ours": case("ours", lambda: ours(references, workers)),
                "command": case("command", lambda: command(references, workers)),
                "httpx loop": case("httpx loop", lambda: plain_httpx(references, 1)),
                "httpx": case("httpx", lambda: plain_httpx(references, workers)),
                "wrk": lambda: count / (limit(server.host, count, workers) or float("nan")),
            },
            options.rounds,
        )
        each = {name: sorted(used)[len(used) // 2] / count for name, used in processor.items()}
        server.asked()
        ours(references, workers)
        requests, _, at_once = server.asked()
        ours(references, workers, bodies=True)
        with_bodies, size, _ = server.asked()
    table(
        f"{count} tags of one repository, {latency} ms latency, at most {workers} threads",
        [
            ("wall, ours", f"{walls['ours']:.2f} s", ""),
            ("most requests at once", str(at_once), f"<= {workers}"),
            ("requests per tag", f"{requests / count:.3f}", "= 1 (HEAD)"),
            ("requests per tag, manifests read", f"{with_bodies / count:.3f}", "<= 1 + 1/tags"),
            ("bodies read", f"{size} B", "one manifest, shared by all tags"),
            ("sequential loop : ours", f"{walls['loop'] / walls['ours']:.1f}", ">= 8 or server"),
            ("httpx loop : ours", f"{walls['httpx loop'] / walls['ours']:.1f}", ""),
            ("httpx, same threads : ours", f"{walls['httpx'] / walls['ours']:.1f}", ""),
            ("ours : server's limit (wrk)", f"{walls['ours'] / walls['wrk']:.2f}", "<= 2"),
            (
                "conforma lookup : server's limit (wrk)",
                f"{walls['command'] / walls['wrk']:.2f}",
                "<= 2",
            ),
            ("server's limit (wrk)", f"{count / walls['wrk']:.0f}/s", ""),
            ("CPU each, one thread: ours", f"{each['loop'] * 1e6:.0f} us", ""),
            (
                "CPU each: ours : httpx, one thread",
                f"{each['loop'] / each['httpx loop']:.2f}",
                "<= 0.85 (T6)",
            ),
            (
                "CPU each: ours : httpx, threads",
                f"{each['ours'] / each['httpx']:.2f}",
                "<= 0.85 (T6)",
            ),
        ],
    )


class SimulatedTime:
    """Sleeping moves the clock and takes no time."""

    def __init__(self) -> None:
        self.slept = 0.0
        self._lock = threading.Lock()

    def sleep(self, seconds: float) -> None:
        """Sleep until a booked slot: the longest one is when the job ends."""
        with self._lock:
            self.slept = max(self.slept, seconds)


def model(repositories: int = 147) -> None:
    """The first tag of each of many repositories, at 100 requests a minute and a burst of 100."""
    rows = []
    for name, wide in (("token for each repository", False), ("shared tokens", True)):
        clock = SimulatedTime()
        with RegistryServer(auth=BearerAuth()) as server:
            raw = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
            references = []
            for number in range(repositories):
                server.store.repository(f"library/image{number}").put_manifest(
                    raw, media_types.OCI_INDEX, tag="latest"
                )
                references.append(Reference.parse(f"{server.host}/library/image{number}:latest"))
            options = RegistryOptions(
                environment={}, rates={server.host: Rate(100, 100)}, sleep=clock.sleep
            )
            with Registry(options, Cancellation()) as registry, ThreadPoolExecutor(16) as pool:
                if wide:
                    registry.expect(references)
                started = time.monotonic()
                list(pool.map(registry.head, references))
                real = time.monotonic() - started
            asked = len(server.log.settled())
        expected = max(0.0, (asked - 100) * 0.6)
        rows.append((f"requests, {name}", str(asked), "147 + tokens + 1 introduction"))
        rows.append(
            (
                f"wait, {name}",
                f"{clock.slept:.1f} s",
                f"model {expected:.1f} s (run took {real:.1f} s)",
            )
        )
    table(f"{repositories} repositories at 100/min, burst 100, simulated time", rows)


def main(arguments: list[str]) -> None:
    """Run all comparisons."""
    chosen = {name: int(value) for name, _, value in (a.partition("=") for a in arguments)}
    options = Options(**chosen)
    compare(options, 0)
    if options.latency:
        compare(options, options.latency)
    model()
