"""E7: 20 images that share layers, to a registry that refuses two uploads of one blob at a time.

Baselines, written here as the tools do it: image after image with a few
layers at once, and several images at once without knowing of each other (the
layout of oc-mirror, 4 images x 5 layers). Source and destination are
processes of their own and answer every request after ``latency`` ms.
Arguments: ``images=20 shared=4 own=2 size=1 latency=20 rounds=3`` (``size`` in MB).
"""

from __future__ import annotations

import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.measure import Served, numbers, table
from conforma.serve.images import image_of, layer_of, random_member
from conforma.serve.store import Store

SERVER = """
import json, sys
from pathlib import Path
from conforma.serve.faults import Fault
from conforma.serve.registry import RegistryServer
directory, latency = sys.argv[1], float(sys.argv[2])
with RegistryServer(Path(directory), exclusive_uploads=True) as server:
    if latency:
        server.faults.add(Fault(latency=latency), times=None)
    print(server.host, flush=True)
    for _ in sys.stdin:
        log = server.log.settled()
        puts = [r for r in log.matching("PUT", "/blobs/uploads/")]
        print(json.dumps({
            "read": list(log.counts("GET", r"/blobs/sha").values()),
            "bytes": sum(r.bytes for r in log.matching("GET", r"/blobs/sha")),
            "written": sum(r.status == 201 for r in puts),
            "conflicts": sum(r.status == 409 for r in log),
        }), flush=True)
"""
CONFLICT_PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class Options:
    """See the module."""

    images: int = 20
    shared: int = 4
    own: int = 2
    size: int = 1
    latency: int = 20
    rounds: int = 3

    @classmethod
    def parse(cls, arguments: list[str]) -> Options:
        """From ``name=number`` words."""
        return cls(**numbers(arguments))


@dataclass(frozen=True, slots=True)
class Seen:
    """What one copy took, and what the servers saw of it."""

    seconds: float
    read: int
    most_reads: int
    written: int
    conflicts: int
    bytes: int


def make(directory: Path, options: Options) -> tuple[list[str], int, int]:
    """The images; returns their names, the number of distinct blobs and their bytes."""
    store = Store(directory)
    size = options.size * 1_000_000
    shared = [layer_of([random_member("f", size, f"shared{n}")]) for n in range(options.shared)]
    names, sizes = [], {}
    for number in range(options.images):
        own = [layer_of([random_member("f", size, f"own{number}-{n}")]) for n in range(options.own)]
        image = image_of([*shared, *own], labels={"n": str(number)})
        image.put(store, f"shop/app{number}", "v1")
        names.append(f"shop/app{number}")
        document = json.loads(image.manifest)
        sizes |= {d["digest"]: d["size"] for d in (document["config"], *document["layers"])}
    return names, len(sizes), sum(sizes.values())


def copy_image(client: httpx.Client, source: str, target: str, name: str, layers: int) -> None:
    """One image, its layers at the same time, knowing of no other image."""
    answer = client.get(f"http://{source}/v2/{name}/manifests/v1")
    document = answer.json()

    def copy_blob(digest: str) -> None:
        there = f"http://{target}/v2/{name}/blobs"
        if client.head(f"{there}/{digest}").status_code == 200:
            return
        while True:
            content = client.get(f"http://{source}/v2/{name}/blobs/{digest}").content
            location = client.post(f"{there}/uploads/").headers["location"]
            done = client.put(f"http://{target}{location}?digest={digest}", content=content)
            if done.status_code == 201:
                return
            time.sleep(CONFLICT_PAUSE)  # what the tools' retry does: all over again

    with ThreadPoolExecutor(layers) as pool:
        list(pool.map(copy_blob, [document["config"]["digest"],
                                  *(layer["digest"] for layer in document["layers"])]))  # fmt: skip
    done = client.put(
        f"http://{target}/v2/{name}/manifests/v1",
        content=answer.content,
        headers={"Content-Type": answer.headers["content-type"]},
    )
    done.raise_for_status()


