"""Blob bodies, received, hashed and written: our client against a raw socket, httpx and skopeo.

The targets are T1 to T5 and T21 of the performance notes. "raw" is a plain socket, ``recv_into``
1 MiB, ``hashlib`` and ``write``. nginx serves the files where it is installed, else our own
registry in a process of its own. Each case runs in a fresh process, interleaved; curl writes
files and hashes nothing. Arguments: ``size=300 blobs=12 each=50 small=200 rounds=3`` (MiB;
``small`` blobs have 1 MiB each) and ``only=T1,T4`` for some of the targets.
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
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.measure import Served, child, python, table

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
import sys
from pathlib import Path
from conforma.serve.registry import RegistryServer
with RegistryServer(Path(sys.argv[1])) as server:
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
    only: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Options:
        """Read ``name=value`` arguments."""
        given = dict(argument.split("=", 1) for argument in arguments)
        only = frozenset(filter(None, given.pop("only", "").split(",")))
        return cls(**{name: int(value) for name, value in given.items()}, only=only)

    def wants(self, target: str) -> bool:
        """Whether this target is to be measured."""
        return not self.only or target in self.only


@dataclass(frozen=True, slots=True)
class Case:
    """One way to fetch some blobs: ``what`` is ``one``, ``many`` or ``small``."""

    client: str
    what: str
    threads: int = 1
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Ratio:
    """One line of the table: a case against its baseline, by wall or processor time."""

    target: str
    text: str
    case: Case
    baseline: Case
    goal: str = ""
    processor: bool = False


_RAW: Final = Case("raw", "one")
_HASH: Final = Case("hash", "one")
_RAW_TLS: Final = Case("raw", "many", 4, tls=True)
_RAW_SMALL: Final = Case("raw", "small", 4)
_MANY_TLS: Final = "large blobs, TLS, 4 threads : raw"
# fmt: off
RATIOS: Final = (
    Ratio("T1", "one large blob : raw", Case("ours", "one"), _RAW, "<= 1.25"),
    Ratio("T1", "   httpx : raw", Case("httpx", "one"), _RAW),
    Ratio("T1", "   curl, no hash : raw", Case("curl", "one"), _RAW),
    Ratio("T2", _MANY_TLS, Case("ours", "many", 4, tls=True), _RAW_TLS, "<= 1.3"),
    Ratio("T2", "   httpx : raw", Case("httpx", "many", 4, tls=True), _RAW_TLS),
    Ratio("T2", "   curl, no hash : raw", Case("curl", "many", 4, tls=True), _RAW_TLS),
    Ratio("T3", "large blobs, 4 threads : 1", Case("ours", "many", 4), Case("ours", "many"), "<= 0.65"),
    Ratio("T3", "   raw, 4 threads : 1", Case("raw", "many", 4), Case("raw", "many")),
    Ratio("T3", "   ours : raw, 1 thread", Case("ours", "many"), Case("raw", "many")),
    Ratio("T3", "   ours : raw, 4 threads", Case("ours", "many", 4), Case("raw", "many", 4)),
    Ratio("T4", "client CPU : hashlib alone", Case("ours", "one"), _HASH, "<= 1.6", processor=True),
    Ratio("T4", "   raw : hashlib alone", _RAW, _HASH, processor=True),
    Ratio("T4", "   ours : raw", Case("ours", "one"), _RAW, processor=True),
    Ratio("T5", "small blobs, 4 threads : raw", Case("ours", "small", 4), _RAW_SMALL, "<= 1.8"),
    Ratio("T5", "   httpx : raw", Case("httpx", "small", 4), _RAW_SMALL),
)
# fmt: on


Blob = tuple[int, str, int]


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the blobs are, without and with TLS, and the authority behind it."""

    plain: int
    tls: int
    ca: str


