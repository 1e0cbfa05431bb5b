"""Hashing, listing and writing a layer beside inflating it: in order, complete, bounded, and only for a lone one."""

from __future__ import annotations

import errno
import os
import threading
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import pytest

from conforma.cache import aside, derive
from conforma.cache.aside import Aside
from conforma.cache.cores import Cores
from conforma.cache.disk import AREAS
from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.cache.tables import TableMaker
from conforma.cancellation import Cancellation
from conforma.errors import BadArchive, CacheUnusable, DigestMismatch, Interrupted
from conforma.oci.digest import DiffID
from conforma.serve.images import Member, layer_of, random_member, tar_of
from tests.cache.upstream import PATIENCE, Gate, Sample, Upstream, together

PIECES = [bytes([n]) * 600_000 for n in range(24)]
"""More than is worth a thread from the second on; each is a batch."""
AHEAD = 4


def always() -> bool:
    """A core is free all the time."""
    return True


def test_pieces_are_worked_on_in_order_and_all_of_them_beside_their_maker() -> None:
    seen: list[bytes] = []
    threads: list[int] = []

    def work(piece: bytes) -> None:
        seen.append(piece)
        threads.append(threading.get_ident())

    with Aside(work, always) as apart:
        for piece in PIECES:
            apart.feed(piece)
        apart.finish()
        assert seen == PIECES
    assert threads[0] == threading.get_ident()  # what is short is not worth a thread
    assert len(set(threads[1:])) == 1
    assert threads[1] != threads[0]


def test_small_pieces_are_handed_over_together_and_the_last_ones_at_the_end() -> None:
    seen: list[bytes] = []
    small = [bytes([n]) * 100_000 for n in range(33)]
    with Aside(seen.append, always) as apart:
        for piece in small:
            apart.feed(piece)
        assert seen != small
        apart.finish()
        assert seen == small


def test_where_no_core_is_free_the_maker_works_itself_after_what_was_handed_over() -> None:
    seen: list[tuple[bytes, int]] = []
    spare = False
    with Aside(lambda piece: seen.append((piece, threading.get_ident())), lambda: spare) as apart:
        for number, piece in enumerate(PIECES):
            spare = 8 <= number < 16
            apart.feed(piece)
            if not spare:  # nothing waits any more
                assert len(seen) == number + 1
        apart.finish()
    assert [piece for piece, _ in seen] == PIECES
    here = [number for number, (_, thread) in enumerate(seen) if thread == threading.get_ident()]
    assert here == [*range(8), *range(16, 24)]


def test_without_a_thread_to_be_had_the_maker_works_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def refuse(thread: threading.Thread) -> None:
        started.append(thread.name)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    seen: list[bytes] = []
    with Aside(seen.append, always) as apart:
        for piece in PIECES:
            apart.feed(piece)
        apart.finish()
        assert seen == PIECES
    assert len(started) == 1  # it is not asked for again and again


def test_what_the_work_raises_is_raised_where_the_pieces_are_made() -> None:
    def work(piece: bytes) -> None:
        if piece == PIECES[3]:
            raise KeyError("piece 3")
        assert piece in PIECES[:3], "worked on after the failure"

    with pytest.raises(KeyError, match="piece 3"), Aside(work, always) as apart:
        for piece in PIECES:
            apart.feed(piece)
    with pytest.raises(KeyError, match="piece 3"), Aside(work, always) as apart:
        for piece in PIECES[:4]:
            apart.feed(piece)
        apart.finish()


def test_a_maker_that_fails_leaves_no_thread_and_no_work_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[bytes] = []
    begun, go_on = threading.Event(), threading.Event()

    def work(piece: bytes) -> None:
        seen.append(piece)
        if len(seen) == 2:
            begun.set()
            assert go_on.wait(PATIENCE)

    def join(thread: threading.Thread, timeout: float | None = None) -> None:
        go_on.set()
        joined(thread, timeout)

    joined = threading.Thread.join
    monkeypatch.setattr(threading.Thread, "join", join)
    with pytest.raises(KeyError, match="maker"), Aside(work, always) as apart:
        for piece in PIECES[:5]:
            apart.feed(piece)
        assert begun.wait(PATIENCE)
        raise KeyError("maker")
    assert seen == PIECES[:2]
    assert go_on.is_set(), "the thread was not waited for"


def test_lc_38_the_maker_waits_when_it_is_some_batches_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maker, go_on = threading.current_thread(), threading.Event()
    fed = 0
    waited_after: list[int] = []

    class Watched(SimpleQueue[None]):
        """Tells when the maker has to wait for a place."""

        def get(self, block: bool = True, timeout: float | None = None) -> None:
            if threading.current_thread() is maker and self.empty():
                waited_after.append(fed)
                go_on.set()
            return super().get(block, timeout)

    def work(piece: bytes) -> None:
        if piece != PIECES[0]:
            assert go_on.wait(PATIENCE), "the maker never waits"

    monkeypatch.setattr(aside, "SimpleQueue", Watched)
    with Aside(work, always) as apart:
        for piece in PIECES:
            apart.feed(piece)
            fed += 1
        apart.finish()
    assert waited_after[0] == 1 + AHEAD


def test_a_core_has_nothing_to_do_while_one_layer_alone_is_on_its_way() -> None:
    cores = Cores(2)
    assert not cores.spare()
    with cores.one(pytest.fail) as core:
        assert cores.spare()
        with cores.one(pytest.fail):
            assert not cores.spare()
            with core.rest():  # it waits for bytes, and will want its core again
                assert not cores.spare()
        assert cores.spare()
        child = os.fork()
        if child == 0:
            os._exit(cores.spare())
        assert os.waitpid(child, 0)[1] == 0
    assert not cores.spare()
    with (single := Cores(1)).one(pytest.fail):
        assert not single.spare()


