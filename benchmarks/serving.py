"""conforma serve against nginx: warm throughput with sendfile, memory at 200 connections.

Both serve the same 200 MB to the same client, a process of its own that reads
from raw sockets; runs alternate. nginx is skipped, with a word, if it is not
installed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.measure import medians, table

SIZE = 200_000_000
CONNECTIONS = 4
ROUNDS = 5
MANY = 200
REPOSITORY = "bench/app"

CLIENT = """
import socket, sys, threading, time
host, port, path, count, size = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
def fetch():
    s = socket.create_connection((host, port))
    s.sendall(f"GET {path} HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n".encode())
    buffer = bytearray(1 << 20); total = 0
    while n := s.recv_into(buffer): total += n
    assert total >= size, total
threads = [threading.Thread(target=fetch) for _ in range(count)]
started = time.perf_counter()
for t in threads: t.start()
for t in threads: t.join()
print(time.perf_counter() - started)
"""


def seconds(port: int, path: str) -> float:
    """How long ``CONNECTIONS`` parallel downloads take."""
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, "127.0.0.1", str(port), path, str(CONNECTIONS), str(SIZE)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


@contextmanager
def serving(directory: Path, digest: str) -> Iterator[tuple[int, int]]:
    """``conforma serve`` over a layout, with the blob in its cache; its port and process."""
    process = subprocess.Popen(
        [
            sys.executable, "-m", "conforma", "serve", f"--upstream=oci:{directory / 'layout'}",
            "--listen=127.0.0.1:0", f"--cache-dir={directory / 'cache'}",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    port = int(process.stdout.readline().rpartition(":")[2])
    seconds(port, blob_path(digest))  # warm
    try:
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextmanager
def nginx(directory: Path) -> Iterator[int]:
    """nginx with one worker and sendfile; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = directory / "nginx.conf"
    config.write_text(
        f"""
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{ worker_connections 1024; }}
http {{ access_log off; sendfile on; keepalive_requests 100000;
  server {{ listen 127.0.0.1:{port}; root {directory}; }} }}
"""
    )
    directory.chmod(0o755)
    process = subprocess.Popen(["nginx", "-c", str(config), "-p", str(directory)])
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


def resident(pid: int) -> int:
    """The process's memory now, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ValueError(pid)


def at_many_connections(port: int, pid: int, path: str) -> tuple[int, int]:
    """Memory while ``MANY`` clients are in the middle of a download, and after it."""
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    sockets = []
    for _ in range(MANY):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(request)
        sockets.append(connection)
    for connection in sockets:
        assert connection.recv(64 * 1024).startswith(b"HTTP/1.1 200")
    during = resident(pid)

    def drain(connection: socket.socket) -> None:
        connection.recv(1 << 20)
        connection.close()

    threads = [threading.Thread(target=drain, args=(c,)) for c in sockets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return during, resident(pid)


def blob_path(digest: str) -> str:
    """Where the blob is on the server."""
    return f"/v2/{REPOSITORY}/blobs/{digest}"


def make_layout(directory: Path) -> str:
    """A layout with one large blob, which is also there as a plain file; its digest."""
    from conforma.oci.layout import INDEX_FILE, MARKER, MARKER_FILE

    data = os.urandom(SIZE)
    digest = hashlib.sha256(data).hexdigest()
    blobs = directory / "layout" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (blobs / digest).write_bytes(data)
    (directory / "layout" / MARKER_FILE).write_bytes(MARKER)
    (directory / "layout" / INDEX_FILE).write_text('{"schemaVersion":2,"manifests":[]}')
    (directory / "plain").write_bytes(data)
    return f"sha256:{digest}"


def main(_arguments: list[str]) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(prefix="conforma-serving-") as name, ExitStack() as stack:
        directory = Path(name)
        digest = make_layout(directory)
        port, pid = stack.enter_context(serving(directory, digest))
        cases = {"ours": lambda: seconds(port, blob_path(digest))}
        if shutil.which("nginx"):
            other = stack.enter_context(nginx(directory))
            cases["nginx"] = lambda: seconds(other, "/plain")
        taken = medians(cases, ROUNDS)
        during, after = at_many_connections(port, pid, blob_path(digest))
    speed = {case: CONNECTIONS * SIZE / wall / 1e6 for case, wall in taken.items()}
    ratio = f"{speed['ours'] / speed['nginx']:.2f}" if "nginx" in speed else "no nginx here"
    table(
        f"{CONNECTIONS} connections, {SIZE // 1_000_000} MB each, warm, medians of {ROUNDS}",
        [
            ("throughput : nginx with sendfile", ratio, ">= 0.5"),
            (f"memory at {MANY} connections", f"{during / 1e6:.0f} MB", "< 150 MB"),
            ("memory after them", f"{after / 1e6:.0f} MB", "orientation"),
            *((f"{case}", f"{value:.0f} MB/s", "orientation") for case, value in speed.items()),
        ],
    )
