"""E8 and E9: clients of conforma serve that follow one download from a slow upstream.

Baseline: store and forward, the same server and cache with an answer that
begins when the blob is complete. Upstream, server and clients are processes
of their own. Arguments: ``size=500 rate=50 clients=8 rounds=2`` (MB, MB/s).
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import numbers, table

UPSTREAM = """
import json, sys
from pathlib import Path
from conforma.serve.faults import Fault
from conforma.serve.registry import RegistryServer
directory, piece, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
with RegistryServer(Path(directory)) as server:
    server.faults.add(Fault(drip=(piece, pause)), method="GET", path="/blobs/", times=None)
    print(server.host, flush=True)
    for _ in sys.stdin:
        seen = server.log.settled().matching("GET", "/blobs/")
        print(json.dumps({"bytes": sum(r.bytes for r in seen), "requests": len(seen)}), flush=True)
        server.log.clear()
"""
STORE_AND_FORWARD = """
import sys, threading
from conforma.cli import serve
from conforma.serve import landing
from conforma.serve.bodies import HandleBody
def open_whole(self, descriptor, fetch, origin):
    return HandleBody(self._cache.compressed(self._cache.layer(descriptor, None, fetch, origin=origin)))
landing.Landings.open = open_whole
from conforma.cli.root import run
sys.exit(run(sys.argv[1:]))
"""
CLIENTS = """
import json, socket, sys, threading, time
port, path, size, delays = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
stalled = json.loads(sys.argv[5])
found = [None] * len(delays)
def client(number, delay):
    time.sleep(delay)
    started = time.perf_counter()
    s = socket.create_connection(("127.0.0.1", port))
    s.sendall(f"GET {path} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n".encode())
    buffer = bytearray(1 << 18)
    head = b""
    while b"\\r\\n\\r\\n" not in head: head += s.recv(65536)
    total = len(head.partition(b"\\r\\n\\r\\n")[2])
    while total == 0: total += s.recv_into(buffer)
    first = time.perf_counter() - started
    while n := s.recv_into(buffer): total += n
    assert total == size, (total, size)
    found[number] = (first, time.perf_counter() - begun)
