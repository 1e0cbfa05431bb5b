"""What the cache costs, what it says about itself, and whose directory it is."""

import gc
import json
import os
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from conforma.cache.disk import AREAS
from conforma.cache.filters import TreeFilter
from conforma.cache.images import ImageReader
from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.cancellation import Cancellation
from conforma.errors import RegistryUnreachable
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.manifest import Descriptor
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry, RegistryOptions
from conforma.serve.images import Member, image_of, layer_of
from conforma.serve.registry import RegistryServer
from tests.cache.upstream import Upstream, sample, together

GIB = 1 << 30
ROOT = Path(__file__).parents[2]


@pytest.fixture
def cache(tmp_path: Path) -> SafeCache:
    return SafeCache.open(CacheOptions(tmp_path / "c"))


def bytes_read() -> int:
    """What this process has read with system calls so far."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["rchar"])


def test_lc_37_a_hit_reads_nothing_of_a_large_blob(cache: SafeCache, tmp_path: Path) -> None:
    digest = Digest.of(b"a name for a gibibyte of zeros")
    place = tmp_path / "c/v1/blobs/sha256" / digest.hex[:2] / digest.hex
    place.parent.mkdir(parents=True)
    with place.open("wb") as file:
        file.truncate(GIB)
    layer = cache.layer(
        Descriptor(media_types.OCI_LAYER, digest, GIB), None, Upstream(sample()).fetch
    )
    before = bytes_read()
    with layer.compressed() as source:
        assert bytes_read() - before < 10_000
        source.seek(-1, os.SEEK_END)
        assert source.read() == b"\0"
    assert cache.stats.hits == 1


def test_lc_38_descriptors_are_bounded_by_readers(cache: SafeCache) -> None:
    upstreams = [Upstream(sample(n, 5_000)) for n in range(40)]

    def read(number: int) -> bool:
        what = upstreams[number].sample
        layer = cache.layer(what.descriptor, what.diff_id, upstreams[number].fetch)
        with layer.stream() as source:
            return source.read() == what.blob and layer.uncompressed().read() == what.plain

    assert read(0)
    cache.close()
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert together(40, read).results == [True] * 40
    cache.close()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2


@pytest.mark.parametrize("view", ["compressed", "uncompressed", "stream", "contents"])
@pytest.mark.parametrize("size", [100_000, 3_000_000])
def test_lc_38_what_failed_holds_no_file_for_those_who_keep_the_error(
    cache: SafeCache, view: str, size: int
) -> None:
    """Found by the explorer: an evictor met files that only the collector could have closed."""
    upstream = Upstream(sample(size=size))
    what = upstream.sample
    upstream.fail_at[len(what.blob) // 2] = lambda: RegistryUnreachable("registry.test/app: gone")
    layer = cache.layer(what.descriptor, what.diff_id, upstream.fetch)

    def read() -> bool:
        opened = getattr(layer, view)()
        if view == "stream":
            with opened:
                opened.read()
        return True

    gc.disable()
    try:
        with pytest.raises(RegistryUnreachable) as caught:
            read()
        cache.close()  # nothing runs any more
        held = [fd for fd in Path("/proc/self/fd").iterdir() if is_below(fd, cache)]
    finally:
        gc.enable()
    assert caught.value.__traceback__ is not None
    assert held == []


def is_below(descriptor: Path, cache: SafeCache) -> bool:
    """Whether an open descriptor is one of a blob or a tar in the cache's directory."""
    try:
        target = str(descriptor.readlink())
    except OSError:
        return False
    return any(target.startswith(f"{cache.store.root}/{area}/") for area in AREAS)


def test_lc_38_memory_does_not_grow_with_the_blob(cache: SafeCache) -> None:
    upstream = Upstream(sample(size=40_000_000))
    what = upstream.sample
    layer = cache.layer(what.descriptor, what.diff_id, upstream.fetch)
    tracemalloc.start()
    try:
        layer.uncompressed().close()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    options = RegistryOptions(environment={"HOME": str(tmp_path), "PATH": ""})
    with Registry(options, Cancellation()) as made:
        yield made


