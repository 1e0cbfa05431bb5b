"""LC-5 where nothing but the content tells: what rotted is found out, whatever the policy is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conforma.cache.disk import Area, Key
from conforma.cache.layers import SafeLayer
from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.errors import BadArchive
from conforma.oci import media_types
from tests.cache.upstream import Sample, Upstream, sample
from tests.races.layers import FILE, LAYERS


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[SafeCache]:
    with SafeCache.open(CacheOptions(tmp_path / "cache")) as made:
        yield made


def layer_of(cache: SafeCache, upstream: Upstream) -> SafeLayer:
    what = upstream.sample
    return cache.layer(what.descriptor, what.diff_id, upstream.fetch)


def read(cache: SafeCache, upstream: Upstream, view: str = "compressed") -> bytes:
    with getattr(layer_of(cache, upstream), view)() as source:
        return bytes(source.read())


def flip(path: Path, at: float) -> None:
    """Change one bit of a file, so far into it."""
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("compressed", [True, False])
def test_lc_05_a_blob_that_does_not_unpack_is_hashed_before_the_layer_is_blamed(
    cache: SafeCache, compressed: bool, at: float
) -> None:
    """Found by the explorer: a rotten blob was told to be a broken layer, in every run."""
    what = sample()
    if not compressed:
        what = Sample(what.plain, what.plain, media_types.OCI_LAYER)
    upstream = Upstream(what)
    assert read(cache, upstream) == what.blob
    flip(cache.store.path(Key.of("blobs", what.descriptor.digest)), at)
    assert read(cache, upstream, "uncompressed") == what.plain
    assert read(cache, upstream) == what.blob
    assert cache.stats.quarantines == 1
    assert upstream.requests == 2


def test_lc_05_a_layer_that_really_is_broken_is_fetched_once(cache: SafeCache) -> None:
    upstream = Upstream(Sample(b"", b"\x1f\x8b" + bytes(100_000)))
    for _ in range(2):
        with pytest.raises(BadArchive):
            read(cache, upstream, "uncompressed")
    assert upstream.requests == 1
    assert cache.stats.quarantines == 0


def test_lc_05_no_proof_is_made_from_a_rotten_blob(tmp_path: Path) -> None:
    """Nobody claims a DiffID, and a tar that is stored as it is has no checksum of its own."""
    plain = sample().plain
    upstream = Upstream(Sample(plain, plain, media_types.OCI_LAYER))
    descriptor = upstream.sample.descriptor
    with SafeCache.open(CacheOptions(tmp_path / "cache")) as cache:
        read(cache, upstream)
        flip(cache.store.path(Key.of("blobs", descriptor.digest)), 0.5)
        with cache.layer(descriptor, None, upstream.fetch).uncompressed() as source:
            assert source.read() == plain
        assert cache.stats.quarantines == 1


@pytest.mark.parametrize("view", ["compressed", "stream"])
def test_lc_05_what_is_small_is_hashed_whatever_the_policy(cache: SafeCache, view: str) -> None:
    """The configuration of an image is judged as it is, so a bit that flipped in it would be, too."""
    upstream = Upstream(sample(size=10_000))
    assert read(cache, upstream) == upstream.content
    flip(cache.store.path(Key.of("blobs", upstream.sample.descriptor.digest)), 0.5)
    with SafeCache.open(cache.options) as later:
        assert read(later, upstream, view) == upstream.content
        assert later.stats.quarantines == 1


def test_lc_05_a_file_that_somebody_replaced_meanwhile_is_not_held_to_be_bad(
    cache: SafeCache,
) -> None:
    """File systems give the number of a removed file to the next one."""
    upstream = Upstream(sample())
    read(cache, upstream)
    key = Key.of("blobs", upstream.sample.descriptor.digest)
    path = cache.store.path(key)
    removed = path.with_name("removed")
    handle = cache.store.open(key, None)
    assert handle is not None
    path.rename(removed)
    path.write_bytes(upstream.content)
    cache.store.quarantine(key, handle)
    removed.rename(path)
    assert cache.store.open(key, len(upstream.content)) is not None
    assert not (cache.store.root / "quarantine").exists()


def test_lc_05_no_table_is_made_of_a_rotten_tar(tmp_path: Path) -> None:
    what = LAYERS[1]
    upstream = Upstream(Sample(what.plain, what.blob))
    for damaged in (False, True):
        with SafeCache.open(CacheOptions(tmp_path / "cache")) as cache:
            if damaged:
                cache.store.path(Key.of("tocs", what.diff_id)).unlink()
                path = cache.store.path(Key.of("layers", what.diff_id))
                path.write_bytes(path.read_bytes().replace(what.file, bytes(len(what.file))))
            contents = layer_of(cache, upstream).contents()
            row = contents.toc.row(contents.toc.find(FILE.replace("/", "\0").encode()))
            assert contents.read(row, FILE, 1 << 20) == what.file
            assert cache.stats.quarantines == damaged
    assert upstream.requests == 1


@pytest.mark.parametrize("area", ["blobs", "layers", "tocs", "links"])
def test_lc_05_a_directory_under_a_final_name_gives_way_to_the_entry(
    tmp_path: Path, area: Area
) -> None:
    """The tar of one that was under ``layers`` was made anew for everybody who asked."""
    what = LAYERS[1]
    digest = what.layer.digest if area in ("blobs", "links") else what.diff_id
    upstream = Upstream(Sample(what.plain, what.blob))
    options = CacheOptions(tmp_path / "c", max_bytes=0, grace=0.0)
    with SafeCache.open(options) as cache:
        planted = cache.store.path(Key.of(area, digest))
        planted.mkdir(parents=True)
        layer = cache.layer(what.descriptor, what.diff_id, upstream.fetch)
        assert layer.contents().toc.keys
        layer.compressed().close()  # verified content is read before it has its name
        assert planted.is_file()
        assert cache.stats.pass_through == 0
    with SafeCache.open(options) as cache:
        assert cache.usage().quarantined == 1
        cache.collect()
        assert cache.usage().quarantined == 0
