"""One large layer, cold: downloaded, verified, stored, inflated and indexed, against the slowest of these alone.

The layer comes from nginx, half of it programs and half of it texts. Baselines, in the same run: each
stage by itself with its input in memory, and the processor time of them all on all cores: nothing
that does them all can be faster. (The server's own is not in it.) Of all rounds the best counts: where the machine is a
virtual one, its host takes back memory that lies idle, and files take five times as long to write into what
has to be given again, in one round and not in the next. Arguments: ``size=300 rounds=5`` (MiB packed).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import tempfile
from pathlib import Path

from benchmarks.layers import MIB, taken
from benchmarks.measure import mib, table
from benchmarks.scans import REPOSITORY, Known, apart, pipeline, store_layers
from benchmarks.transfer import serving
from conforma.cache.tables import TableMaker
from conforma.oci import media_types
from conforma.oci.inflate import inflated


def download(port: int, known: Known) -> None:
    """Receive the blob and do nothing with it."""
    digest, _, size = known
    buffer = bytearray(MIB)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        path = f"/v2/{REPOSITORY}/blobs/{digest}"
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        received = 0
        while count := connection.recv_into(buffer):
            received += count
    assert received > size


def stages(place: Path, port: int, known: Known) -> dict[str, tuple[float, float]]:
    """Wall and CPU seconds of each stage by itself; each starts with its input in memory."""
    digest, diff_id, _ = known
    blob = (place / f"www/v2/{REPOSITORY}/blobs" / digest).read_bytes()
    pieces = list(inflated([blob], media_types.OCI_LAYER_GZIP))
    target = place / "written"

    def verify() -> None:
        packed, plain = hashlib.sha256(blob), hashlib.sha256()
        for piece in pieces:
            plain.update(piece)
        assert f"sha256:{packed.hexdigest()}" == digest
        assert f"sha256:{plain.hexdigest()}" == diff_id

    def store() -> None:
        with target.open("xb", buffering=0) as file:
            for piece in (blob, *pieces):
                file.write(piece)

    def inflate() -> None:
        for _ in inflated([blob], media_types.OCI_LAYER_GZIP):
            pass

    def index() -> None:
        maker = TableMaker("layer")
        for piece in pieces:
            maker.feed(piece)
        assert maker.table() is not None

    times = {"download": taken(lambda: download(port, known))}
    for work in (verify, store, inflate, index):
        os.sync()  # what was written before is not this one's to wait for
        times[work.__name__] = taken(work)
    target.unlink()
    return times


def layer_into(directory: Path, port: int, known: Known) -> tuple[float, float]:
    """All stages, by the cache: wall seconds until it can be read, CPU seconds until the cache is closed."""
    walls: list[float] = []
    host = f"127.0.0.1:{port}"
    os.sync()
    cpu = taken(lambda: walls.append(pipeline(host, directory, [known], 1)))[1]
    return walls[0], cpu


def main(arguments: list[str]) -> None:
    """Print the table."""
    given = {k: int(v) for k, _, v in (a.partition("=") for a in arguments)}
    rounds = given.get("rounds", 5)
    cores = os.cpu_count() or 1
    whole: list[tuple[float, float]] = []
    alone: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="conforma-cold-") as name:
        place = Path(name)
        place.chmod(0o755)  # nginx gives up its rights
        facts, www = place / "layers", place / f"www/v2/{REPOSITORY}/blobs"
        www.mkdir(parents=True)
        apart(store_layers, www, 1, given.get("size", 300), facts)
        digest, diff_id, size = facts.read_text().split()
        known = (digest, diff_id, int(size))
        with serving(place) as servers:
            for turn in range(rounds):
                for stage, times in stages(place, servers.plain, known).items():
                    alone.setdefault(stage, []).append(times)
                where = place / f"turn-{turn}"
                whole.append(layer_into(where, servers.plain, known))
                shutil.rmtree(where)
    wall, cpu = (min(times[which] for times in whole) for which in (0, 1))
    single = {name: min(w for w, _ in times) for name, times in alone.items()}
    work = sum(min(c for _, c in times) for times in alone.values())
    slowest = max(single.values())
    limit = max(slowest, work / cores)
    table(
        f"one layer of {mib(known[2])}, cold: best of {rounds}, {cores} cores",
        [
            (
                "cold layer : slowest single stage",
                f"{wall / slowest:.2f}",
                f"<= 1.25 with cores enough; {wall:.2f} s",
            ),
            (
                f"all stages on {cores} cores : slowest single stage",
                f"{limit / slowest:.2f}",
                "this machine's limit",
            ),
            ("cold layer : this machine's limit", f"{wall / limit:.2f}", "1 is perfect overlap"),
            (
                "its processor seconds : those of all stages",
                f"{cpu / work:.2f}",
                f"{cpu:.2f} s; what managing them costs",
            ),
            *((f"  {stage} alone", f"{s * 1000:.0f} ms", "") for stage, s in single.items()),
        ],
    )
