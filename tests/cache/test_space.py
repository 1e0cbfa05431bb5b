import os
import pickle
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conforma.cache.disk import AREAS, Key
from conforma.cache.index import INTERVAL, Index
from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.cancellation import Cancellation
from conforma.errors import Interrupted
from conforma.serve.images import Member, layer_of
from tests.cache.upstream import Upstream, sample


def opened(directory: Path, **changes: object) -> SafeCache:
    return SafeCache.open(CacheOptions(directory, **changes))  # type: ignore[arg-type]


def fill(cache: SafeCache, seed: object, size: int = 100_000) -> Upstream:
    upstream = Upstream(sample(seed, size))
    cache.put(upstream.sample.descriptor, upstream.fetch)
    return upstream


def present(cache: SafeCache, upstream: Upstream) -> bool:
    return cache.store.path(Key.of("blobs", upstream.sample.descriptor.digest)).exists()


def aged(path: Path, seconds: float) -> None:
    moment = time.time() - seconds
    os.utime(path, (moment, moment))


def age_blob(cache: SafeCache, upstream: Upstream, seconds: float) -> None:
    aged(cache.store.path(Key.of("blobs", upstream.sample.descriptor.digest)), seconds)


def test_lc_29_the_least_recently_used_entries_go_first_down_to_the_low_water_mark(
    tmp_path: Path,
) -> None:
    cache = opened(tmp_path / "c", max_bytes=0)
    filled = [fill(cache, n) for n in range(10)]
    cache.close()
    for number, upstream in enumerate(filled):
        age_blob(cache, upstream, 1000 - number)
    # The index was told of each fill just now; without it the files' times count.
    for name in (tmp_path / "c/v1/index").iterdir():
        name.unlink()
    limited = opened(tmp_path / "c", max_bytes=600_000)
    before = limited.usage().bytes
    freed = limited.collect()
    assert limited.usage().bytes == before - freed <= 540_000
    kept = [present(limited, upstream) for upstream in filled]
    assert kept == sorted(kept)  # the oldest are gone, the newest are left
    assert 3 <= sum(kept) <= 5
    assert limited.stats.evictions == 10 - sum(kept)


def test_lc_29_recency_survives_a_restart(tmp_path: Path) -> None:
    cache = opened(tmp_path / "c", max_bytes=0)
    old, other = fill(cache, "old"), fill(cache, "other")
    cache.close()
    again = opened(tmp_path / "c", max_bytes=0)
    for upstream in (old, other):
        age_blob(again, upstream, 9000)
    index = tmp_path / "c/v1/index"
    for name in index.iterdir():
        name.unlink()
    reader = opened(tmp_path / "c", max_bytes=0)
    layer = reader.layer(old.sample.descriptor, None, old.fetch)
    layer.compressed().close()  # the older one is the one in use
    reader.close()
    limited = opened(tmp_path / "c", max_bytes=150_000)
    limited.collect()
    assert (present(limited, old), present(limited, other)) == (True, False)


def test_lc_29_an_entry_in_use_costs_one_index_write_a_minute(tmp_path: Path) -> None:
    now = [1000.0]
    key = Key("blobs", "sha256", "a" * 64)
    first = Index(tmp_path / "index", writable=True, clock=lambda: now[0])
    second = Index(tmp_path / "index", writable=True, clock=lambda: now[0])
    for index in (first, second):
        for _ in range(100):
            index.used(key)
            index.facts()
    assert (first.writes, second.writes) == (1, 0)
    now[0] += INTERVAL
    for index in (second, first):
        index.used(key)
        assert index.facts()[str(key)].used == now[0]
    assert first.writes + second.writes == 2
    now[0] -= 10_000  # a clock that jumped
    first.used(key)
    assert first.facts()[str(key)].used == now[0]
    first.close()
    second.close()


def test_lc_29_hits_of_all_views_by_all_processes_cost_one_write_for_each_entry(
    tmp_path: Path,
) -> None:
    what = layer_of([Member("etc/name", b"x")])
    plain = sample()

    def nothing(_offset: int) -> Any:
        raise AssertionError("a hit fetches nothing")

    @contextmanager
    def fetch(offset: int) -> Iterator[Iterator[bytes]]:
        yield iter([what.blob[offset:]])

    first, second = opened(tmp_path / "c"), opened(tmp_path / "c")
    first.layer(what.descriptor, what.diff_id, fetch).contents()
    first.put(plain.descriptor, Upstream(plain).fetch)
    for cache in (first, second):
        layer = cache.layer(what.descriptor, what.diff_id, nothing)
        for _ in range(50):
            layer.compressed().close()
            layer.uncompressed().close()
            layer.stream().close()
            layer.contents()
            cache.layer(plain.descriptor, None, nothing).compressed().close()
        cache.close()
    assert first.stats.hits + second.stats.hits >= 500
    # Two blobs, and the plain tar, table and link of one of them.
    assert (first._index.writes, second._index.writes) == (5, 0)


