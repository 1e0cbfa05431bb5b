"""Hashing and listing a layer beside inflating it: in order, complete, bounded, and only where a core is free."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from conforma.cache import derive
from conforma.cache.aside import Aside, Cores
from conforma.cache.disk import AREAS
from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.errors import DigestMismatch
from conforma.oci.digest import DiffID
from conforma.serve.images import Member, layer_of, random_member, tar_of
from tests.cache.upstream import PATIENCE, Sample, Upstream

PIECES = [bytes([n]) * 100 for n in range(40)]


def test_pieces_are_worked_on_in_order_and_all_of_them_beside_their_maker() -> None:
    seen: list[bytes] = []
    threads: list[int] = []

    def work(piece: bytes) -> None:
        seen.append(piece)
        threads.append(threading.get_ident())

    with Aside(work, Cores(2)) as aside:
        for piece in PIECES:
            aside.feed(piece)
        aside.finish()
    assert seen == PIECES
    assert threads[0] == threading.get_ident()  # one piece is not worth a thread
    assert len(set(threads[1:])) == 1
    assert threads[1] != threads[0]


def test_where_no_core_is_free_the_maker_works_itself_until_one_is() -> None:
    threads: list[int] = []
    cores = Cores(2)
    cores.take()
    with Aside(lambda _: threads.append(threading.get_ident()), cores) as aside:
        for piece in PIECES[:5]:
            aside.feed(piece)
        assert set(threads) == {threading.get_ident()}
        cores.give_back()
        for piece in PIECES[5:]:
            aside.feed(piece)
        aside.finish()
    assert len(threads) == len(PIECES)
    assert threads.count(threading.get_ident()) == 5
    assert cores.take_spare()  # everything was given back
    assert cores.take_spare()
    assert not cores.take_spare()


def test_what_the_work_raises_is_raised_where_the_pieces_are_made() -> None:
    def work(piece: bytes) -> None:
        if piece == PIECES[3]:
            raise KeyError("piece 3")
        assert piece in PIECES[:3], "worked on after the failure"

    aside = Aside(work, Cores(2))
    with pytest.raises(KeyError, match="piece 3"), aside:
        for piece in PIECES:
            aside.feed(piece)
    aside = Aside(work, Cores(2))
    with pytest.raises(KeyError, match="piece 3"), aside:
        for piece in PIECES[:4]:
            aside.feed(piece)
        aside.finish()


def test_a_maker_that_fails_leaves_no_thread_and_no_work_behind() -> None:
    seen: list[bytes] = []
    begun, go_on = threading.Event(), threading.Event()

    def work(piece: bytes) -> None:
        seen.append(piece)
        if len(seen) == 2:
            begun.set()
            assert go_on.wait(PATIENCE)

    before = threading.active_count()
    aside = Aside(work, Cores(2))
    with pytest.raises(KeyError, match="maker"), aside:
        for piece in PIECES[:6]:
            aside.feed(piece)
        assert begun.wait(PATIENCE)
        threading.Timer(0.05, go_on.set).start()  # when it is being waited for
        raise KeyError("maker")
    assert seen == PIECES[:2]
    assert threading.active_count() <= before


def test_the_maker_is_never_more_than_eight_pieces_ahead() -> None:
    full, done = threading.Event(), threading.Event()
    go_on = threading.Event()
    fed = 0

    def work(piece: bytes) -> None:
        if piece != PIECES[0]:
            assert go_on.wait(PATIENCE)

    def make() -> None:
        nonlocal fed
        with Aside(work, Cores(2)) as aside:
            for piece in PIECES:
                aside.feed(piece)
                fed += 1
                if fed == 9:
                    full.set()
            aside.finish()
        done.set()

    threading.Thread(target=make, daemon=True).start()
    assert full.wait(PATIENCE)
    assert not done.wait(0.05)
    assert fed == 9
    go_on.set()
    assert done.wait(PATIENCE)
    assert fed == len(PIECES)


@pytest.fixture(params=[1, 2], ids=["no core free", "a core free"])
def cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[SafeCache]:
    monkeypatch.setattr(derive, "Cores", partial(Cores, request.param))
    with SafeCache.open(CacheOptions(tmp_path)) as made:
        yield made


def upstream_of_files() -> tuple[Upstream, list[Member]]:
    members = [random_member(f"usr/{n}", 400_000, n) for n in range(9)]
    made = layer_of(members, level=1)
    return Upstream(Sample(tar_of(members), made.blob, made.media_type)), members


def test_lc_4_a_layer_of_many_pieces_is_right_with_and_without_a_second_thread(
    cache: SafeCache,
) -> None:
    upstream, members = upstream_of_files()
    layer = cache.layer(upstream.sample.descriptor, upstream.sample.diff_id, upstream.fetch)
    with layer.uncompressed() as plain:
        assert plain.read() == upstream.sample.plain
    contents = layer.contents()
    for member in members:
        row = contents.toc.row(contents.toc.find(member.path.replace("/", "\0").encode()))
        assert contents.read(row, member.path, 1 << 20) == member.data
    assert upstream.requests == 1


def test_lc_4_a_layer_of_many_pieces_with_another_diff_id_is_not_published(
    cache: SafeCache,
) -> None:
    upstream, _ = upstream_of_files()
    layer = cache.layer(upstream.sample.descriptor, DiffID.of(b"another"), upstream.fetch)
    with pytest.raises(DigestMismatch):
        layer.uncompressed()
    cache.close()
    kept = {path.relative_to(cache.store.root).parts[0] for path in entries(cache)}
    assert kept == {"blobs"}


def entries(cache: SafeCache) -> list[Path]:
    return [p for area in AREAS for p in (cache.store.root / area).rglob("*") if p.is_file()]
