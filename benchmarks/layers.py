"""E3 and T7, the layer cache by itself: a hit, a cold layer, a few files of a warm layer, many followers.

Baselines, in the same run: isal inflate with two SHA-256 in one loop (what any pass over a layer
costs), each stage by itself, inflating a layer again for each question, one lone download, and
so many readers of a file that is there. Arguments:
``entries=30000 rounds=5 readers=64``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from benchmarks.measure import table
from conforma.cache.derive import current_boot
from conforma.cache.layers import SafeLayer
from conforma.cache.link import Link
from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.cache.tables import TableMaker
from conforma.oci import media_types
from conforma.oci.digest import DiffID, Digest
from conforma.oci.inflate import gzip_module, inflated
from conforma.oci.layer import pieces_of
from conforma.oci.manifest import Descriptor
from conforma.oci.tar import TarWalker
from conforma.oci.tar_entry import TarEntry
from conforma.serve.images import Layer, Member, layer_of

PIECE = 64 * 1024
GIB = 1 << 30
MIB = 1 << 20
HITS = 500
SMALL = 24_000  # bytes: some 7 kB on average, as in a distribution's packages


def text_layer(entries: int) -> Layer:
    """A layer of so many small files of text: the interpreter's own library, again and again."""
    library = Path(sysconfig.get_paths()["stdlib"])
    texts = [
        content
        for path in sorted(library.rglob("*.py"))
        if "site-packages" not in path.parts and len(content := path.read_bytes()) < SMALL
    ]
    members = [
        Member(f"usr/share/{n % 200}/{n}.txt", texts[n % len(texts)]) for n in range(entries)
    ]
    return layer_of(members, level=6)


def layer_in(cache: SafeCache, what: Layer, pace: float = 0.0) -> SafeLayer:
    """The layer, fetched from memory, as from a line that brings a MiB every ``pace`` seconds."""

    @contextmanager
    def fetch(offset: int) -> Iterator[Iterator[bytes]]:
        yield pieces(offset)

    def pieces(offset: int) -> Iterator[bytes]:
        started = time.perf_counter()
        for at in range(offset, len(what.blob), PIECE):
            if pace and at % MIB == 0:
                due = started + pace * (at - offset) / MIB
                time.sleep(max(0.0, due - time.perf_counter()))
            yield what.blob[at : at + PIECE]

    return cache.layer(what.descriptor, what.diff_id, fetch)


