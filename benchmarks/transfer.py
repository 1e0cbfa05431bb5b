"""Blob bodies, received, hashed and written: our client against a raw socket, httpx and skopeo.

The targets are T1 to T5 and T21 of the performance notes. "raw" is a plain socket, ``recv_into``
1 MiB, ``hashlib`` and ``write``. nginx serves the files where it is installed, else our own
registry in a process of its own. Each case runs in a fresh process, interleaved. Arguments:
``size=300 blobs=12 each=50 small=200 rounds=3`` (MiB; ``small`` blobs have 1 MiB each).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import table

CLIENT = """
import hashlib, json, os, resource, socket, ssl, sys, time
from concurrent.futures import ThreadPoolExecutor
kind, scheme, host, port, ca, threads, out, blobs = (
    sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5], int(sys.argv[6]),
    sys.argv[7], json.loads(sys.argv[8]))

def keep(number, digest, chunks):
    hasher = hashlib.sha256()
    with open(f"{out}/{number}", "wb", buffering=0) as file:
        for chunk in chunks:
            hasher.update(chunk)
            file.write(chunk)
    assert hasher.hexdigest() == digest

def raw(number, digest, size):
    sock = socket.create_connection((host, port))
    if scheme == "https":
        context = ssl.create_default_context(cafile=ca)
        sock = context.wrap_socket(sock, server_hostname=host)
    path = f"/v2/bench/blobs/sha256:{digest}"
    sock.sendall(f"GET {path} HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n".encode())
    head = b""
    while b"\\r\\n\\r\\n" not in head:
        head += sock.recv(4096)
    rest = head.partition(b"\\r\\n\\r\\n")[2]
    def chunks():
        left = size - len(rest)
        if rest:
            yield rest
        buffer = memoryview(bytearray(1 << 20))
        while left:
            count = sock.recv_into(buffer)
            assert count
            left -= count
            yield buffer[:count]
    keep(number, digest, chunks())

if kind == "ours":
    from conforma.cancellation import Cancellation
    from conforma.oci.digest import Digest
    from conforma.oci.manifest import Descriptor
    from conforma.oci.reference import Reference
    from conforma.oci.registry import Registry, RegistryOptions
    name = f"{host}:{port}"
    registry = Registry(RegistryOptions(environment={"SSL_CERT_FILE": ca} if ca else {},
        encrypted=frozenset({name} if scheme == "https" else ())), Cancellation())
    reference = Reference.parse(f"{name}/bench")
    def fetch(number, digest, size):
        # Hashes and checks by itself; the file is all that is left to do.
        what = Descriptor("application/octet-stream", Digest("sha256", digest), size)
        with open(f"{out}/{number}", "wb", buffering=0) as file:
            with registry.open_blob(reference, what) as chunks:
                for chunk in chunks:
                    file.write(chunk)
elif kind == "httpx":
    import httpx
    client = httpx.Client(verify=ssl.create_default_context(cafile=ca) if ca else False)
    def fetch(number, digest, size):
        url = f"{scheme}://{host}:{port}/v2/bench/blobs/sha256:{digest}"
        with client.stream("GET", url) as answer:
            keep(number, digest, answer.iter_raw())
elif kind == "hash":
    block = os.urandom(1 << 20)
    def fetch(number, digest, size):
        hasher = hashlib.sha256()
        for _ in range(size >> 20):
            hasher.update(block)
else:
    fetch = raw
started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
if threads == 1:
    for job in blobs:
        fetch(*job)
else:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda job: fetch(*job), blobs))
wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
print(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
"""
REGISTRY = """
import ssl, sys
from pathlib import Path
from conforma.serve.registry import RegistryServer
tls = None
if len(sys.argv) > 2:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(sys.argv[2])
with RegistryServer(Path(sys.argv[1]), tls=tls) as server:
    print(server.port, flush=True)
    sys.stdin.read()
"""
NGINX = """
worker_processes 1; daemon off; pid {place}/nginx.pid; error_log {place}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
  client_body_temp_path {place}/t1; proxy_temp_path {place}/t2; fastcgi_temp_path {place}/t3;
  uwsgi_temp_path {place}/t4; scgi_temp_path {place}/t5; default_type application/octet-stream;
  server {{
    listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl; ssl_protocols TLSv1.3;
    ssl_certificate {place}/server.pem; ssl_certificate_key {place}/server.pem;
    root {place}/www;
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Options:
    """Sizes in MiB; see the module."""

    size: int = 300
    blobs: int = 12
    each: int = 50
    small: int = 200
    rounds: int = 3


Blob = tuple[int, str, int]


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the blobs are, without and with TLS, and the authority behind it."""

    plain: int
    tls: int
    ca: str
    name: str


def make(count: int, size: int, www: Path, start: int) -> list[Blob]:
    """Random blobs where nginx looks for ``/v2/bench/blobs/sha256:…``."""
    made = []
    for number in range(start, start + count):
        block = os.urandom(1 << 20)
        hasher = hashlib.sha256()
        temporary = www / "new"
        with temporary.open("wb") as file:
            for index in range(size):
                piece = index.to_bytes(8, "big") + block[8:]
                hasher.update(piece)
                file.write(piece)
        temporary.rename(www / f"sha256:{hasher.hexdigest()}")
        made.append((number, hasher.hexdigest(), size << 20))
    return made


@contextmanager
def serving(place: Path) -> Iterator[Servers]:
    """nginx over the files."""
    import trustme

    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(place / "server.pem"))
    authority.cert_pem.write_to_path(str(place / "ca.pem"))
    program = shutil.which("nginx")
    if program is None:
        raise SystemExit("this benchmark wants nginx (Debian: apt-get install nginx-light)")
    ports = [_free(), _free()]
    (place / "nginx.conf").write_text(NGINX.format(place=place, plain=ports[0], tls=ports[1]))
    process = subprocess.Popen(
        [program, "-p", str(place), "-c", str(place / "nginx.conf")], stderr=subprocess.DEVNULL
    )
    try:
        for port in ports:
            _wait_for(port)
        yield Servers(ports[0], ports[1], str(place / "ca.pem"), "nginx")
    finally:
        process.terminate()
        process.wait()


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    for _ in range(500):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.01)
    raise SystemExit("the server did not start")


class Bench:
    """Runs cases in fresh processes and collects their medians."""

    def __init__(self, servers: Servers, out: Path, rounds: int) -> None:
        self._servers = servers
        self._out = out
        self._rounds = rounds

    def once(
        self, kind: str, blobs: Sequence[Blob], threads: int, *, tls: bool = False
    ) -> tuple[float, float]:
        """Wall and processor seconds of one run."""
        self._out.mkdir(exist_ok=True)
        server = self._servers
        where = ("https", "127.0.0.1", str(server.tls), server.ca) if tls else (
            "http", "127.0.0.1", str(server.plain), "")  # fmt: skip
        command = [sys.executable, "-c", CLIENT, kind, *where, str(threads), str(self._out)]
        done = subprocess.run([*command, json.dumps(blobs)], capture_output=True, text=True)
        shutil.rmtree(self._out)
        if done.returncode:
            raise SystemExit(done.stderr)
        wall, used = done.stdout.split()
        return float(wall), float(used)

    def compare(
        self, cases: dict[str, tuple[str, Sequence[Blob], int, bool]]
    ) -> dict[str, tuple[float, float]]:
        """Medians of wall and processor time of each case, interleaved."""
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
        for _ in range(self._rounds):
            for name, (kind, blobs, threads, tls) in cases.items():
                taken[name].append(self.once(kind, blobs, threads, tls=tls))
        return {
            name: (statistics.median(w for w, _ in t), statistics.median(c for _, c in t))
            for name, t in taken.items()
        }


def image_against_skopeo(rounds: int, layers: int, each: int) -> list[tuple[str, str, str]]:
    """T21: an image of our registry into a directory, by us and by skopeo."""
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        return [("T21 image : skopeo copy", "-", "skopeo is not installed")]
    from conforma.serve.images import image_of, layer_of
    from conforma.serve.registry import RegistryServer

    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        made = [layer_of(os.urandom(each << 20), compression="none") for _ in range(layers)]
        with RegistryServer(place / "store") as filling:
            digest = image_of(made).put(filling.store, "bench", "v1")
        server = subprocess.Popen(
            [sys.executable, "-c", REGISTRY, str(place / "store")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert server.stdout is not None
        port = int(server.stdout.readline())
        blobs = [(n, layer.digest.hex, len(layer.blob)) for n, layer in enumerate(made)]
        bench = Bench(Servers(port, port, "", "ours"), place / "out", 1)
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(bench.once("ours", blobs, 4)[0])
            copy = [skopeo, "--insecure-policy", "copy", "-q", "--src-tls-verify=false"]
            started = time.perf_counter()
            subprocess.run(
                [*copy, f"docker://127.0.0.1:{port}/bench@{digest}", f"dir:{place}/dir"], check=True
            )
            theirs.append(time.perf_counter() - started)
            shutil.rmtree(place / "dir")
        assert server.stdin is not None
        server.stdin.close()
        server.wait()
    ratio = statistics.median(ours) / statistics.median(theirs)
    return [(f"T21 image, {layers} x {each} MiB : skopeo copy", f"{ratio:.2f}", "<= 0.6")]


def main(arguments: list[str]) -> None:
    """Run all comparisons."""
    options = Options(**{n: int(v) for n, _, v in (a.partition("=") for a in arguments)})
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        place.chmod(0o755)
        www = place / "www/v2/bench/blobs"
        www.mkdir(parents=True)
        one = make(1, options.size, www, 0)
        many = make(options.blobs, options.each, www, 0)
        small = make(options.small, 1, www, 0)
        with serving(place) as servers:
            bench = Bench(servers, place / "out", options.rounds)
            found = bench.compare(
                {
                    "one raw": ("raw", one, 1, False),
                    "one ours": ("ours", one, 1, False),
                    "one httpx": ("httpx", one, 1, False),
                    "one hash": ("hash", one, 1, False),
                    "tls raw": ("raw", many, 4, True),
                    "tls ours": ("ours", many, 4, True),
                    "tls httpx": ("httpx", many, 4, True),
                    "many ours 1": ("ours", many, 1, False),
                    "many ours 4": ("ours", many, 4, False),
                    "small raw": ("raw", small, 4, False),
                    "small ours": ("ours", small, 4, False),
                    "small httpx": ("httpx", small, 4, False),
                }
            )
    wall = {name: w for name, (w, _) in found.items()}
    used = {name: c for name, (_, c) in found.items()}
    rows = [
        (
            f"T1 one blob of {options.size} MiB : raw",
            f"{wall['one ours'] / wall['one raw']:.2f}",
            "<= 1.25",
        ),
        ("   httpx : raw", f"{wall['one httpx'] / wall['one raw']:.2f}", ""),
        (
            f"T2 {options.blobs} x {options.each} MiB, TLS, 4 threads : raw",
            f"{wall['tls ours'] / wall['tls raw']:.2f}",
            "<= 1.3",
        ),
        ("   httpx : raw", f"{wall['tls httpx'] / wall['tls raw']:.2f}", ""),
        (
            f"T3 {options.blobs} x {options.each} MiB, 4 threads : 1",
            f"{wall['many ours 4'] / wall['many ours 1']:.2f}",
            "<= 0.65",
        ),
        ("T4 client CPU : hashlib alone", f"{used['one ours'] / used['one hash']:.2f}", "<= 1.6"),
        (
            f"T5 {options.small} x 1 MiB, 4 threads : raw",
            f"{wall['small ours'] / wall['small raw']:.2f}",
            "<= 1.8",
        ),
        ("   httpx : raw", f"{wall['small httpx'] / wall['small raw']:.2f}", ""),
        *image_against_skopeo(options.rounds, 6, options.each),
    ]
    table(f"bodies, hashed and written, from {servers.name}; medians of {options.rounds}", rows)


if __name__ == "__main__":
    main(sys.argv[1:])
