"""LC-1 to LC-16 of the cache's contract, within one process."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from conforma.cache.disk import AREAS, PART, Key
from conforma.cache.layers import SafeLayer
from conforma.cache.options import CacheOptions, Verify
from conforma.cache.safe_cache import SafeCache
from conforma.cancellation import Cancellation
from conforma.errors import (
    AccessDenied,
    BadArchive,
    BadDigest,
    CacheError,
    ConformaError,
    DigestMismatch,
    Interrupted,
    NotFound,
    RegistryUnreachable,
    SizeMismatch,
)
from conforma.oci import media_types
from conforma.oci.digest import DiffID, Digest
from conforma.oci.manifest import Descriptor
from tests.cache.candidates import flights
from tests.cache.upstream import PATIENCE, Gate, Sample, Upstream, sample, together
from tests.oci.scenery import until

VIEWS = ("compressed", "uncompressed")


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[SafeCache]:
    with SafeCache.open(CacheOptions(tmp_path / "cache")) as made:
        yield made


def layer_of(cache: SafeCache, upstream: Upstream, **changes: object) -> SafeLayer:
    what = upstream.sample
    return cache.layer(what.descriptor, what.diff_id, upstream.fetch, **changes)  # type: ignore[arg-type]


def read(cache: SafeCache, upstream: Upstream, view: str = "compressed") -> bytes:
    with getattr(layer_of(cache, upstream), view)() as source:
        return bytes(source.read())


def wanted(what: Sample, view: str) -> bytes:
    return what.blob if view == "compressed" else what.plain


def entries(cache: SafeCache) -> list[str]:
    """Files under final names, relative to the cache."""
    return sorted(
        str(path.relative_to(cache.store.root))
        for area in AREAS
        for path in (cache.store.root / area).glob("*/*/*")
        if not path.name.endswith(PART)
    )


def leftovers(cache: SafeCache) -> list[Path]:
    return sorted(cache.store.root.rglob(f"*{PART}"))


def adds_up(cache: SafeCache) -> bool:
    s = cache.stats
    return s.requests == s.hits + s.leaders + s.coalesced + s.pass_through


BAD_DIGESTS = [
    ("sha256", "../../../../etc/passwd"),
    ("sha256", "a" * 63),
    ("sha256", "A" * 64),
    ("sha256", "a" * 63 + "\0"),
    ("sha256", "a" * 63 + "/"),
    ("../sha256", "a" * 64),
    ("md5", "a" * 32),
    ("", ""),
]


@pytest.mark.parametrize(("algorithm", "text"), BAD_DIGESTS)
def test_lc_01_a_malformed_digest_is_refused_before_the_disk_is_touched(
    cache: SafeCache, algorithm: str, text: str
) -> None:
    bad = Digest(algorithm, text)
    before = sorted(cache.store.root.rglob("*"))
    upstream = Upstream(sample())
    with pytest.raises(BadDigest):
        cache.layer(Descriptor("x", bad, 1), None, upstream.fetch)
    with pytest.raises(BadDigest):
        cache.layer(upstream.sample.descriptor, DiffID(algorithm, text), upstream.fetch)
    with pytest.raises(BadDigest):
        cache.get(bad)
    assert sorted(cache.store.root.rglob("*")) == before
    assert upstream.requests == 0


def test_lc_01_other_known_algorithms_work(cache: SafeCache) -> None:
    what = sample()
    descriptor = Descriptor(what.media_type, Digest.of(what.blob, "sha512"), len(what.blob))
    upstream = Upstream(what)
    layer = cache.layer(descriptor, DiffID.of(what.plain, "sha512"), upstream.fetch)
    assert layer.compressed().read() == what.blob
    assert layer.uncompressed().read() == what.plain
    assert any(name.startswith("blobs/sha512/") for name in entries(cache))


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_lc_02_a_final_name_appears_only_when_the_content_is_complete(
    cache: SafeCache, part: float
) -> None:
    upstream = Upstream(sample())
    gate = upstream.hold[int(len(upstream.content) * part)] = Gate()
    reader = together(1, lambda _: read(cache, upstream), wait=False)
    gate.wait_reached()
    assert entries(cache) == []
    assert cache.get(upstream.sample.descriptor.digest) is None
    gate.open()
    assert reader.join().results == [upstream.content]
    digest = upstream.sample.descriptor.digest
    assert entries(cache) == [f"blobs/sha256/{digest.hex[:2]}/{digest.hex}"]
    assert leftovers(cache) == []


def test_lc_02_the_last_byte_alone_publishes_nothing(cache: SafeCache) -> None:
    upstream = Upstream(sample())
    # All bytes are there, but the source has not said that it is done.
    gate = upstream.hold[len(upstream.content)] = Gate()
    reader = together(1, lambda _: read(cache, upstream), wait=False)
    gate.wait_reached()
    assert entries(cache) == []
    gate.open()
    assert reader.join().results == [upstream.content]


WRONG = {
    "short": (lambda b: b[:-1], SizeMismatch),
    "empty": (lambda b: b"", SizeMismatch),
    "long": (lambda b: b + b"x", SizeMismatch),
    "flipped": (lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:], DigestMismatch),
    "zeroed": (lambda b: bytes(len(b)), DigestMismatch),
}


@pytest.mark.parametrize("how", WRONG)
@pytest.mark.parametrize("view", VIEWS)
def test_lc_03_wrong_bytes_are_an_error_and_leave_nothing(
    cache: SafeCache, how: str, view: str
) -> None:
    change, error = WRONG[how]
    what = sample()
    upstream = Upstream(what, change(what.blob))
    with pytest.raises(error, match=str(what.descriptor.digest)):
        read(cache, upstream, view)
    assert entries(cache) == []
    assert leftovers(cache) == []
    assert read(cache, Upstream(what), view) == wanted(what, view)


def test_lc_03_an_endless_source_is_left_after_the_declared_size(cache: SafeCache) -> None:
    what = sample(size=50_000)
    upstream = Upstream(what, what.blob + bytes(50_000_000))
    with pytest.raises(SizeMismatch, match="more bytes than"):
        read(cache, upstream)
    assert upstream.sent < len(what.blob) + 2 * 16 * 1024


def test_lc_04_a_wrong_diff_id_fails_the_uncompressed_view_alone(cache: SafeCache) -> None:
    what = sample()
    upstream = Upstream(what)
    layer = cache.layer(what.descriptor, DiffID.of(b"something else"), upstream.fetch)
    with pytest.raises(DigestMismatch, match=str(what.diff_id)):
        layer.uncompressed()
    assert layer.compressed().read() == what.blob
    assert [name.partition("/")[0] for name in entries(cache)] == ["blobs"]
    assert upstream.requests == 1


def test_lc_04_another_layers_content_is_not_served_for_a_false_diff_id(cache: SafeCache) -> None:
    benign, evil = Upstream(sample("benign")), Upstream(sample("evil"))
    assert read(cache, benign, "uncompressed") == benign.sample.plain
    liar = cache.layer(evil.sample.descriptor, benign.sample.diff_id, evil.fetch)
    for _ in range(2):
        with pytest.raises(DigestMismatch):
            liar.uncompressed()
        with pytest.raises(DigestMismatch):
            liar.contents()
    honest = cache.layer(evil.sample.descriptor, evil.sample.diff_id, evil.fetch)
    assert honest.uncompressed().read() == evil.sample.plain
    with pytest.raises(DigestMismatch):
        liar.uncompressed()


def test_lc_04_an_unknown_diff_id_is_found_out(cache: SafeCache) -> None:
    what = sample()
    upstream = Upstream(what)
    layer = cache.layer(what.descriptor, None, upstream.fetch)
    assert layer.uncompressed().read() == what.plain
    assert f"layers/sha256/{what.diff_id.hex[:2]}/{what.diff_id.hex}" in entries(cache)


DAMAGE = {
    "empty": lambda b: b"",
    "one byte": lambda b: b[:1],
    "short": lambda b: b[:-512],
    "long": lambda b: b + b"\0",
    "flipped": lambda b: b[:-9] + bytes([b[-9] ^ 1]) + b[-8:],
    "zero-filled": lambda b: bytes(len(b)),
    "zeroed middle": lambda b: b[:4096] + bytes(len(b) - 8192) + b[-4096:],
}
SEEN_BY_SIZE = ("empty", "one byte", "short", "long")


@pytest.mark.parametrize("verify", ["off", "once", "always"])
@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("view", VIEWS)
def test_lc_05_a_damaged_file_is_quarantined_counted_and_fetched_once_more(
    tmp_path: Path, verify: Verify, how: str, view: str
) -> None:
    if verify == "off" and how not in SEEN_BY_SIZE:
        pytest.skip("off: only the size is looked at")
    options = CacheOptions(tmp_path / "cache", verify=verify)
    what = sample()
    read(SafeCache.open(options), Upstream(what), view)
    cache = SafeCache.open(options)
    key = (
        Key.of("blobs", what.descriptor.digest)
        if view == "compressed"
        else Key.of("layers", what.diff_id)
    )
    path = cache.store.path(key)
    path.write_bytes(DAMAGE[how](path.read_bytes()))
    upstream = Upstream(what)
    assert read(cache, upstream, view) == wanted(what, view)
    assert cache.stats.quarantines == 1
    # A tar can be made again from the blob; a blob has to come again.
    assert upstream.requests == (1 if view == "compressed" else 0)
    assert read(cache, upstream, view) == wanted(what, view)
    assert cache.stats.quarantines == 1
    assert len(list((cache.store.root / "quarantine").iterdir())) == 1


def test_lc_05_always_means_on_every_open(tmp_path: Path) -> None:
    cache = SafeCache.open(CacheOptions(tmp_path / "cache", verify="always"))
    upstream = Upstream(sample())
    assert read(cache, upstream) == upstream.content
    path = cache.store.path(Key.of("blobs", upstream.sample.descriptor.digest))
    for count in (1, 2):
        path.write_bytes(bytes(len(upstream.content)))
        assert read(cache, upstream) == upstream.content
        assert cache.stats.quarantines == count


@pytest.mark.parametrize("length", [512 * k for k in range(0, 21, 4)])
def test_lc_05_every_prefix_of_a_plain_tar_is_a_miss(cache: SafeCache, length: int) -> None:
    what = sample(size=10_240)
    plain = Sample(what.plain, what.plain, media_types.OCI_LAYER)
    path = cache.store.path(Key.of("blobs", plain.descriptor.digest))
    path.parent.mkdir(parents=True)
    path.write_bytes(plain.blob[:length])
    assert read(cache, Upstream(plain), "uncompressed") == plain.plain


@pytest.mark.parametrize("what", ["symlink", "directory", "fifo"])
def test_lc_05_what_is_no_regular_file_is_not_opened(
    cache: SafeCache, what: str, tmp_path: Path
) -> None:
    upstream = Upstream(sample())
    path = cache.store.path(Key.of("blobs", upstream.sample.descriptor.digest))
    path.parent.mkdir(parents=True)
    if what == "symlink":
        (tmp_path / "elsewhere").write_bytes(upstream.content)
        path.symlink_to(tmp_path / "elsewhere")
    elif what == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    assert read(cache, upstream) == upstream.content
    assert upstream.requests == 1
    assert path.is_file()
    assert not path.is_symlink()


@pytest.mark.parametrize("size", [0, 1])
def test_lc_05_an_empty_or_tiny_layer_is_a_layer_like_any_other(
    cache: SafeCache, size: int
) -> None:
    tiny = Sample(b"x" * size, b"x" * size, media_types.OCI_LAYER)
    upstream = Upstream(tiny)
    for _ in range(2):
        assert read(cache, upstream) == tiny.blob
        assert read(cache, upstream, "uncompressed") == tiny.plain
    assert upstream.requests == 1


def test_lc_06_a_hit_has_the_descriptors_own_identity(cache: SafeCache) -> None:
    what = sample()
    zstd_name = Descriptor("application/x.vendor.layer", what.descriptor.digest, len(what.blob))
    upstream = Upstream(what)
    first = cache.put(what.descriptor, upstream.fetch)
    second = cache.layer(zstd_name, what.diff_id, upstream.fetch)
    assert second.compressed().read() == what.blob
    assert (first.media_type, first.digest, first.size) == (
        what.descriptor.media_type,
        what.descriptor.digest,
        len(what.blob),
    )
    assert (second.media_type, second.diff_id) == ("application/x.vendor.layer", what.diff_id)
    got = cache.get(what.descriptor.digest)
    assert got is not None
    assert (got.digest, got.size, got.media_type) == (
        what.descriptor.digest,
        len(what.blob),
        media_types.OCI_LAYER_GZIP,
    )
    assert got.compressed().read() == what.blob


def test_lc_06_get_of_what_is_not_here_is_none_and_damage_is_not_here(cache: SafeCache) -> None:
    upstream = Upstream(sample())
    digest = upstream.sample.descriptor.digest
    assert cache.get(digest) is None
    cache.put(upstream.sample.descriptor, upstream.fetch)
    path = cache.store.path(Key.of("blobs", digest))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert cache.get(digest) is None


def test_lc_06_what_get_returned_survives_the_removal_of_the_directory(cache: SafeCache) -> None:
    upstream = Upstream(sample())
    cache.put(upstream.sample.descriptor, upstream.fetch)
    layer = cache.get(upstream.sample.descriptor.digest)
    shutil.rmtree(cache.store.root)
    assert layer is not None
    assert layer.compressed().read() == upstream.content


def test_lc_07_a_layer_whose_digest_is_its_diff_id_has_two_views(cache: SafeCache) -> None:
    tar = Sample(sample().plain, sample().plain, media_types.OCI_LAYER)
    upstream = Upstream(tar)
    results = together(8, lambda n: read(cache, upstream, VIEWS[n % 2])).results
    assert results == [tar.plain] * 8
    assert upstream.requests == 1
    assert [name.partition("/")[0] for name in entries(cache)] == ["blobs", "links"]


def test_lc_07_a_blob_and_a_tar_of_the_same_digest_do_not_meet(cache: SafeCache) -> None:
    inner = sample("inner")
    # The plain form of the outer layer is, byte for byte, the inner layer's blob.
    outer = Sample(inner.blob, __import__("gzip").compress(inner.blob, mtime=0))
    assert read(cache, Upstream(outer), "uncompressed") == inner.blob
    upstream = Upstream(inner)
    assert read(cache, upstream, "uncompressed") == inner.plain
    assert read(cache, upstream) == inner.blob
    assert upstream.requests == 1


@pytest.mark.parametrize("threads", [2, 16])
def test_lc_08_many_threads_and_both_views_make_one_request(cache: SafeCache, threads: int) -> None:
    upstream = Upstream(sample())
    gate = upstream.hold[1000] = Gate()
    readers = together(threads, lambda n: read(cache, upstream, VIEWS[n % 2]), wait=False)
    gate.wait_reached()
    gate.open()
    expected = [wanted(upstream.sample, VIEWS[n % 2]) for n in range(threads)]
    assert readers.join().results == expected
    assert upstream.offsets == [0]
    assert cache.stats.transfers == 1
    assert cache.stats.network_bytes == len(upstream.content)
    assert cache.stats.requests == threads
    assert cache.stats.leaders >= 1
    assert adds_up(cache)


def test_lc_09_another_digest_does_not_wait(cache: SafeCache) -> None:
    slow, quick = Upstream(sample("slow")), Upstream(sample("quick"))
    gate = slow.hold[len(slow.content) // 2] = Gate()
    reader = together(1, lambda _: read(cache, slow), wait=False)
    gate.wait_reached()
    for view in VIEWS:
        assert read(cache, quick, view) == wanted(quick.sample, view)
    gate.open()
    assert reader.join().results == [slow.content]


def test_lc_10_a_pool_full_of_waiters_does_not_stop_the_fill_they_wait_for(
    cache: SafeCache,
) -> None:
    upstream = Upstream(sample())
    with ThreadPoolExecutor(2) as pool:

        @contextmanager
        def fetch(offset: int) -> Iterator[Iterator[bytes]]:
            # The transfer is work of the same kind, and the pool is the caches'
            # users' own; the cache itself must not need a slot of it.
            with upstream.fetch(offset) as pieces:
                yield pieces

        what = upstream.sample
        layer = cache.layer(what.descriptor, what.diff_id, fetch)
        gate = upstream.hold[0] = Gate()
        tasks = [pool.submit(lambda: layer.uncompressed().read()) for _ in range(6)]
        gate.wait_reached()
        gate.open()
        assert [task.result(PATIENCE) for task in tasks] == [what.plain] * 6
    assert upstream.requests == 1


@pytest.mark.parametrize("view", VIEWS)
def test_lc_11_every_waiter_raises_with_the_cause_when_the_fill_fails(
    cache: SafeCache, view: str
) -> None:
    upstream = Upstream(sample())
    gate = upstream.hold[5000] = Gate()
    root = ConnectionResetError("by peer")

    def fail() -> BaseException:
        error = RegistryUnreachable("registry.test/app: gone", hint="try later")
        error.__cause__ = root
        return error

    upstream.fail_at[5000] = fail
    readers = together(8, lambda _: read(cache, upstream, view), wait=False)
    gate.wait_reached()
    waiting(cache, 8)
    gate.open()
    errors = readers.join().errors
    assert len(errors) == 8
    for error in errors:
        assert isinstance(error, RegistryUnreachable)
        assert (error.message, error.hint) == ("registry.test/app: gone", "try later")
        assert error.__cause__ is not None
        assert error.__cause__.__cause__ is root
    assert len({id(error) for error in errors}) == 8  # nobody raises another's traceback
    assert upstream.requests == 1  # LC-13
    assert adds_up(cache)


def waiting(cache: SafeCache, count: int) -> None:
    """Until ``count`` callers have joined the one flight there is."""
    until(lambda: any(flight.interested >= count for flight in flights(cache)))


def test_lc_11_an_error_that_is_not_ours_reaches_every_waiter_too(cache: SafeCache) -> None:
    upstream = Upstream(sample())
    upstream.fail_at[0] = lambda: ZeroDivisionError("a bug in fetch")
    gate = upstream.hold[0] = Gate()
    readers = together(4, lambda _: read(cache, upstream), wait=False)
    gate.wait_reached()
    waiting(cache, 4)
    gate.open()
    assert [type(error) for error in readers.join().errors] == [ZeroDivisionError] * 4


def test_lc_12_a_failure_is_not_remembered(cache: SafeCache) -> None:
    upstream = Upstream(sample())
    for attempt in range(3):
        upstream.fail_at[attempt * 20_000] = lambda: RegistryUnreachable("down")
        with pytest.raises(RegistryUnreachable):
            read(cache, upstream)
        upstream.fail_at.clear()
        assert upstream.requests == attempt + 1
    assert read(cache, upstream) == upstream.content


@pytest.mark.slow
def test_lc_12_nobody_is_told_of_success_without_content_while_failures_alternate(
    cache: SafeCache,
) -> None:
    what = sample(size=3000)
    path = cache.store.path(Key.of("blobs", what.descriptor.digest))
    outcomes = {"failed": 0, "read": 0}
    for number in range(60):
        upstream = Upstream(what)
        if number % 2:
            upstream.fail_at[len(what.blob)] = lambda: RegistryUnreachable("down")
        joined = together(4, lambda _, u=upstream: [_or_error(cache, u) for _ in range(3)])
        for result in (r for results in joined.results for r in results):
            if isinstance(result, ConformaError):
                outcomes["failed"] += 1
            else:
                assert result == what.blob
                outcomes["read"] += 1
        path.unlink(missing_ok=True)
    assert min(outcomes.values()) > 100
    assert adds_up(cache)


def _or_error(cache: SafeCache, upstream: Upstream) -> bytes | ConformaError:
    try:
        return read(cache, upstream)
    except ConformaError as error:
        return error


@pytest.mark.parametrize("error", [NotFound, AccessDenied])
def test_lc_13_a_refusal_by_one_repository_does_not_speak_for_another(
    cache: SafeCache, error: type[ConformaError]
) -> None:
    what = sample()
    private, public = Upstream(what), Upstream(what)
    private.fail_at[0] = lambda: error("private: no")
    gate = private.hold[0] = Gate()
    denied = together(2, lambda _: layer_of(cache, private, origin="a").compressed(), wait=False)
    gate.wait_reached()
    allowed = together(
        1, lambda _: layer_of(cache, public, origin="b").compressed().read(), wait=False
    )
    waiting(cache, 3)
    gate.open()
    assert [type(e) for e in denied.join().errors] == [error, error]
    assert allowed.join().results == [what.blob]
    assert (private.requests, public.requests) == (1, 1)


def test_lc_14_cancelling_whoever_started_leaves_the_others_their_download(
    cache: SafeCache,
) -> None:
    upstream = Upstream(sample())
    gate = upstream.hold[len(upstream.content) // 2] = Gate()
    cancellation = Cancellation()
    layer = layer_of(cache, upstream)
    leader = together(1, lambda _: layer.compressed(cancellation), wait=False)
    gate.wait_reached()
    others = together(7, lambda _: read(cache, upstream), wait=False)
    waiting(cache, 8)
    cancellation.cancel()
    assert [type(e) for e in leader.join().errors] == [Interrupted]  # while all stands still
    gate.open()
    assert others.join().results == [upstream.content] * 7
    assert upstream.offsets == [0]


def test_lc_14_a_waiter_may_leave_while_the_transfer_stands_still(cache: SafeCache) -> None:
    upstream = Upstream(sample())
    gate = upstream.hold[100] = Gate()
    leader = together(1, lambda _: read(cache, upstream), wait=False)
    gate.wait_reached()
    late = Cancellation(0.05, label="50ms")
    with pytest.raises(Interrupted, match="50ms"):
        layer_of(cache, upstream).uncompressed(late)
    gate.open()
    assert leader.join().results == [upstream.content]


def test_lc_14_a_transfer_that_nobody_wants_any_more_ends(cache: SafeCache) -> None:
    upstream = Upstream(sample())
    gate = upstream.hold[PIECES_IN := 32 * 1024] = Gate()
    cancellation = Cancellation()
    layer = layer_of(cache, upstream)
    callers = together(3, lambda _: layer.compressed(cancellation), wait=False)
    gate.wait_reached()
    waiting(cache, 3)
    cancellation.cancel()
    callers.join()
    gate.open()
    assert upstream.ended.wait(PATIENCE)
    assert upstream.sent <= PIECES_IN + 16 * 1024
    assert entries(cache) == []
    assert read(cache, Upstream(upstream.sample)) == upstream.content


def test_lc_14_who_comes_before_an_unwanted_transfer_noticed_joins_it(cache: SafeCache) -> None:
    upstream = Upstream(sample())
    gate = upstream.hold[1000] = Gate()
    cancellation = Cancellation()
    layer = layer_of(cache, upstream)
    first = together(1, lambda _: layer.compressed(cancellation), wait=False)
    gate.wait_reached()
    cancellation.cancel()
    first.join()
    second = together(1, lambda _: read(cache, upstream), wait=False)
    waiting(cache, 1)
    gate.open()
    assert second.join().results == [upstream.content]
    assert upstream.offsets == [0]


def test_lc_14_the_caches_own_cancellation_stops_every_caller(tmp_path: Path) -> None:
    cancellation = Cancellation()
    cache = SafeCache.open(CacheOptions(tmp_path / "cache"), cancellation)
    upstream = Upstream(sample())
    gate = upstream.hold[1000] = Gate()
    callers = together(4, lambda n: read(cache, upstream, VIEWS[n % 2]), wait=False)
    gate.wait_reached()
    cancellation.cancel()
    assert [type(e) for e in callers.join().errors] == [Interrupted] * 4
    gate.open()
    with pytest.raises(Interrupted):
        read(cache, upstream)


@pytest.mark.parametrize("view", VIEWS)
def test_lc_15_a_reader_that_stops_early_leaves_a_complete_entry(
    cache: SafeCache, view: str
) -> None:
    upstream = Upstream(sample())
    with getattr(layer_of(cache, upstream), view)() as source:
        assert source.read(10) == wanted(upstream.sample, view)[:10]
    assert read(cache, upstream, view) == wanted(upstream.sample, view)
    assert upstream.requests == 1


def test_lc_15_readers_have_positions_of_their_own(cache: SafeCache) -> None:
    upstream = Upstream(sample())
    layer = layer_of(cache, upstream)
    first, second = layer.compressed(), layer.compressed()
    assert first.read(1000) == second.read(1000) == upstream.content[:1000]
    first.seek(-5, 2)
    assert first.read() == upstream.content[-5:]
    assert second.read() == upstream.content[1000:]
    first.close()
    with pytest.raises(ValueError, match="closed"):
        first.read()


@pytest.mark.parametrize("inner", VIEWS)
@pytest.mark.parametrize("outer", VIEWS)
def test_lc_16_asking_for_a_key_from_inside_its_own_fill_raises(
    cache: SafeCache, outer: str, inner: str
) -> None:
    what = sample()

    @contextmanager
    def fetch(offset: int) -> Iterator[Iterator[bytes]]:
        getattr(layer, inner)()
        yield iter(())

    layer = cache.layer(what.descriptor, what.diff_id, fetch)
    with pytest.raises(CacheError, match="from inside the fill"):
        getattr(layer, outer)()
    assert read(cache, Upstream(what), outer) == wanted(what, outer)


def test_lc_16_a_fill_may_not_ask_for_another_key_either(cache: SafeCache) -> None:
    other = Upstream(sample("other"))
    what = sample()

    @contextmanager
    def fetch(offset: int) -> Iterator[Iterator[bytes]]:
        cache.put(other.sample.descriptor, other.fetch)
        yield iter(())

    with pytest.raises(CacheError, match="from inside the fill"):
        cache.put(what.descriptor, fetch)


def test_a_broken_gzip_stream_fails_the_uncompressed_view_alone(cache: SafeCache) -> None:
    what = sample()
    broken = Sample(what.plain, what.blob[:-20])
    upstream = Upstream(broken)
    with pytest.raises(BadArchive, match="ends early"):
        read(cache, upstream, "uncompressed")
    assert read(cache, upstream) == broken.blob
    assert leftovers(cache) == []


def test_layer_does_no_io(tmp_path: Path) -> None:
    cache = SafeCache.open(CacheOptions(tmp_path / "cache"))
    shutil.rmtree(tmp_path / "cache")
    upstream = Upstream(sample())
    layer_of(cache, upstream)
    assert not (tmp_path / "cache").exists()
    assert upstream.requests == 0


def test_descriptors_and_threads_do_not_grow(cache: SafeCache) -> None:
    missing = Upstream(sample())
    missing.fail_at[0] = lambda: NotFound("no")
    there = Upstream(sample("there"))

    def round_trip() -> None:
        with pytest.raises(NotFound):
            read(cache, missing)
        read(cache, there, "uncompressed")

    round_trip()
    before = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    for _ in range(100):
        round_trip()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before[0] + 1
    assert threading.active_count() <= before[1] + 1
    assert leftovers(cache) == []


def test_the_default_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from conforma.cache.options import default_directory

    monkeypatch.setenv("EC_CACHE_DIR", "/somewhere/else")
    assert default_directory() == Path("/somewhere/else")
    monkeypatch.delenv("EC_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", tempfile.gettempdir())
    assert default_directory().is_relative_to(tempfile.gettempdir())
