"""Layers are unpacked by as many threads as there are cores; who waits for bytes leaves its core to others."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from conforma.cache import derive
from conforma.cache.cores import Cores
from conforma.cache.disk import AREAS
from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.cancellation import Cancellation
from conforma.errors import DigestMismatch, Interrupted
from conforma.oci.digest import DiffID
from conforma.serve.images import Member, layer_of, random_member, tar_of
from tests.cache.upstream import PATIENCE, Gate, Sample, Upstream, together


class Enough(Exception):
    """Says that whoever waits is not wanted any more."""


def never() -> None:
    """Nothing ends the waiting."""


def give_up() -> None:
    raise Enough


def test_as_many_threads_as_there_are_cores_go_on_and_the_next_one_waits() -> None:
    cores = Cores(2)
    inside, leave = threading.Semaphore(0), threading.Event()

    def work() -> None:
        with cores.one(never):
            inside.release()
            assert leave.wait(PATIENCE)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert inside.acquire(timeout=PATIENCE) and inside.acquire(timeout=PATIENCE)
    with pytest.raises(Enough), cores.one(give_up):
        pytest.fail("there was a third core")
    assert not inside.acquire(blocking=False)
    leave.set()
    assert inside.acquire(timeout=PATIENCE)
    for thread in threads:
        thread.join(PATIENCE)
    with cores.one(give_up), cores.one(give_up):
        pass  # both were given back


def test_who_rests_leaves_the_core_to_others_and_has_it_again_afterwards() -> None:
    cores = Cores(1)
    with cores.one(give_up) as core:
        with core.rest(), cores.one(give_up):
            pass
        with pytest.raises(Enough), cores.one(give_up):
            pytest.fail("it was not taken again")
    with core.rest():  # nothing is held any more, so nothing is given away
        pass
    with cores.one(give_up), pytest.raises(Enough), cores.one(give_up):
        pytest.fail("there are two now")


def test_who_is_not_wanted_any_more_gives_up_resting_and_holds_nothing() -> None:
    cores = Cores(1)
    wanted = True

    def check() -> None:
        if not wanted:
            raise Enough

    with pytest.raises(Enough), cores.one(check) as core, core.rest():
        other = cores.one(check)
        other.__enter__()
        wanted = False
    other.__exit__(None, None, None)
    with cores.one(give_up):
        pass


def test_a_forked_child_has_all_the_cores() -> None:
    cores = Cores(1)
    with cores.one(give_up):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with cores.one(give_up):
                    status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0


@pytest.fixture(params=[1, 2], ids=["one core", "two cores"])
def cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[SafeCache]:
    monkeypatch.setattr(derive, "Cores", partial(Cores, request.param))
    with SafeCache.open(CacheOptions(tmp_path)) as made:
        yield made


def upstream_of_files(seed: int = 0) -> tuple[Upstream, list[Member]]:
    members = [random_member(f"usr/{n}", 400_000, 100 * seed + n) for n in range(9)]
    made = layer_of(members, level=1)
    return Upstream(Sample(tar_of(members), made.blob, made.media_type)), members


def test_a_layer_whose_download_stands_still_keeps_no_other_from_being_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derive, "Cores", partial(Cores, 1))
    slow, quick = upstream_of_files(1)[0], upstream_of_files(2)[0]
    gate = slow.hold[1_000_000] = Gate()
    with SafeCache.open(CacheOptions(tmp_path)) as cache:
        read: list[bytes] = []

        def unpack() -> None:
            layer = cache.layer(slow.sample.descriptor, slow.sample.diff_id, slow.fetch)
            with layer.uncompressed() as plain:
                read.append(plain.read())

        thread = threading.Thread(target=unpack, daemon=True)
        thread.start()
        gate.wait_reached()
        layer = cache.layer(quick.sample.descriptor, quick.sample.diff_id, quick.fetch)
        with layer.uncompressed() as plain:
            assert plain.read() == quick.sample.plain
        assert not read
        gate.open()
        thread.join(PATIENCE)
        assert read == [slow.sample.plain]


def test_who_waits_for_a_core_gives_up_when_nobody_wants_its_layer_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(derive, "Cores", partial(Cores, 1))
    upstream, _ = upstream_of_files()
    gate = upstream.hold[1_000_000] = Gate()
    cancellation = Cancellation()
    with SafeCache.open(CacheOptions(tmp_path)) as cache:
        layer = cache.layer(upstream.sample.descriptor, upstream.sample.diff_id, upstream.fetch)
        with cache._derivation._cores.one(never):
            caller = together(1, lambda _: layer.uncompressed(cancellation), wait=False)
            gate.wait_reached()
            name = f"fill links/{layer.digest}"
            (fill,) = [thread for thread in threading.enumerate() if thread.name == name]
            cancellation.cancel()
            assert [type(error) for error in caller.join().errors] == [Interrupted]
            fill.join(PATIENCE)
            assert not fill.is_alive()
        gate.open()


def test_lc_4_layers_unpacked_at_the_same_time_are_right_however_many_cores_there_are(
    cache: SafeCache,
) -> None:
    made = [upstream_of_files(seed) for seed in range(4)]
    failures: list[str] = []

    def check(upstream: Upstream, members: list[Member]) -> None:
        sample = upstream.sample
        layer = cache.layer(sample.descriptor, sample.diff_id, upstream.fetch)
        with layer.uncompressed() as plain:
            if plain.read() != sample.plain:
                failures.append("the tar is not the layer's")
        contents = layer.contents()
        for member in members:
            row = contents.toc.row(contents.toc.find(member.path.replace("/", "\0").encode()))
            if contents.read(row, member.path, 1 << 20) != member.data:
                failures.append(member.path)

    threads = [threading.Thread(target=check, args=one, daemon=True) for one in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert failures == []
    assert [upstream.requests for upstream, _ in made] == [1] * 4


def test_lc_4_a_layer_with_another_diff_id_is_not_published_and_leaves_its_core(
    cache: SafeCache,
) -> None:
    for seed in range(3):
        upstream, _ = upstream_of_files(seed)
        layer = cache.layer(upstream.sample.descriptor, DiffID.of(b"another"), upstream.fetch)
        with pytest.raises(DigestMismatch):
            layer.uncompressed()
    cache.close()
    kept = {path.relative_to(cache.store.root).parts[0] for path in entries(cache)}
    assert kept == {"blobs"}


def entries(cache: SafeCache) -> list[Path]:
    return [p for area in AREAS for p in (cache.store.root / area).rglob("*") if p.is_file()]