def test_lc_29_a_full_cache_makes_room_by_itself(tmp_path: Path) -> None:
    cache = opened(tmp_path / "c", max_bytes=400_000)
    filled = [fill(cache, n) for n in range(12)]
    for thread in threading.enumerate():
        if thread.name == "cache eviction":
            thread.join(20)
    cache.collect()
    assert cache.usage().bytes <= 400_000
    assert cache.stats.evictions >= 8
    for upstream in filled:  # gone is a miss, never an error
        layer = cache.layer(upstream.sample.descriptor, upstream.sample.diff_id, upstream.fetch)
        assert layer.uncompressed().read() == upstream.sample.plain


def test_lc_30_what_is_being_read_is_not_evicted_by_any_process(tmp_path: Path) -> None:
    cache = opened(tmp_path / "c", max_bytes=0)
    read, idle = fill(cache, "read"), fill(cache, "idle")
    layer = cache.layer(read.sample.descriptor, None, read.fetch)
    cache.close()
    with layer.compressed() as source:
        source.read(10)
        for collect in (collect_here, collect_elsewhere):
            collect(tmp_path / "c")
            assert (present(cache, read), present(cache, idle)) == (True, False)
        assert source.read() == read.content[10:]
    collect_elsewhere(tmp_path / "c")
    assert not present(cache, read)


def collect_here(directory: Path) -> None:
    opened(directory, max_bytes=1).collect()