def baseline(images_at_once: int) -> Callable[[str, str, list[str]], None]:
    """Copies with this many images at a time, five layers of each."""

    def copy(source: str, target: str, names: list[str]) -> None:
        limits = httpx.Limits(max_connections=None)
        with (
            httpx.Client(timeout=60, limits=limits) as client,
            ThreadPoolExecutor(images_at_once) as pool,
        ):
            list(pool.map(lambda name: copy_image(client, source, target, name, 5), names))

    return copy


def ours(source: str, target: str, names: list[str]) -> None:
    """``conforma mirror``, in this process, with as many transfers as 4 x 5."""
    from conforma.cli.root import run

    components = [{"name": name, "containerImage": f"{source}/{name}:v1"} for name in names]
    with contextlib.redirect_stdout(io.StringIO()):
        status = run(
            ["mirror", f"--images={json.dumps({'components': components})}", f"--to={target}",
             "--progress=none", "--parallel=20"]
        )  # fmt: skip
    assert status == 0


@contextmanager
def measured(
    directory: Path, options: Options
) -> Iterator[Callable[[Callable[[str, str, list[str]], None], list[str]], Seen]]:
    """A function that measures one way of copying, with fresh registries each time."""
    number = 0

    def measure(copy: Callable[[str, str, list[str]], None], names: list[str]) -> Seen:
        nonlocal number
        number += 1
        source = Served(SERVER, str(directory / "source"), str(options.latency / 1000))
        target = Served(SERVER, str(directory / f"target-{number}"), str(options.latency / 1000))
        try:
            started = time.perf_counter()
            copy(source.host, target.host, names)
            seconds = time.perf_counter() - started
            read, written = source.asked(), target.asked()
        finally:
            source.close()
            target.close()
        reads = read["read"]
        assert isinstance(reads, list)
        counts = {key: int(str(value)) for key, value in written.items() if key != "read"}
        return Seen(
            seconds, sum(reads), max(reads), counts["written"], counts["conflicts"],
            int(str(read["bytes"])),
        )  # fmt: skip

    yield measure


def main(arguments: list[str]) -> None:
    """Print the table."""
    options = Options.parse(arguments)
    ways = {"sequential": baseline(1), "image-parallel": baseline(4), "ours": ours}
    taken: dict[str, list[Seen]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory(prefix="conforma-mirror-") as name:
        directory = Path(name)
        names, unique, unique_bytes = make(directory / "source", options)
        with measured(directory, options) as measure:
            measure(ours, names[:1])  # imports
            for _ in range(options.rounds):
                for way, copy in ways.items():
                    taken[way].append(measure(copy, names))
    wall = {way: statistics.median(seen.seconds for seen in all_) for way, all_ in taken.items()}
    last = {way: seen[-1] for way, seen in taken.items()}
    mine = last["ours"]
    table(
        f"{options.images} images, {unique} distinct blobs, {unique_bytes / 1e6:.0f} MB, "
        f"{options.latency} ms per request, medians of {options.rounds}",
        [
            ("blobs read : distinct blobs", f"{mine.read / unique:.2f}", "= 1.00"),
            ("reads of the blob read most", f"{mine.most_reads}", "= 1"),
            ("blobs written : distinct blobs", f"{mine.written / unique:.2f}", "= 1.00"),
            ("bytes read : distinct bytes", f"{mine.bytes / unique_bytes:.2f}", "= 1.00"),
            ("conflicts", f"{max(s.conflicts for s in taken['ours'])}", "= 0"),
            ("time : image-parallel", f"{wall['ours'] / wall['image-parallel']:.2f}", "<= 1.0"),
            ("sequential : ours", f"{wall['sequential'] / wall['ours']:.2f}", ">= 1.5"),
            *(
                (
                    way,
                    f"{wall[way]:.2f} s",
                    f"{seen.read} reads ({seen.bytes / 1e6:.0f} MB), {seen.written} writes, "
                    f"{seen.conflicts} conflicts",
                )
                for way, seen in last.items()
            ),
        ],
    )
