"""Followers of one download hold the same blocks; whoever is elsewhere reads for itself."""

import os
from pathlib import Path

import pytest

from conforma.cache.bell import Bell, Queue
from conforma.cache.follow import HELD_BACK, Follower, Ride, Sight
from conforma.cache.handles import BLOCK
from conforma.cache.layers import Stream
from conforma.cache.options import CacheOptions
from conforma.cache.recent import ALONE, SHARED, GrowingFile
from conforma.cache.safe_cache import SafeCache
from conforma.errors import AccessDenied, DigestMismatch
from tests.cache.candidates import flights
from tests.cache.upstream import Gate, Upstream, sample, together

BLOCKS = 10
SIZE = BLOCKS * BLOCK + 100_000
MANY = 12


@pytest.fixture
def cache(tmp_path: Path) -> SafeCache:
    return SafeCache.open(CacheOptions(tmp_path / "c"))


def stream(cache: SafeCache, upstream: Upstream, origin: str = "") -> Stream:
    what = upstream.sample
    return cache.layer(what.descriptor, what.diff_id, upstream.fetch, origin=origin).stream()


def followed(cache: SafeCache) -> GrowingFile:
    (flight,) = flights(cache)
    assert isinstance(flight.sight.file, GrowingFile)
    return flight.sight.file


def test_lc_33_fast_readers_share_and_slow_and_late_ones_get_the_same_bytes(
    cache: SafeCache,
) -> None:
    upstream = Upstream(sample(size=SIZE))
    content = upstream.content
    gates = {n: Gate() for n in range(1, BLOCKS + 1)}
    upstream.hold.update({n * BLOCK: gate for n, gate in gates.items()})
    slow = stream(cache, upstream)
    fast = [stream(cache, upstream) for _ in range(MANY)]
    taking = [reader.blocks() for reader in fast]
    for n, gate in gates.items():
        gate.wait_reached()
        blocks = [next(taken) for taken in taking]
        assert blocks[0] == content[(n - 1) * BLOCK : n * BLOCK]
        assert all(block is blocks[0] for block in blocks)
        if n == 1:
            assert slow.read(1000) == content[:1000]
        file = followed(cache)
        assert file.kept == min(n * BLOCK, SHARED)  # whatever the number of readers
        if n < BLOCKS:
            gate.open()
    late = stream(cache, upstream)
    late_blocks = late.blocks()
    seen = b"".join(next(late_blocks) for _ in range(BLOCKS))
    assert file.kept <= SHARED
    gates[BLOCKS].open()
    assert seen + b"".join(late_blocks) == content
    assert [b"".join(taken) for taken in taking] == [content[BLOCKS * BLOCK :]] * MANY
    assert b"".join(slow.blocks()) == content[1000:]
    for reader in (slow, late, *fast):
        reader.close()
    assert upstream.requests == 1
    cache.close()  # waits until it is stored
    assert file.kept == 0


