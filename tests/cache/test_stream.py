"""Streams: reading a blob while it is still being downloaded."""

import io
import random
import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from conforma.cache.direct import DirectLayers
from conforma.cache.disk import Key
from conforma.cache.follow import HELD_BACK, Diverged
from conforma.cache.locks import EntryLock
from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.cancellation import Cancellation
from conforma.errors import DigestMismatch, Interrupted, RegistryUnreachable, SizeMismatch
from tests.cache.upstream import PATIENCE, Gate, Upstream, sample, together

HALF = 150_000


@pytest.fixture
def cache(tmp_path: Path) -> SafeCache:
    return SafeCache.open(CacheOptions(tmp_path / "c"))


def stream(cache: SafeCache, upstream: Upstream, origin: str = "") -> BinaryIO:
    what = upstream.sample
    return cache.layer(what.descriptor, what.diff_id, upstream.fetch, origin=origin).stream()


def test_lc_32_bytes_come_while_the_download_goes_on(cache: SafeCache) -> None:
    upstream = Upstream(sample())
    gate = upstream.hold[HALF] = Gate()
    with stream(cache, upstream) as source:
        gate.wait_reached()
        assert source.read(HALF) == upstream.content[:HALF]
        gate.open()
        assert source.read() == upstream.content[HALF:]
    assert upstream.requests == 1


def test_lc_32_whoever_joins_late_begins_at_the_first_byte(cache: SafeCache) -> None:
    upstream = Upstream(sample())
    gate = upstream.hold[HALF] = Gate()
    with stream(cache, upstream) as first:
        gate.wait_reached()
        with stream(cache, upstream) as second:
            assert second.read(HALF) == first.read(HALF) == upstream.content[:HALF]
            gate.open()
            assert second.read() == first.read() == upstream.content[HALF:]
    cache.close()
    stats = cache.stats
    assert (stats.requests, stats.leaders, stats.coalesced, stats.followers) == (2, 1, 1, 1)


def test_lc_32_a_blob_that_is_here_is_streamed_from_here(cache: SafeCache) -> None:
    upstream = Upstream(sample())
    cache.put(upstream.sample.descriptor, upstream.fetch)
    with stream(cache, upstream) as source:
        assert source.read() == upstream.content
    assert upstream.requests == 1
    assert cache.stats.hits == 1


def test_lc_32_readers_that_join_and_leave_at_random_see_no_wrong_byte(cache: SafeCache) -> None:
    upstream = Upstream(sample(size=600_000))
    anchor = stream(cache, upstream)  # so that the download is one, however many leave

    def follow(number: int) -> int:
        dice = random.Random(number)
        for _ in range(60):
            with stream(cache, upstream) as source:
                at = 0
                while dice.random() < 0.8 and (piece := source.read(dice.randrange(1, 90_000))):
                    assert piece == upstream.content[at : at + len(piece)]
                    at += len(piece)
        return 60

    assert together(17, follow).results == [60] * 17
    assert anchor.read() == upstream.content
    anchor.close()
    assert upstream.requests == 1


def test_lc_33_a_reader_that_stands_still_slows_nobody(cache: SafeCache) -> None:
    upstream = Upstream(sample(size=2_000_000))
    with stream(cache, upstream) as still:
        still.read(1)
        with stream(cache, upstream) as quick:
            assert quick.read() == upstream.content
        assert still.read() == upstream.content[1:]


def test_lc_33_a_reader_that_leaves_takes_nothing_from_the_others(cache: SafeCache) -> None:
    upstream = Upstream(sample())
    gate = upstream.hold[HALF] = Gate()
    first, second = stream(cache, upstream), stream(cache, upstream)
    gate.wait_reached()
    first.read(1000)
    first.close()
    gate.open()
    assert second.read() == upstream.content
    with pytest.raises(ValueError, match="closed file"):
        first.read(1)