def make(count: int, size: int, www: Path) -> list[Blob]:
    """Random blobs where nginx looks for ``/v2/bench/blobs/sha256:…``."""
    made = []
    for number in range(count):
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
        yield Servers(ports[0], ports[1], str(place / "ca.pem"))
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

    def once(self, case: Case, blobs: Sequence[Blob]) -> tuple[float, float]:
        """Wall and processor seconds of one run."""
        self._out.mkdir(exist_ok=True)
        try:
            return self._curl(case, blobs) if case.client == "curl" else self._python(case, blobs)
        finally:
            shutil.rmtree(self._out)

    def _python(self, case: Case, blobs: Sequence[Blob]) -> tuple[float, float]:
        server = self._servers
        where = ("https", "127.0.0.1", str(server.tls), server.ca) if case.tls else (
            "http", "127.0.0.1", str(server.plain), "")  # fmt: skip
        arguments = [*python(CLIENT), case.client, *where, str(case.threads), str(self._out)]
        done = child([*arguments, json.dumps(blobs)])
        if done.status:
            raise SystemExit(f"{case}: status {done.status}")
        wall, used = done.stdout.split()
        return float(wall), float(used)

    def _curl(self, case: Case, blobs: Sequence[Blob]) -> tuple[float, float]:
        server = self._servers
        place = (
            f"https://127.0.0.1:{server.tls}" if case.tls else f"http://127.0.0.1:{server.plain}"
        )
        arguments = ["curl", "-sSf", "--parallel", "--parallel-max", str(case.threads)]
        arguments += ["--cacert", server.ca] if case.tls else []
        for number, digest, _ in blobs:
            arguments += ["-o", f"{self._out}/{number}", f"{place}/v2/bench/blobs/sha256:{digest}"]
        done = child(arguments)
        if done.status:
            raise SystemExit(f"{case}: status {done.status}")
        return done.wall, done.cpu

    def compare(
        self, ratios: Sequence[Ratio], blobs: Mapping[str, Sequence[Blob]]
    ) -> list[tuple[str, str, str]]:
        """A row for each ratio, of the medians of all cases, run in turn."""
        cases = dict.fromkeys(case for r in ratios for case in (r.case, r.baseline))
        taken: dict[Case, list[tuple[float, float]]] = {case: [] for case in cases}
        for _ in range(self._rounds):
            for case, runs in taken.items():
                runs.append(self.once(case, blobs[case.what]))
        rows = []
        for ratio in ratios:
            column = 1 if ratio.processor else 0
            ours, theirs = (
                statistics.median(run[column] for run in taken[case])
                for case in (ratio.case, ratio.baseline)
            )
            rows.append((f"{ratio.target} {ratio.text}", f"{ours / theirs:.2f}", ratio.goal))
        return rows


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
        server = Served(REGISTRY, str(place / "store"))
        port = int(server.host)
        blobs = [(n, layer.digest.hex, len(layer.blob)) for n, layer in enumerate(made)]
        bench = Bench(Servers(port, port, ""), place / "out", 1)
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(bench.once(Case("ours", "many", 4), blobs)[0])
            copy = [skopeo, "--insecure-policy", "copy", "-q", "--src-tls-verify=false"]
            started = time.perf_counter()
            subprocess.run(
                [*copy, f"docker://127.0.0.1:{port}/bench@{digest}", f"dir:{place}/dir"], check=True
            )
            theirs.append(time.perf_counter() - started)
            shutil.rmtree(place / "dir")
        server.close()
    ratio = statistics.median(ours) / statistics.median(theirs)
    return [(f"T21 image, {layers} x {each} MiB : skopeo copy", f"{ratio:.2f}", "<= 0.6")]


def main(arguments: list[str]) -> None:
    """Run all comparisons, or those that are asked for."""
    options = Options.parse(arguments)
    ratios = [
        ratio
        for ratio in RATIOS
        if options.wants(ratio.target) and (ratio.case.client != "curl" or shutil.which("curl"))
    ]
    rows: list[tuple[str, str, str]] = []
    if ratios:
        with tempfile.TemporaryDirectory() as text:
            place = Path(text)
            place.chmod(0o755)
            www = place / "www/v2/bench/blobs"
            www.mkdir(parents=True)
            sizes = {
                "one": (1, options.size),
                "many": (options.blobs, options.each),
                "small": (options.small, 1),
            }
            needed = {case.what for r in ratios for case in (r.case, r.baseline)}
            blobs = {what: make(*sizes[what], www) for what in needed}
            with serving(place) as servers:
                rows = Bench(servers, place / "out", options.rounds).compare(ratios, blobs)
    if options.wants("T21"):
        rows += image_against_skopeo(options.rounds, 6, options.each)
    sizes_text = f"1 x {options.size}, {options.blobs} x {options.each}, {options.small} x 1 MiB"
    table(f"{sizes_text}, hashed and written; medians of {options.rounds}", rows)
