"""LC-26: what somebody who shares the directory can plant there does no harm outside of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from conforma.cache.disk import Key
from conforma.cache.locks import EntryLock
from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from tests.cache.upstream import Upstream, sample


@pytest.mark.parametrize("planted", ["fifo", "enormous"])
def test_lc_26_what_is_planted_as_a_lock_file_keeps_nobody_waiting(
    tmp_path: Path, planted: str
) -> None:
    """Reading the note in it waited for ever, or took as much memory as somebody wanted."""
    what = sample()
    with SafeCache.open(CacheOptions(tmp_path / "c")) as cache:
        key = Key.of("blobs", what.descriptor.digest)
        path = tmp_path / "c/v1/locks/blobs-sha256" / key.hex[:2] / key.hex
        path.parent.mkdir(parents=True)
        if planted == "fifo":
            os.mkfifo(path)
        else:
            path.touch()
            os.truncate(path, 1 << 40)
        held = EntryLock(cache.store, key)
        assert held.try_acquire()
        waiting = EntryLock(cache.store, key)
        assert not waiting.try_acquire()
        assert waiting.note() is None
        held.release()
        layer = cache.layer(what.descriptor, what.diff_id, Upstream(what).fetch)
        assert layer.uncompressed().read() == what.plain


PLACES = [
    "blobs", "blobs/sha256", "blobs/sha256/{}", "layers", "tocs", "links", "quarantine",
    "index", "index/cache.db", "index/cache.db-wal", "notes", "notes/cache.db", "locks/evict",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_lc_26_nothing_is_removed_or_changed_through_a_symlink(tmp_path: Path, place: str) -> None:
    """Who shares a directory could have another's files removed by his eviction."""
    what = sample()
    prefix = what.descriptor.digest.hex[:2]
    options = CacheOptions(tmp_path / "c", max_bytes=1, grace=0.0)
    planted = options.directory / "v1" / place.format(prefix)
    victim = tmp_path / "victim"
    files = [victim / below / "file" for below in ("", "x", "x/y", prefix, "sha256", "sha256/ab")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("precious")
        os.utime(file, (1, 1))
    SafeCache.open(options).close()
    shutil.rmtree(planted, ignore_errors=True)
    planted.unlink(missing_ok=True)
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.symlink_to(files[0] if "cache.db" in place or "evict" in place else victim)

    with SafeCache.open(options) as cache:
        layer = cache.layer(what.descriptor, what.diff_id, Upstream(what).fetch)
        assert layer.uncompressed().read() == what.plain
        content = cache.content()
        assert content is not None
        content.note("name", "text")
        list(cache.upkeep().verify())
        cache.collect()
        cache.upkeep().clear()
        cache.usage()
    assert [file.read_text() for file in files] == ["precious"] * len(files)
    assert not list(victim.glob("cache.db*"))


def test_lc_26_nothing_is_removed_where_a_symlink_appears_between_looking_and_removing(
    tmp_path: Path,
) -> None:
    options = CacheOptions(tmp_path / "c", grace=0.0)
    victim = tmp_path / "victim"
    victim.mkdir()
    planted: list[Path] = []

    def plant(step: str, path: Path) -> None:
        # Just before the entry is opened to be removed, its directory is exchanged.
        if step == "open" and planted == [path]:
            path.parent.rename(tmp_path / "moved")
            (victim / path.name).write_text("precious")
            path.parent.symlink_to(victim)
            planted.append(victim / path.name)

    cache = SafeCache.open(options, before_step=plant)
    what = sample()
    cache.put(what.descriptor, Upstream(what).fetch)
    planted.append(cache.store.path(Key.of("blobs", what.descriptor.digest)))
    cache.upkeep().clear()
    assert planted[1].read_text() == "precious"