def test_lc_33_when_the_last_reader_leaves_the_download_ends(cache: SafeCache) -> None:
    upstream = Upstream(sample())
    gate = upstream.hold[HALF] = Gate()
    source = stream(cache, upstream)
    gate.wait_reached()
    source.close()
    gate.open()
    assert upstream.ended.wait(PATIENCE)
    assert upstream.sent < len(upstream.content)


def test_lc_34_the_end_is_held_back_until_the_digest_has_matched(cache: SafeCache) -> None:
    upstream = Upstream(sample())
    size = len(upstream.content)
    gate = upstream.hold[size] = Gate()
    with stream(cache, upstream) as source:
        gate.wait_reached()  # every byte has been written
        raw = source.raw  # type: ignore[attr-defined]
        buffer, seen = bytearray(size), 0
        while seen < size - HELD_BACK:
            seen += raw.readinto(memoryview(buffer)[seen:])
        assert seen == size - HELD_BACK
        rest = together(1, lambda _: raw.readall(), wait=False)
        assert rest.results == [None]
        gate.open()
        assert bytes(buffer[:seen]) + rest.join().results[0] == upstream.content


@pytest.mark.parametrize("size", [0, 1, 100, HELD_BACK])
def test_lc_34_a_small_blob_comes_only_when_it_is_verified(cache: SafeCache, size: int) -> None:
    upstream = Upstream(sample(size=size))
    with stream(cache, upstream) as source:
        assert source.read() == upstream.content


def flipped(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (flipped, DigestMismatch),
        (lambda content: content[:-100], SizeMismatch),
        (lambda content: content + b"more", SizeMismatch),
    ],
)
def test_lc_34_a_wrong_end_raises_in_every_reader(cache: SafeCache, spoil, error) -> None:
    what = sample()
    upstream = Upstream(what, content=spoil(what.blob))
    gate = upstream.hold[HALF] = Gate()
    readers = [stream(cache, upstream) for _ in range(4)]
    gate.wait_reached()
    gate.open()

    def drain(number: int) -> int:
        count = 0
        with pytest.raises(error):
            while piece := readers[number].read(10_000):
                count += len(piece)
        return count

    for count in together(4, drain).results:
        assert count <= len(what.blob) - HELD_BACK
    assert upstream.requests == 1


def test_lc_34_an_error_on_the_way_raises_in_every_reader(cache: SafeCache) -> None:
    upstream = Upstream(sample())
    gate = upstream.hold[HALF] = Gate()
    upstream.fail_at[HALF] = lambda: RegistryUnreachable("registry.test/app: gone")
    readers = [stream(cache, upstream) for _ in range(3)]
    gate.wait_reached()
    gate.open()
    errors = together(3, lambda n: readers[n].read()).errors
    assert [type(error) for error in errors] == [RegistryUnreachable] * 3
    assert len({id(error) for error in errors}) == 3