def upstream_of_files(seed: int = 0) -> tuple[Upstream, list[Member]]:
    members = [random_member(f"usr/{n}", 400_000, 100 * seed + n) for n in range(9)]
    made = layer_of(members, level=1)
    return Upstream(Sample(tar_of(members), made.blob, made.media_type)), members


class Workers:
    """The names of the threads that hash, list and write."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.both = threading.Event()

    def add(self) -> None:
        self.names.add(threading.current_thread().name)
        if len(self.names) == 2:
            self.both.set()

    def join(self) -> None:
        for thread in threading.enumerate():
            if thread.name in self.names:
                thread.join(PATIENCE)
                assert not thread.is_alive()


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Workers:
    """Those of the only layer of the test, which is on its way while there are two cores."""
    seen = Workers()

    class Watched(TableMaker):
        def feed(self, piece: bytes) -> None:
            seen.add()
            super().feed(piece)

    monkeypatch.setattr(derive, "TableMaker", Watched)
    monkeypatch.setattr(derive, "Cores", partial(Cores, 2))
    return seen


def kept(cache: SafeCache) -> set[str]:
    """The kinds of files there are once the cache is closed, partials too."""
    cache.close()
    root = cache.store.root
    found = {p for area in AREAS for p in (root / area).rglob("*") if p.is_file()}
    return {p.suffix or p.relative_to(root).parts[0] for p in found}


def test_lc_4_a_lone_layer_is_made_by_two_threads_and_is_right(
    tmp_path: Path, workers: Workers
) -> None:
    upstream, members = upstream_of_files()
    with SafeCache.open(CacheOptions(tmp_path)) as cache:
        layer = cache.layer(upstream.sample.descriptor, upstream.sample.diff_id, upstream.fetch)
        with layer.uncompressed() as plain:
            assert plain.read() == upstream.sample.plain
        contents = layer.contents()
        for member in members:
            row = contents.toc.row(contents.toc.find(member.path.replace("/", "\0").encode()))
            assert contents.read(row, member.path, 1 << 20) == member.data
        assert upstream.requests == 1
    assert len(workers.names) == 2
    assert kept(cache) == {"blobs", "layers", "links", "tocs"}


def test_lc_4_a_lone_layer_with_another_diff_id_is_not_published(
    tmp_path: Path, workers: Workers
) -> None:
    upstream, _ = upstream_of_files()
    with SafeCache.open(CacheOptions(tmp_path)) as cache:
        layer = cache.layer(upstream.sample.descriptor, DiffID.of(b"another"), upstream.fetch)
        with pytest.raises(DigestMismatch):
            layer.uncompressed()
    assert len(workers.names) == 2
    assert kept(cache) == {"blobs"}


def test_a_lone_layer_that_cannot_be_unpacked_to_its_end_leaves_no_plain_tar_and_no_thread(
    tmp_path: Path, workers: Workers
) -> None:
    whole = upstream_of_files()[0].sample
    cut = Upstream(Sample(whole.plain, whole.blob[: 3 << 20], whole.media_type))
    gate = cut.hold[2_900_000] = Gate()
    with SafeCache.open(CacheOptions(tmp_path)) as cache:
        layer = cache.layer(cut.sample.descriptor, cut.sample.diff_id, cut.fetch)
        caller = together(1, lambda _: layer.uncompressed(), wait=False)
        assert workers.both.wait(PATIENCE)
        gate.open()
        (error,) = caller.join().errors
        assert isinstance(error, BadArchive)
        assert "ends early" in str(error)
        workers.join()
    assert len(workers.names) == 2
    assert kept(cache) == {"blobs"}


def test_lc_14_a_lone_layer_that_nobody_wants_any_more_leaves_nothing(
    tmp_path: Path, workers: Workers
) -> None:
    upstream, _ = upstream_of_files()
    gate = upstream.hold[3_000_000] = Gate()
    cancellation = Cancellation()
    with SafeCache.open(CacheOptions(tmp_path)) as cache:
        layer = cache.layer(upstream.sample.descriptor, upstream.sample.diff_id, upstream.fetch)
        caller = together(1, lambda _: layer.uncompressed(cancellation), wait=False)
        assert workers.both.wait(PATIENCE)
        gate.wait_reached()
        cancellation.cancel()
        assert isinstance(caller.join().errors[0], Interrupted)
        workers.join()
        gate.open()
        assert upstream.ended.wait(PATIENCE)
    assert kept(cache) <= {".part"}  # of the blob, for whoever resumes it
    assert not list((tmp_path / "v1" / "links").rglob("*.part"))


@pytest.mark.parametrize("strict", [False, True])
def test_lc_22_a_disk_that_fills_up_under_a_lone_layer(
    tmp_path: Path, workers: Workers, strict: bool
) -> None:
    written: list[str] = []

    def before(name: str, path: Path) -> None:
        if name == "write" and "links" in path.parts:
            written.append(threading.current_thread().name)
            if len(set(written)) == 2:  # the second of the threads is writing by now
                raise OSError(errno.ENOSPC, "full")

    upstream, _ = upstream_of_files()
    options = CacheOptions(tmp_path, strict=strict)
    with SafeCache.open(options, before_step=before) as cache:
        layer = cache.layer(upstream.sample.descriptor, upstream.sample.diff_id, upstream.fetch)
        if strict:
            with pytest.raises(CacheUnusable, match="cannot store links/sha256"):
                layer.uncompressed()
        else:
            assert layer.uncompressed().read() == upstream.sample.plain
    assert set(written) == workers.names
    assert kept(cache) <= {"blobs", "tocs"}