def test_lc_38_threads_that_follow_share_what_a_few_of_them_read(cache: SafeCache) -> None:
    upstream = Upstream(sample(size=SIZE))
    gate = upstream.hold[BLOCK // 2] = Gate()
    readers = [stream(cache, upstream) for _ in range(MANY)]
    gate.wait_reached()
    file = followed(cache)
    work = together(MANY, lambda n: b"".join(readers[n].blocks()), wait=False)
    gate.open()
    assert work.join().results == [upstream.content] * MANY
    assert file.kept <= SHARED
    for reader in readers:
        reader.close()


def test_lc_38_a_lone_reader_has_less_kept_for_it(cache: SafeCache) -> None:
    upstream = Upstream(sample(size=SIZE))
    gate = upstream.hold[5 * BLOCK] = Gate()
    with stream(cache, upstream) as reader:
        gate.wait_reached()
        blocks = reader.blocks()
        seen = [next(blocks) for _ in range(5)]
        assert followed(cache).kept == ALONE
        gate.open()
        assert b"".join([*seen, *blocks]) == upstream.content


def test_lc_34_blocks_end_before_what_is_held_back(cache: SafeCache) -> None:
    what = sample(size=SIZE)
    spoilt = what.blob[:-5] + bytes([what.blob[-5] ^ 1]) + what.blob[-4:]
    upstream = Upstream(what, content=spoilt)
    with stream(cache, upstream) as one, stream(cache, upstream) as other:
        for reader in (one, other):
            taken = []
            with pytest.raises(DigestMismatch):
                taken.extend(reader.blocks())
            assert b"".join(taken) == what.blob[: len(b"".join(taken))]
            assert len(b"".join(taken)) <= len(what.blob) - HELD_BACK


def test_lc_35_blocks_of_a_download_that_was_started_anew_are_compared(cache: SafeCache) -> None:
    what = sample(size=SIZE)
    lying, honest = Upstream(what, content=b"x" * SIZE), Upstream(what)
    gate = lying.hold[BLOCK] = Gate()
    lying.fail_at[BLOCK] = lambda: AccessDenied("no")
    with stream(cache, lying, "one"), stream(cache, honest, "other") as second:
        gate.wait_reached()
        blocks = second.blocks()
        assert next(blocks) == b"x" * BLOCK
        gate.open()
        with pytest.raises(DigestMismatch, match="is not what it was before"):
            list(blocks)


def test_lc_36_blocks_go_on_where_reading_and_seeking_have_come_to(cache: SafeCache) -> None:
    upstream = Upstream(sample(size=SIZE))
    with stream(cache, upstream) as source:
        assert source.read(10) == upstream.content[:10]
        assert b"".join(source.blocks()) == upstream.content[10:]
        assert source.tell() == len(upstream.content)
        source.seek(BLOCK + 5)
        assert source.read(20) == upstream.content[BLOCK + 5 : BLOCK + 25]
        source.seek(-10, 1)
        assert b"".join(source.blocks()) == upstream.content[BLOCK + 15 :]


def growing(path: Path, blocks: int) -> GrowingFile:
    """A file of so many blocks, of which the first has been wanted twice."""
    path.write_bytes(os.urandom(blocks * BLOCK))
    file = GrowingFile(os.open(path, os.O_RDONLY), blocks * BLOCK)
    assert file.block_at(0, BLOCK) is file.block_at(0, BLOCK)
    return file


class Place:
    """A follower's place where everything can be seen at once."""

    def __init__(self, file: GrowingFile) -> None:
        self.sight = Sight(file, file.size, verified=True)

    def look(self) -> Sight:
        return self.sight

    def seen(self) -> None:
        pass

    def leave(self) -> None:
        pass


def test_lc_33_what_a_round_is_about_is_in_memory_before_the_next_is_woken(tmp_path: Path) -> None:
    file = growing(tmp_path / "file", 3)
    kept: list[int] = []

    def board(wake: Bell) -> Ride:
        wake.next = lambda: kept.append(file.kept)
        return Place(file)

    with Follower(board, file.size, "blob") as follower:
        blocks = follower.blocks()
        first = next(blocks)
        assert kept == [3 * BLOCK]
        assert b"".join([first, *blocks]) == (tmp_path / "file").read_bytes()
    assert kept == [3 * BLOCK]  # passed on once


def test_lc_38_nothing_is_read_for_others_who_are_not_there_or_far_away(tmp_path: Path) -> None:
    far = growing(tmp_path / "far", SHARED // BLOCK + 2)
    far.share(BLOCK, far.size)
    assert far.kept == BLOCK
    far.share(2 * BLOCK, far.size)
    assert far.kept == SHARED
    lone = GrowingFile(os.open(tmp_path / "far", os.O_RDONLY), far.size)
    lone.block_at(0, BLOCK)
    lone.share(BLOCK, 4 * BLOCK)
    assert lone.kept == BLOCK


def test_lc_35_a_file_that_was_cut_off_keeps_nobody_in_a_round(tmp_path: Path) -> None:
    file = growing(tmp_path / "file", 3)
    os.truncate(tmp_path / "file", 2 * BLOCK)
    file.share(0, 3 * BLOCK)
    assert file.kept == 2 * BLOCK


def test_a_round_wakes_one_after_the_other() -> None:
    queue, first, gone, last = Queue(), Bell(), Bell(), Bell()
    for bell in (first, gone, last):
        queue.enter(bell)
    queue.ring()
    queue.leave(gone)
    assert [bell.wait(0) for bell in (first, gone, last)] == [True, False, False]
    first.pass_on()
    assert [bell.wait(0) for bell in (first, gone, last)] == [False, False, True]
    last.pass_on()  # to nobody


def test_one_that_passes_nothing_on_delays_the_others_to_the_next_round() -> None:
    queue, still, other = Queue(), Bell(), Bell()
    queue.enter(still)
    queue.enter(other)
    queue.ring()
    assert not other.wait(0)
    queue.ring()
    assert other.wait(0)