def taken(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def one_loop(what: Layer) -> None:
    """Inflate and hash both sides: the least that a checked pass can cost."""
    packed, plain = hashlib.sha256(), hashlib.sha256()
    stream = gzip_module().decompressobj(31)
    for at in range(0, len(what.blob), PIECE):
        piece = what.blob[at : at + PIECE]
        packed.update(piece)
        plain.update(stream.decompress(piece))


def stages(what: Layer, directory: Path) -> dict[str, float]:
    """Wall seconds of each stage of a cold layer by itself, all input in memory."""
    plain = b"".join(inflated([what.blob], what.descriptor.media_type))
    pieces = [plain[at : at + MIB] for at in range(0, len(plain), MIB)]

    def inflate() -> None:
        for _ in inflated([what.blob], what.descriptor.media_type):
            pass

    def write() -> None:
        with (directory / "written").open("wb", buffering=0) as file:
            for piece in (what.blob, *pieces):
                file.write(piece)

    def index() -> None:
        maker = TableMaker("layer")
        for piece in pieces:
            maker.feed(piece)
        assert maker.table() is not None

    def verify() -> None:
        packed, unpacked = hashlib.sha256(what.blob), hashlib.sha256()
        for piece in pieces:
            unpacked.update(piece)
        assert packed.hexdigest() == what.descriptor.digest.hex
        assert unpacked.hexdigest() == what.diff_id.hex

    return {
        work.__name__: statistics.median(taken(work)[0] for _ in range(3))
        for work in (inflate, verify, write, index)
    }


def again(layer: SafeLayer, wanted: set[str]) -> None:
    """Find files by inflating and walking the whole layer."""
    found: list[TarEntry] = []
    walker = TarWalker(lambda entry: found.append(entry) if entry.path in wanted else None)
    with layer.compressed() as source:
        for piece in inflated(pieces_of(source), layer.media_type):
            walker.feed(piece)
    assert len(found) == len(wanted)


def by_table(layer: SafeLayer, wanted: set[str]) -> None:
    """The same by the table of contents."""
    contents = layer.contents()
    for path in wanted:
        row = contents.toc.row(contents.toc.find(path.replace("/", "\0").encode()))
        assert contents.read(row, path, MIB)


def followers(layer: SafeLayer, count: int) -> None:
    """Take the layer's blocks as they come, in so many threads, as our own consumers do."""

    def drain() -> None:
        with layer.stream() as source:
            for _ in source.blocks():
                pass

    at_once(drain, count)


def copiers(layer: SafeLayer, count: int) -> None:
    """Read the layer's stream in so many threads, each into memory of its own."""

    def drain() -> None:
        with layer.stream() as source:
            while source.read(MIB):
                pass

    at_once(drain, count)


def readers_of(path: Path, count: int) -> None:
    """Read a file that is there in so many threads, with nothing between them and the kernel."""

    def drain() -> None:
        with path.open("rb", buffering=0) as source:
            while source.read(MIB):
                pass

    at_once(drain, count)


def at_once(work: Callable[[], None], count: int) -> None:
    """Do it in so many threads."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def hit(directory: Path) -> tuple[float, float, int]:
    """Seconds to open 1 GiB that is there, packed and plain; index writes by all the openings."""
    digest = Digest.of(b"zeros")
    place = directory / "v1/blobs/sha256" / digest.hex[:2] / digest.hex
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("wb") as file:
        file.truncate(GIB)
    packed = Digest.of(b"packed zeros")
    link = directory / "v1/links/sha256" / packed.hex[:2] / packed.hex
    for source, target in ((place, directory / "v1/layers"), (place, directory / "v1/blobs")):
        name = digest.hex if target.name == "layers" else packed.hex
        copy = target / "sha256" / name[:2] / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.hardlink_to(source)
    link.parent.mkdir(parents=True, exist_ok=True)
    plain = DiffID(digest.algorithm, digest.hex)
    link.write_bytes(Link(plain, GIB, current_boot()).as_bytes(packed))
    with SafeCache.open(CacheOptions(directory)) as cache:
        one = cache.layer(Descriptor(media_types.OCI_LAYER, digest, GIB), None, _nothing)
        two = cache.layer(Descriptor(media_types.OCI_LAYER_GZIP, packed, GIB), plain, _nothing)

        def opened(view: Callable[[], BinaryIO]) -> float:
            return statistics.median(taken(lambda: view().close())[0] for _ in range(HITS))

        times = opened(one.compressed), opened(two.uncompressed)
    return *times, cache._index.writes


def _nothing(_offset: int) -> object:
    raise AssertionError("a hit fetches nothing")


def main(arguments: list[str]) -> None:
    """Print the table."""
    given = {k: int(v) for k, _, v in (a.partition("=") for a in arguments)}
    rounds, readers = given.get("rounds", 5), given.get("readers", 64)
    what = text_layer(given.get("entries", 30_000))
    wanted = {f"usr/share/{n % 200}/{n}.txt" for n in (7, 1234, 2000, 2500, 2999)}
    loops, colds, warms, inflations, plain = [], [], [], [], []
    alone: list[tuple[float, float]] = []
    many: list[tuple[float, float]] = []
    copier: list[tuple[float, float]] = []
    copying: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="conforma-benchmark-") as name:
        opened, opened_plain, writes = hit(Path(name, "hit"))
        single = stages(what, Path(name))
        finished = Path(name, "blob")
        finished.write_bytes(what.blob)
        for turn in range(rounds):
            loops.append(taken(lambda: one_loop(what)))
            with SafeCache.open(CacheOptions(Path(name, f"{turn}"))) as cache:
                layer = layer_in(cache, what)
                colds.append(taken(layer.contents))
                by_table(layer, wanted)
                warms.append(taken(lambda layer=layer: by_table(layer, wanted)))  # type: ignore[misc]
                inflations.append(taken(lambda layer=layer: again(layer, wanted)))  # type: ignore[misc]
            shutil.rmtree(Path(name, f"{turn}"))  # later rounds would pay for its write-back
            plain.append(taken(lambda: readers_of(finished, readers)))
            for number, (found, count, reading) in enumerate(
                (
                    (alone, 1, followers),
                    (many, readers, followers),
                    (copier, 1, copiers),
                    (copying, readers, copiers),
                )
            ):
                with SafeCache.open(CacheOptions(Path(name, f"{turn}-{number}"))) as cache:
                    layer = layer_in(cache, what, pace=0.05)
                    found.append(taken(lambda of=layer, n=count, read=reading: read(of, n)))  # type: ignore[misc]
                shutil.rmtree(Path(name, f"{turn}-{number}"))

    def median(values: list[tuple[float, float]], which: int) -> float:
        return statistics.median(value[which] for value in values)

    table(
        f"{len(what.blob) / 2**20:.0f} MiB packed, {given.get('entries', 30_000)} entries",
        [
            ("E3 open 1 GiB that is there", f"{opened * 1000:.2f} ms", "< 5 ms"),
            ("E3 the same of a packed layer, plain", f"{opened_plain * 1000:.2f} ms", "< 5 ms"),
            (f"index writes for {2 * HITS} openings", f"{writes}", "<= 1 per entry and minute"),
            (
                "T7 cold layer : one loop, CPU",
                f"{median(colds, 1) / median(loops, 1):.2f}",
                "<= 1.8",
            ),
            (
                "cold layer : one loop, wall",
                f"{median(colds, 0) / median(loops, 0):.2f}",
                "orientation",
            ),
            (
                "cold layer : slowest single stage, wall",
                f"{median(colds, 0) / max(single.values()):.2f}",
                "<= 1.25 with cores enough",
            ),
            (
                "all stages on all cores : slowest single stage",
                f"{max(1, sum(single.values()) / (os.cpu_count() or 1) / max(single.values())):.2f}",
                "this machine's limit",
            ),
            (
                "its CPU on all cores : slowest single stage",
                f"{median(colds, 1) / (os.cpu_count() or 1) / max(single.values()):.2f}",
                "the limit for what it costs us",
            ),
            *(
                (f"  {name} alone", f"{seconds * 1000:.0f} ms", "a single stage")
                for name, seconds in single.items()
            ),
            ("5 files, warm", f"{median(warms, 0) * 1000:.2f} ms", "< 5 ms"),
            (
                "inflating again : 5 files, warm",
                f"{median(inflations, 0) / median(warms, 0):.0f}",
                ">= 50",
            ),
            (
                f"{readers} followers : lone download, wall",
                f"{median(many, 0) / median(alone, 0):.2f}",
                "<= 1.1",
            ),
            (
                f"{readers} followers : lone download, CPU",
                f"{median(many, 1) / median(alone, 1):.2f}",
                "<= 1.5",
            ),
            (
                f"{readers} that read() copies : a lone one, wall",
                f"{median(copying, 0) / median(copier, 0):.2f}",
                "<= 1.1",
            ),
            (
                f"{readers} that read() copies : a lone one, CPU",
                f"{median(copying, 1) / median(copier, 1):.2f}",
                "no less than the next line",
            ),
            (
                f"{readers} plain readers of the file : lone download, CPU",
                f"{median(plain, 1) / median(alone, 1):.2f}",
                "the kernel's copying alone",
            ),
        ],
    )