def test_lc_34_another_repository_that_may_tries_for_itself(cache: SafeCache) -> None:
    from conforma.errors import AccessDenied

    what = sample()
    denied, allowed = Upstream(what), Upstream(what)
    gate = denied.hold[HALF] = Gate()
    denied.fail_at[HALF] = lambda: AccessDenied("no")
    with stream(cache, denied, "private") as first, stream(cache, allowed, "public") as second:
        gate.wait_reached()
        assert second.read(HALF // 2) == what.blob[: HALF // 2]
        gate.open()
        assert second.read() == what.blob[HALF // 2 :]
        with pytest.raises(AccessDenied):
            first.read()


def test_lc_35_a_restarted_download_with_other_bytes_is_noticed(cache: SafeCache) -> None:
    """The partial that was followed is thrown away, and the next attempt brings other bytes."""
    from conforma.errors import AccessDenied

    what = sample()
    lying = Upstream(what, content=b"x" * len(what.blob))
    honest = Upstream(what)
    gate = lying.hold[HALF] = Gate()
    lying.fail_at[HALF] = lambda: AccessDenied("no")
    with stream(cache, lying, "one"), stream(cache, honest, "other") as second:
        gate.wait_reached()
        assert second.read(50_000) == b"x" * 50_000
        gate.open()
        with pytest.raises(DigestMismatch, match="is not what it was before"):
            while second.read(10_000):
                pass
    # The layer itself is none the worse for it.
    layer = cache.layer(what.descriptor, what.diff_id, honest.fetch)
    assert layer.uncompressed().read() == what.plain


def test_lc_35_inflating_starts_again_when_what_it_followed_was_bad(cache: SafeCache) -> None:
    from conforma.errors import AccessDenied

    what = sample(size=3_000_000)
    # The gzip header and the first blocks are right, then the content is another.
    lying = Upstream(what, content=what.blob[:1_000_000] + b"\0" * (len(what.blob) - 1_000_000))
    honest = Upstream(what)
    gate = lying.hold[2_500_000] = Gate()
    lying.fail_at[2_500_000] = lambda: AccessDenied("no")
    first = stream(cache, lying, "one")
    layer = cache.layer(what.descriptor, what.diff_id, honest.fetch, origin="other")
    result = together(1, lambda _: layer.uncompressed().read(), wait=False)
    gate.wait_reached()
    gate.open()
    assert result.join().results == [what.plain]
    first.close()


def test_lc_11_other_processes_are_told_of_a_changed_download_as_what_it_is(
    cache: SafeCache,
) -> None:
    key = Key.of("blobs", sample().descriptor.digest)
    holder, waiter = EntryLock(cache.store, key), EntryLock(cache.store, key)
    assert holder.try_acquire()
    holder.begin("")
    holder.fail(Diverged("it is not what it was before"), "")
    holder.release()
    note = waiter.note()
    assert note is not None
    assert type(note.error()) is DigestMismatch


def test_lc_36_a_reader_waits_only_for_the_bytes_it_wants(cache: SafeCache) -> None:
    upstream = Upstream(sample())
    gate = upstream.hold[HALF] = Gate()
    with stream(cache, upstream) as source:
        gate.wait_reached()
        source.seek(HALF - 1000)
        assert source.read(1000) == upstream.content[HALF - 1000 : HALF]
        source.seek(10)
        assert source.read(5) == upstream.content[10:15]
        gate.open()
        source.seek(-7, io.SEEK_END)
        assert source.read() == upstream.content[-7:]


def test_lc_14_cancelling_one_reader_leaves_the_download_to_the_others(cache: SafeCache) -> None:
    upstream = Upstream(sample())
    gate = upstream.hold[HALF] = Gate()
    cancellation = Cancellation()
    what = upstream.sample
    layer = cache.layer(what.descriptor, what.diff_id, upstream.fetch)
    with layer.stream(cancellation) as one, layer.stream() as other:
        gate.wait_reached()
        waiting = together(1, lambda _: one.read(), wait=False)
        cancellation.cancel()
        assert [type(error) for error in waiting.join().errors] == [Interrupted]
        gate.open()
        assert other.read() == upstream.content


def test_lc_22_followers_do_not_notice_that_the_disk_filled_up(tmp_path: Path) -> None:
    full = threading.Event()

    def before(name: str, path: Path) -> None:
        if name == "write" and full.is_set():
            raise OSError(28, "full")

    cache = SafeCache.open(CacheOptions(tmp_path / "c"), before_step=before)
    upstream = Upstream(sample())
    gate = upstream.hold[HALF] = Gate()
    with stream(cache, upstream) as source:
        gate.wait_reached()
        assert source.read(1000) == upstream.content[:1000]
        full.set()
        gate.open()
        assert source.read() == upstream.content[1000:]
    cache.close()
    assert cache.stats.pass_through == 1


def test_a_stream_without_a_cache_is_verified_first() -> None:
    upstream = Upstream(sample())
    what = upstream.sample
    with DirectLayers().layer(what.descriptor, None, upstream.fetch).stream() as source:
        assert source.read() == what.blob
