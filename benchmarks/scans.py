"""T8 to T11 and T20: looking into layers, against tarfile, bare isal and a naive pipeline.

T8 and T9 are about one layer of small text files in memory. T10 and T11 fetch
``layers`` mixed layers of ``size`` MiB from nginx; the naive pipeline does the
same work as scripts do it: it downloads each with httpx as it comes, hashes
the file, unpacks and hashes the tar, and lists that with ``tarfile``. One
worker of ours downloads, inflates and hashes in three threads, which leaves
two workers little to add; so T10 is also shown against one worker on one core,
and against what all stages cost one after another. T20 handles layers of
``small`` and ``large`` MiB, each in a fresh process. Arguments:
``entries=30000 layers=6 size=50 small=50 large=1000 rounds=3``; ``only=`` and
the number of a target runs that and what is measured along with it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import multiprocessing
import os
import shutil
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.layers import PIECE, taken, text_layer
from benchmarks.measure import child, mib, numbers, python, table
from benchmarks.release import make_layer
from benchmarks.transfer import serving
from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.cancellation import Cancellation
from conforma.oci import media_types
from conforma.oci.digest import DiffID, Digest
from conforma.oci.inflate import gzip_module, inflated
from conforma.oci.manifest import Descriptor
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry, RegistryOptions
from conforma.oci.tar import TarEntry, TarWalker
from conforma.serve.images import Layer

REPOSITORY = "bench"
PARTS = frozenset({0, 8, 9, 10, 11, 20})

# Stores a layer from a file, inflates it, indexes it; its peak is what is measured.
HANDLE = """
import sys
from contextlib import contextmanager
from pathlib import Path
from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.manifest import Descriptor
path, directory, digest = Path(sys.argv[1]), Path(sys.argv[2]), Digest.parse(sys.argv[3])
@contextmanager
def fetch(offset):
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        yield iter(lambda: file.read(1 << 18), b"")
with SafeCache.open(CacheOptions(directory)) as cache:
    descriptor = Descriptor(media_types.OCI_LAYER_GZIP, digest, path.stat().st_size)
    contents = cache.layer(descriptor, None, fetch).contents()
    assert len(contents.toc) > 0
"""


@dataclass(frozen=True, slots=True)
class Options:
    """See the module."""

    entries: int = 30_000
    layers: int = 6
    size: int = 50
    small: int = 50
    large: int = 1000
    rounds: int = 3
    only: int = 0

    @classmethod
    def parse(cls, arguments: list[str]) -> Options:
        """From ``name=number`` words."""
        return cls(**numbers(arguments))


def wanted(entries: int) -> set[str]:
    """Five files of :func:`benchmarks.layers.text_layer`."""
    return {f"usr/share/{n % 200}/{n}.txt" for n in range(7, entries, entries // 5)}


def ours(what: Layer, paths: set[str]) -> None:
    """Find files in one pass of our inflating and walking."""
    found: list[TarEntry] = []
    walker = TarWalker(lambda entry: found.append(entry) if entry.path in paths else None)
    for piece in inflated(blob_pieces(what), what.media_type):
        walker.feed(piece)
    assert len(found) == len(paths)


def by_tarfile(what: Layer, paths: set[str]) -> None:
    """The same with the standard library, streaming."""
    with tarfile.open(fileobj=io.BytesIO(what.blob), mode="r|gz") as archive:
        assert sum(member.name in paths for member in archive) == len(paths)


def blob_pieces(what: Layer) -> Iterator[bytes]:
    """The blob as a download hands it on."""
    return (what.blob[at : at + PIECE] for at in range(0, len(what.blob), PIECE))


def bare(what: Layer) -> None:
    """isal alone."""
    stream = gzip_module().decompressobj(31)
    for piece in blob_pieces(what):
        stream.decompress(piece)


def wrapped(what: Layer) -> None:
    """Our inflating, with its checks and limits."""
    for _ in inflated(blob_pieces(what), what.media_type):
        pass


def in_turn(cases: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median processor seconds of each; nothing here waits for anything else."""
    used: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            used[name].append(taken(case)[1])
    return {name: statistics.median(values) for name, values in used.items()}