def collect_elsewhere(directory: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.cache.test_space import collect_here\n"
        "collect_here(Path(sys.argv[1]))\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script, str(directory)], cwd=root, check=True, timeout=60)


def test_lc_31_one_evictor_at_a_time(tmp_path: Path) -> None:
    from conforma.cache.locks import EntryLock

    cache = opened(tmp_path / "c", max_bytes=1)
    upstream = fill(cache, "x")
    lock = EntryLock.named(cache.store, "evict")
    while not lock.try_acquire():  # the one that the fill has set off
        pass
    cache.store.path(Key.of("blobs", upstream.sample.descriptor.digest))
    try:
        assert cache.collect() == 0
    finally:
        lock.release()


class Patient(Cancellation):
    """Tells that somebody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = threading.Event()

    def wait(self, seconds: float) -> None:
        self.waits.set()
        super().wait(seconds)


def test_lc_31_who_has_to_know_waits_for_the_other_evictor(tmp_path: Path) -> None:
    from conforma.cache.locks import EntryLock

    filled = opened(tmp_path / "c", max_bytes=0)  # sets off no evictor of its own
    upstream = fill(filled, "x")
    filled.close()
    limited = opened(tmp_path / "c", max_bytes=1)
    lock = EntryLock.named(limited.store, "evict")
    assert lock.try_acquire()
    patient, freed = Patient(), list[int]()
    waiter = threading.Thread(target=lambda: freed.append(limited.collect(patient)), daemon=True)
    waiter.start()
    try:
        assert patient.waits.wait(30)
        assert present(limited, upstream)
    finally:
        lock.release()
    waiter.join(30)
    assert freed and freed[0] >= 100_000
    assert not present(limited, upstream)


def test_lc_31_waiting_for_the_other_evictor_ends_with_the_run(tmp_path: Path) -> None:
    from conforma.cache.locks import EntryLock

    cache = opened(tmp_path / "c", max_bytes=1)
    lock = EntryLock.named(cache.store, "evict")
    assert lock.try_acquire()
    cancellation = Cancellation()
    cancellation.cancel()
    try:
        with pytest.raises(Interrupted):
            cache.collect(cancellation)
    finally:
        lock.release()


def test_lc_31_accounting_agrees_with_a_walk_over_the_directory(tmp_path: Path) -> None:
    cache = opened(tmp_path / "c")
    for number in range(5):
        upstream = Upstream(sample(number, 50_000 + number))
        layer = cache.layer(upstream.sample.descriptor, upstream.sample.diff_id, upstream.fetch)
        layer.uncompressed().close()
    cache.close()  # the last blob has its name by then
    partial = cache.store.begin(Key("blobs", "sha256", "b" * 64))
    partial.write(b"x" * 10_000)
    files = [
        path
        for area in (*AREAS, "quarantine")
        for path in (cache.store.root / area).rglob("*")
        if path.is_file()
    ]
    usage = cache.usage()
    assert usage.bytes == sum(path.stat().st_blocks * 512 for path in files)
    assert (usage.entries, usage.partials, usage.quarantined) == (len(files) - 1, 1, 0)
    partial.discard()


def test_lc_17_leftovers_are_reclaimed_when_they_are_old_and_nobody_writes_them(
    tmp_path: Path,
) -> None:
    from conforma.cache.locks import EntryLock

    cache = opened(tmp_path / "c", grace=100)
    keys = {name: Key("blobs", "sha256", name * 64) for name in "abc"}
    partials = {name: cache.store.begin(key) for name, key in keys.items()}
    for name in "ab":
        aged(partials[name].path, 101)
    lock = EntryLock(cache.store, keys["b"])
    assert lock.try_acquire()
    cache.collect()
    assert [partials[name].path.exists() for name in "abc"] == [False, True, True]
    lock.release()
    cache.collect()
    assert [partials[name].path.exists() for name in "abc"] == [False, False, True]
    for partial in partials.values():
        partial.discard()


def test_lc_17_lock_files_that_nobody_used_lately_are_reclaimed(tmp_path: Path) -> None:
    from conforma.cache.locks import EntryLock

    cache = opened(tmp_path / "c", grace=100, max_bytes=0)
    upstreams = [fill(cache, name) for name in "ab"]
    locks = cache.store.root / "locks"
    files = [path for path in locks.glob("*/*/*") if path.is_file()]
    assert len(files) == 2
    held = EntryLock(cache.store, Key.of("blobs", upstreams[0].sample.descriptor.digest))
    assert held.try_acquire()
    cache.collect()
    assert all(path.exists() for path in files)
    for path in files:
        aged(path, 101)
    cache.collect()
    left = [path for path in files if path.exists()]
    assert [path.name for path in left] == [upstreams[0].sample.descriptor.digest.hex]
    assert not EntryLock(
        cache.store, Key.of("blobs", upstreams[0].sample.descriptor.digest)
    ).try_acquire()
    held.release()


def test_lc_17_who_opened_a_lock_file_before_it_went_does_not_believe_to_have_the_lock(
    tmp_path: Path,
) -> None:
    """Two could have had it: one by the file without a name, one by the next file."""
    from conforma.cache.locks import EntryLock

    key = Key("blobs", "sha256", "a" * 64)
    paused: list[EntryLock] = []

    def before(step: str, path: Path) -> None:
        # The evictor has the lock and is about to remove the file.
        if step == "unlink" and path.name == key.hex:
            for lock in paused:
                assert not lock.try_acquire()

    cache = SafeCache.open(CacheOptions(tmp_path / "c", grace=0.0), before_step=before)
    first = EntryLock(cache.store, key)
    assert first.try_acquire()
    first.release()
    paused.append(EntryLock(cache.store, key))
    cache.collect()
    assert not list((cache.store.root / "locks").glob("*/*/*"))
    assert paused[0].try_acquire()
    assert not EntryLock(cache.store, key).try_acquire()
    paused[0].release()


def test_lc_21_a_clock_that_jumped_keeps_no_leftover_for_ever(tmp_path: Path) -> None:
    cache = opened(tmp_path / "c", grace=100)
    partial = cache.store.begin(Key("blobs", "sha256", "a" * 64))
    aged(partial.path, -10_000_000)
    cache.collect()
    assert not partial.path.exists()
    partial.discard()


def test_lc_21_what_a_clock_that_was_ahead_stored_does_not_stay_for_ever(tmp_path: Path) -> None:
    """It was always the last to go, so what came after the clock was right had no room."""
    with opened(tmp_path / "c", max_bytes=0) as cache:
        ahead, today, in_use = (fill(cache, name) for name in ("ahead", "today", "in use"))
        age_blob(cache, ahead, -1e9)
        age_blob(cache, today, 3600)
        age_blob(cache, in_use, -1e9)
    for name in (tmp_path / "c/v1/index").iterdir():
        name.unlink()
    with opened(tmp_path / "c", max_bytes=0) as cache:
        cache.layer(in_use.sample.descriptor, None, in_use.fetch).compressed().close()
    with opened(tmp_path / "c", max_bytes=250_000) as cache:
        cache.collect()
        there = [present(cache, upstream) for upstream in (ahead, today, in_use)]
    assert there == [False, True, True]


class Bomb:
    """What somebody could plant in the database: unpickling it leaves a mark."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (self.mark,))


@pytest.mark.parametrize("where", ["value", "key"])
def test_the_index_runs_no_code_that_was_planted_in_it(tmp_path: Path, where: str) -> None:
    key = Key("blobs", "sha256", "a" * 64)
    index = Index(tmp_path / "index", writable=True)
    index.used(key)
    index.facts()
    index.close()
    bomb = pickle.dumps(Bomb(str(tmp_path / "boom")))
    with sqlite3.connect(tmp_path / "index/cache.db") as database:
        if where == "value":
            database.execute("UPDATE Cache SET mode = 4, value = ?", (bomb,))
        else:
            database.execute("UPDATE Cache SET raw = 0, key = ?", (bomb,))
    again = Index(tmp_path / "index", writable=True)
    again.fact(key)
    again.facts()
    again.used(key, "x/y")
    again.close()
    assert not (tmp_path / "boom").exists()


def test_a_closed_index_answers_late_questions_without_a_thread(tmp_path: Path) -> None:
    """An evictor may ask while the cache is closed: a second thread took the word to end."""
    key = Key("blobs", "sha256", "a" * 64)
    others = set(threading.enumerate())
    index = Index(tmp_path / "index", writable=True)
    index.used(key)
    index.close()
    assert list(index.facts()) == [str(key)]
    assert index.fact(key) is None
    assert index.totals().hits == 0
    assert set(threading.enumerate()) <= others


@pytest.mark.parametrize("damage", ["garbage", "truncated", "directory"])
def test_a_damaged_index_costs_recency_and_nothing_else(tmp_path: Path, damage: str) -> None:
    cache = opened(tmp_path / "c")
    upstream = fill(cache, "x")
    cache.close()
    database = tmp_path / "c/v1/index/cache.db"
    for name in database.parent.iterdir():
        if name != database:
            name.unlink()
    if damage == "garbage":
        database.write_bytes(b"no database" * 1000)
    elif damage == "truncated":
        database.write_bytes(database.read_bytes()[:5000])
    else:
        database.unlink()
        database.mkdir()
    again = opened(tmp_path / "c", max_bytes=1)
    layer = again.layer(upstream.sample.descriptor, upstream.sample.diff_id, upstream.fetch)
    with layer.uncompressed() as source:  # what is open is not evicted
        assert source.read() == upstream.sample.plain
        assert upstream.requests == 1
        assert again.usage().entries > 0
    again.close()


def test_an_index_that_cannot_be_opened_now_is_kept(tmp_path: Path) -> None:
    """It went with the totals of all runs whenever a process was out of disk."""
    key = Key("blobs", "sha256", "a" * 64)
    earlier = Index(tmp_path / "index", writable=True)
    earlier.used(key)
    earlier.close()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    poor = Index(tmp_path / "index", writable=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        assert poor.facts() == {}
        poor.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    later = Index(tmp_path / "index", writable=True)
    assert list(later.facts()) == [str(key)]
    later.close()


def test_without_a_thread_for_the_facts_everything_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "cache index":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    index = Index(tmp_path / "index", writable=True)
    index.used(Key("blobs", "sha256", "a" * 64))
    index.close()


def test_lc_19_a_forked_child_asks_the_index_with_a_thread_of_its_own(tmp_path: Path) -> None:
    # Behind a symlink there is no database, whose locks no fork may meet held.
    (tmp_path / "index").symlink_to(tmp_path)
    index = Index(tmp_path / "index", writable=True)
    first, second = Key("blobs", "sha256", "0" * 64), Key("blobs", "sha256", "1" * 64)
    index.used(first, "text/plain")
    assert index.fact(first) is not None  # the thread is there
    child = os.fork()
    if child == 0:
        status = 1
        try:
            index.used(second, "text/html")
            fact = index.fact(second)
            status = 0 if fact is not None and fact.media_type == "text/html" else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    index.close()