idle = []
for _ in range(stalled):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.connect(("127.0.0.1", port)); s.sendall(f"GET {path} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode()); idle.append(s)
begun = time.perf_counter()
threads = [threading.Thread(target=client, args=item) for item in enumerate(delays)]
for t in threads: t.start()
for t in threads: t.join()
print(json.dumps(found))
"""
REPOSITORY = "bench/app"


@dataclass(frozen=True, slots=True)
class Options:
    """See the module."""

    size: int = 500
    rate: int = 50
    clients: int = 8
    rounds: int = 2

    @classmethod
    def parse(cls, arguments: list[str]) -> Options:
        """From ``name=number`` words."""
        return cls(**numbers(arguments))


class Upstream:
    """A registry process that sends ``piece`` bytes every ``pause`` seconds."""

    def __init__(self, directory: Path, piece: int, pause: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", UPSTREAM, str(directory), str(piece), str(pause)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.host = self._process.stdout.readline().strip()

    def seen(self) -> dict[str, int]:
        """Bytes sent since the last call."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer: dict[str, int] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


@contextmanager
def serving(upstream: str, cache: Path, *, whole: bool = False) -> Iterator[int]:
    """``conforma serve`` with an empty cache; its port. ``whole``: the baseline."""
    program = ["-c", STORE_AND_FORWARD] if whole else ["-m", "conforma"]
    process = subprocess.Popen(
        [sys.executable, *program, "serve", f"--upstream={upstream}", "--listen=127.0.0.1:0",
         f"--cache-dir={cache}"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline().rpartition(":")[2])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def clients(
    port: int, digest: str, size: int, delays: list[float], stalled: int = 0
) -> list[tuple[float, float]]:
    """Seconds to the first byte, and to the end since the first client began, for each client."""
    path = f"/v2/{REPOSITORY}/blobs/{digest}"
    done = subprocess.run(
        [sys.executable, "-c", CLIENTS, str(port), path, str(size), json.dumps(delays),
         str(stalled)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [(first, end) for first, end in json.loads(done.stdout)]


def put(directory: Path, size: int) -> str:
    """A random blob in an upstream's store; its digest."""
    from conforma.serve.store import Store

    data = os.urandom(size)
    Store(directory).put_blob(REPOSITORY, data)
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def slow_start(directory: Path) -> list[tuple[str, str, str]]:
    """E8: 104 kB in pieces of 5 kB every 20 ms; a second client comes after 12 %."""
    size, pause = 104_000, 0.02
    digest = put(directory / "small", size)
    upstream = Upstream(directory / "small", 5_000, pause)
    transfer = size / 5_000 * pause
    rows = []
    try:
        for name, whole in (("follow", False), ("store and forward", True)):
            with serving(upstream.host, directory / f"cache-{name}", whole=whole) as port:
                (first, end), (second, other) = clients(port, digest, size, [0, transfer * 0.12])
            bound = "<= 50 ms" if not whole else "baseline"
            apart = f"{abs(second - first) * 1000:.0f} ms"
            rows.append((f"{name}: first bytes apart", apart, bound))
            rows.append((f"{name}: first byte, second client's", f"{first * 1000:.0f} ms, "
                         f"{second * 1000:.0f} ms", "orientation"))  # fmt: skip
            rows.append((f"{name}: both done, upstream takes {transfer:.2f} s",
                         f"{end:.2f}, {other:.2f} s", "orientation"))  # fmt: skip
    finally:
        upstream.close()
    return rows


def many(directory: Path, options: Options) -> list[tuple[str, str, str]]:
    """E9: clients on one large blob, against one client alone; one that stalls beside them."""
    size = options.size * 1_000_000
    digest = put(directory / "large", size)
    piece = 250_000
    upstream = Upstream(directory / "large", piece, piece / (options.rate * 1e6))
    alone: list[float] = []
    together: list[float] = []
    spread: list[float] = []
    beside: list[float] = []
    upstream_bytes = 0
    number = 0

    def run(delays: list[float], stalled: int = 0) -> list[tuple[float, float]]:
        nonlocal number, upstream_bytes
        number += 1
        with serving(upstream.host, directory / f"cache-large-{number}") as port:
            found = clients(port, digest, size, delays, stalled)
        upstream_bytes = upstream.seen()["bytes"]
        return found

    try:
        for _ in range(options.rounds):
            alone.append(run([0])[0][1])
            found = run([0.0] * options.clients)
            together.append(max(end for _, end in found))
            spread.append(max(first for first, _ in found) - min(first for first, _ in found))
            assert upstream_bytes == size, upstream_bytes
            beside.append(run([0], stalled=1)[0][1])
    finally:
        upstream.close()
    base = statistics.median(alone)
    return [
        (f"{options.clients} clients: upstream bytes : size", f"{upstream_bytes / size:.2f}",
         "= 1.00"),
        ("all done : one alone", f"{statistics.median(together) / base:.2f}", "<= 1.1"),
        ("first bytes apart", f"{statistics.median(spread) * 1000:.0f} ms", "<= 50 ms"),
        ("one beside a stalled client : one alone",
         f"{statistics.median(beside) / base:.2f}", "<= 1.03"),
        ("one alone", f"{base:.1f} s, {size / base / 1e6:.0f} MB/s", "orientation"),
    ]  # fmt: skip


def main(arguments: list[str]) -> None:
    """Print the tables."""
    options = Options.parse(arguments)
    with tempfile.TemporaryDirectory(prefix="conforma-streaming-") as name:
        table("E8: a second client of a slow upstream", slow_start(Path(name)))
        rows = many(Path(name), options)
        table(f"E9: {options.size} MB at {options.rate} MB/s, medians of {options.rounds}", rows)