def one_layer(options: Options) -> list[tuple[str, str, str]]:
    """T8 and T9."""
    what, paths = text_layer(options.entries), wanted(options.entries)
    cpu = in_turn(
        {
            "ours": lambda: ours(what, paths),
            "tarfile": lambda: by_tarfile(what, paths),
            "bare": lambda: bare(what),
            "wrapped": lambda: wrapped(what),
        },
        options.rounds,
    )
    return [
        (
            f"T8 5 of {options.entries} files : tarfile r|gz",
            f"{cpu['ours'] / cpu['tarfile']:.3f}",
            f"<= 0.2; tarfile {cpu['tarfile']:.2f} s",
        ),
        (
            "T8 bare isal : tarfile r|gz",
            f"{cpu['bare'] / cpu['tarfile']:.3f}",
            "this machine's limit: inflating, and no header read",
        ),
        (
            "T9 inflating : bare isal",
            f"{cpu['wrapped'] / cpu['bare']:.2f}",
            f"<= 1.1; isal {cpu['bare']:.2f} s",
        ),
    ]


Known = tuple[str, str, int]
"""Digest, DiffID and packed length of a layer."""


def store_layers(directory: Path, count: int, size: int, facts: Path) -> None:
    """Layers where nginx looks for them; runs in a process of its own, which can be large."""
    lines = []
    for number in range(count):
        made = make_layer(number, size)
        (directory / str(made.digest)).write_bytes(made.blob)
        lines.append(f"{made.digest} {made.diff_id} {len(made.blob)}\n")
    facts.write_text("".join(lines))


def pipeline(host: str, directory: Path, known: list[Known], workers: int) -> float:
    """Seconds to fetch, check, store, inflate and index all, by the cache."""
    with (
        Registry(RegistryOptions(environment={}), Cancellation()) as registry,
        SafeCache.open(CacheOptions(directory)) as cache,
        ThreadPoolExecutor(workers) as pool,
    ):

        def handle(one: Known) -> None:
            digest, diff_id, size = one
            descriptor = Descriptor(media_types.OCI_LAYER_GZIP, Digest.parse(digest), size)
            reference = Reference.parse(f"{host}/{REPOSITORY}@{digest}")

            @contextmanager
            def fetch(offset: int) -> Iterator[Iterator[bytes]]:
                with registry.open_blob(
                    reference, descriptor, offset=offset, verify=False
                ) as pieces:
                    yield pieces  # type: ignore[misc]

            cache.layer(descriptor, DiffID.parse(diff_id), fetch).contents()

        started = time.perf_counter()
        list(pool.map(handle, known))
        return time.perf_counter() - started


def naive(host: str, directory: Path, known: list[Known], workers: int) -> float:
    """The same as scripts do it: download to a file, hash it, list it."""
    import httpx

    directory.mkdir()
    with (
        httpx.Client(base_url=f"http://{host}") as client,
        ThreadPoolExecutor(workers) as pool,
    ):

        def handle(one: Known) -> None:
            digest, diff_id, _ = one
            path, plain = directory / digest, directory / f"{digest}.tar"
            with (
                client.stream("GET", f"/v2/{REPOSITORY}/blobs/{digest}") as answer,
                path.open("wb") as file,
            ):
                for piece in answer.iter_bytes():
                    file.write(piece)
            with path.open("rb") as file:
                assert f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}" == digest
            with gzip.open(path) as packed, plain.open("w+b") as tar:
                shutil.copyfileobj(packed, tar)
                tar.seek(0)
                assert f"sha256:{hashlib.file_digest(tar, 'sha256').hexdigest()}" == diff_id
            with tarfile.open(plain) as archive:
                assert sum(1 for _ in archive) > 0

        started = time.perf_counter()
        list(pool.map(handle, known))
        return time.perf_counter() - started