def test_lc_39_the_counters_agree_with_the_log_of_the_registry(
    cache: SafeCache, registry: Registry
) -> None:
    shared = [layer_of([Member(f"etc/{n}", os.urandom(50_000))]) for n in range(4)]
    with RegistryServer() as server:
        references = [
            Reference.parse(f"{server.host}/app@{made.put(server.store, 'app')}")
            for made in (image_of(shared, labels={"n": str(n)}) for n in range(6))
        ]
        reader = ImageReader(registry, cache)
        together(6, lambda n: list(reader.tree(references[n], TreeFilter())))
        downloads = server.log.settled().matching("GET", r"/blobs/")
        cold = cache.stats
        assert cold.transfers == len(downloads) == 4 + 6  # layers and configurations
        assert cold.network_bytes == sum(request.bytes for request in downloads)
        assert cold.leaders == cold.transfers
        again = list(reader.tree(references[0], TreeFilter()))
        assert len(server.log.settled().matching("GET", r"/blobs/")) == len(downloads)
    cache.close()
    warm = cache.stats
    assert len(again) >= 4
    assert warm.hits - cold.hits == 4  # the layers; the reader has the configuration
    assert warm.requests == warm.hits + warm.leaders + warm.coalesced + warm.pass_through


# Run by somebody else: reads a layer that is there, and one that is not.
STRANGER = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from tests.cache.upstream import Upstream, sample
def read(directory, name):
    with SafeCache.open(CacheOptions(directory)) as cache:
        upstream = Upstream(sample(name))
        what = upstream.sample
        layer = cache.layer(what.descriptor, what.diff_id, upstream.fetch)
        right = [layer.compressed().read() == what.blob, layer.uncompressed().read() == what.plain]
    return [*right, upstream.requests, cache.stats.hits, cache.stats.pass_through, cache.stats.mode]
# Once while we may still import whatever is imported late.
read(Path(sys.argv[3]), "rehearsal")
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(json.dumps([read(Path(sys.argv[2]), name) for name in ("there", "missing")]))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.slow
def test_lc_23_a_directory_of_somebody_else_serves_hits_and_is_left_alone() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        directory = Path(name, "c")
        upstream = Upstream(sample("there"))
        what = upstream.sample
        with SafeCache.open(CacheOptions(directory)) as mine:
            layer = mine.layer(what.descriptor, what.diff_id, upstream.fetch)
            layer.uncompressed().close()
        for path in (Path(name), directory, *directory.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        before = state(directory)
        done = subprocess.run(
            [sys.executable, "-c", STRANGER, str(ROOT), str(directory), str(Path(name, "d"))],
            capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        there, missing = json.loads(done.stdout)
        assert there == [True, True, 0, 2, 0, "read-only"]
        assert missing == [True, True, 2, 0, 2, "read-only"]
        assert state(directory) == before


# Run by somebody else: what is said about a directory.
REFUSED = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.errors import CacheUnusable
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    SafeCache.open(CacheOptions(Path(sys.argv[2])))
except CacheUnusable as error:
    print(error.message)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("closed", [".", "v1"])
def test_lc_23_a_directory_of_somebody_else_that_is_closed_to_us_is_no_cache(closed: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        directory = Path(name, "c")
        SafeCache.open(CacheOptions(directory)).close()
        directory.chmod(0o755)
        (directory / closed).chmod(0o700)
        done = subprocess.run(
            [sys.executable, "-c", REFUSED, str(ROOT), str(directory)],
            capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
        )  # fmt: skip
        assert done.stderr == ""
        assert done.stdout.startswith(f"cannot use {directory} as a cache: ")


def state(directory: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in sorted(directory.rglob("*"))
    }


def test_lc_25_a_name_that_comes_late_and_a_stale_handle_are_misses(tmp_path: Path) -> None:
    import errno

    hidden = True

    def before(name: str, path: Path) -> None:
        if name == "open" and hidden and "blobs" in str(path):
            raise OSError(errno.ESTALE, "stale")

    upstream = Upstream(sample())
    what = upstream.sample
    SafeCache.open(CacheOptions(tmp_path / "c")).put(what.descriptor, upstream.fetch)
    with SafeCache.open(CacheOptions(tmp_path / "c"), before_step=before) as cache:
        layer = cache.layer(what.descriptor, what.diff_id, upstream.fetch)
        assert layer.compressed().read() == what.blob
        hidden = False
        assert layer.compressed().read() == what.blob
        assert (cache.stats.transfers, cache.stats.hits) == (1, 1)