@contextmanager
def on_one_core() -> Iterator[None]:
    """Have the threads that are started in the block share a single core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def stages(directory: Path, known: list[Known]) -> float:
    """Processor seconds of hashing, inflating and hashing again, all layers, nothing else."""

    def work() -> None:
        for digest, diff_id, _ in known:
            packed, plain = hashlib.sha256(), hashlib.sha256()
            stream = gzip_module().decompressobj(31)
            with (directory / digest).open("rb", buffering=0) as file:
                while piece := file.read(PIECE):
                    packed.update(piece)
                    plain.update(stream.decompress(piece))
            assert f"sha256:{plain.hexdigest()}" == diff_id

    return taken(work)[1]


def several_layers(place: Path, options: Options) -> list[tuple[str, str, str]]:
    """T10 and T11."""
    facts, www = place / "layers", place / f"www/v2/{REPOSITORY}/blobs"
    www.mkdir(parents=True)
    apart(store_layers, www, options.layers, options.size, facts)
    known = [
        (digest, diff_id, int(size))
        for digest, diff_id, size in (line.split() for line in facts.read_text().splitlines())
    ]
    names = ("one", "core", "two", "used", "naive", "stages")
    walls: dict[str, list[float]] = {name: [] for name in names}
    with serving(place) as servers:
        host = f"127.0.0.1:{servers.plain}"
        for turn in range(options.rounds):
            where = place / f"turn-{turn}"
            where.mkdir()
            walls["stages"].append(stages(www, known))
            walls["one"].append(pipeline(host, where / "one", known, 1))
            shutil.rmtree(where / "one")  # the next would pay for its write-back
            with on_one_core():
                walls["core"].append(pipeline(host, where / "core", known, 1))
            shutil.rmtree(where / "core")

            def two(at: Path = where / "two") -> None:
                walls["two"].append(pipeline(host, at, known, 2))

            walls["used"].append(taken(two)[1])
            shutil.rmtree(where / "two")
            walls["naive"].append(naive(host, where / "naive", known, 2))
            shutil.rmtree(where)
    wall = {name: statistics.median(values) for name, values in walls.items()}
    packed = sum(size for _, _, size in known)
    return [
        (
            f"T10 {options.layers} layers, {mib(packed)}: 2 workers : 1",
            f"{wall['two'] / wall['one']:.2f}",
            f"<= 0.65; {wall['two']:.2f} and {wall['one']:.2f} s",
        ),
        (
            "T10 CPU of 2 workers on all cores : 1 worker",
            f"{wall['used'] / (os.cpu_count() or 1) / wall['one']:.2f}",
            "this machine's limit: a worker has more than one thread",
        ),
        (
            "T10 2 workers : 1 worker on one core",
            f"{wall['two'] / wall['core']:.2f}",
            f"<= 0.65; {wall['core']:.2f} s",
        ),
        (
            "T10 2 workers : hash + inflate + hash in one thread",
            f"{wall['two'] / wall['stages']:.2f}",
            f"<= 0.65; {wall['stages']:.2f} s of processor",
        ),
        (
            "T11 ours : httpx, gzip, tarfile, 2 threads each",
            f"{wall['two'] / wall['naive']:.2f}",
            f"<= 0.45; naive {wall['naive']:.2f} s",
        ),
    ]


def random_layer(path: Path, size: int, digest: Path) -> None:
    """A layer of files of 1 MiB, written as it is made."""
    from isal import igzip

    with (
        igzip.open(path, "wb", compresslevel=0) as packed,
        tarfile.open(fileobj=packed, mode="w|") as archive,
    ):
        for number in range(size):
            member = tarfile.TarInfo(f"usr/lib/{number}")
            member.size = 1 << 20
            archive.addfile(member, io.BytesIO(os.urandom(1 << 20)))
    with path.open("rb") as file:
        digest.write_text(f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}")


def memory(place: Path, options: Options) -> list[tuple[str, str, str]]:
    """T20."""
    peaks = {}
    for size in (options.small, options.large):
        path, digest = place / f"layer-{size}", place / f"digest-{size}"
        apart(random_layer, path, size, digest)
        words = [*python(HANDLE), str(path), str(place / f"c-{size}"), digest.read_text()]
        run = child(words)
        assert run.status == 0
        peaks[size] = run.peak
    return [
        (
            f"T20 peak memory, layer of {options.large} MiB : {options.small} MiB",
            f"{peaks[options.large] / peaks[options.small]:.2f}",
            f"<= 1.2; {mib(peaks[options.large])}",
        )
    ]


def apart(work: Callable[..., None], *arguments: object) -> None:
    """Run in a process of its own: what ``wait4`` calls a child's peak begins with our memory."""
    maker = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    maker.start()
    maker.join()
    assert maker.exitcode == 0


def main(arguments: list[str]) -> None:
    """Print the table."""
    options = Options.parse(arguments)
    if options.only not in PARTS:
        raise SystemExit(
            f"only={options.only} is not measured here: {sorted(PARTS)} are, 0 for all"
        )
    rows: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory(prefix="conforma-scans-") as name:
        place = Path(name)
        place.chmod(0o755)  # nginx gives up its rights
        if options.only in (0, 20):  # first, while this process is small
            rows += memory(place, options)
        if options.only in (0, 8, 9):
            rows += one_layer(options)
        if options.only in (0, 10, 11):
            rows += several_layers(place, options)
    table(f"looking into layers, medians of {options.rounds}", rows)
