"""The contract between processes: real ones, stopped and killed where it hurts."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.cache.upstream import sample
from tests.races.swarm import Stage

BOTH = ["compressed", "uncompressed"]
LARGE = sample("large", 3_000_000)

pytestmark = pytest.mark.slow


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path, sample())


def left(stage: Stage) -> list[Path]:
    return list(stage.cache.rglob("*.part"))


@pytest.mark.parametrize("views", [["compressed"], ["uncompressed"], BOTH])
def test_lc_08_processes_and_threads_together_make_one_request(
    stage: Stage, views: list[str]
) -> None:
    with stage.actors(*[{"threads": 4, "views": views, "wait_for_go": True}] * 4) as actors:
        for actor in actors:
            actor.until("ready")
        for actor in actors:
            actor.go()
        results = [result for actor in actors for result in actor.results(4)]
        stats = [actor.until("end")["stats"] for actor in actors]
    assert len(results) == 16
    assert stage.right(results)
    assert stage.offsets == [0]
    assert sum(s["transfers"] for s in stats) == 1
    assert sum(s["network_bytes"] for s in stats) == len(stage.sample.blob)
    for s in stats:
        assert s["requests"] == s["hits"] + s["leaders"] + s["coalesced"] + s["pass_through"] == 4


def test_lc_08_a_process_that_comes_in_the_middle_waits_for_the_other(stage: Stage) -> None:
    with stage.actors({"hold_at": 100_000}) as [first]:
        first.until("holding")
        with stage.actors({"threads": 2, "views": BOTH}) as [second]:
            second.until("watching")
            first.go()
            assert stage.right(second.results(2))
            assert second.until("end")["stats"]["coalesced"] >= 1
        assert stage.right(first.results(1))
    assert stage.offsets == [0]


def test_lc_09_processes_do_not_wait_for_another_digest(tmp_path: Path) -> None:
    slow, quick = Stage(tmp_path, sample("slow")), sample("quick")
    other = tmp_path / "other"
    other.mkdir()
    quick_stage = Stage(other, quick)
    quick_stage.cache = slow.cache
    with slow.actors({"hold_at": 1000}) as [first]:
        first.until("holding")
        with quick_stage.actors({"views": BOTH, "threads": 2}) as [second]:
            assert quick_stage.right(second.results(2))
        first.go()
        assert slow.right(first.results(1))


def test_lc_11_waiters_in_other_processes_raise_too_and_do_not_repeat_the_attempt(
    stage: Stage,
) -> None:
    failing = {"hold_at": 50_000, "fail_at": 50_000, "threads": 2}
    with stage.actors(failing) as [leader]:
        leader.until("holding")
        with stage.actors({"threads": 2}, {"threads": 2, "views": ["uncompressed"]}) as waiters:
            for waiter in waiters:
                waiter.until("watching")
            leader.go()
            results = leader.results(2) + [r for w in waiters for r in w.results(2)]
    assert [r["error"] for r in results] == ["RegistryUnreachable"] * 6
    assert {r["message"] for r in results} == {"registry.test/app: went away"}
    assert stage.offsets == [0]  # LC-13


def test_lc_12_a_failure_in_one_process_is_not_remembered_by_the_next(stage: Stage) -> None:
    with stage.actors({"fail_at": 50_000}) as [first]:
        assert [r["error"] for r in first.results(1)] == ["RegistryUnreachable"]
        first.until("end")
    with stage.actors({}) as [second]:
        assert stage.right(second.results(1))
    assert stage.offsets == [0, 0]


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99, 1.0])
def test_lc_17_waiting_processes_go_on_when_the_one_they_wait_for_is_killed(
    stage: Stage, part: float
) -> None:
    where = int(len(stage.sample.blob) * part)
    with stage.actors({"hold_at": where}) as [leader]:
        leader.until("holding")
        with stage.actors({"threads": 2, "views": BOTH}, {"threads": 2}) as waiters:
            for waiter in waiters:
                waiter.until("ready")
            leader.kill()
            assert stage.right([r for w in waiters for r in w.results(2)])
            for waiter in waiters:
                waiter.until("end")
    # All bytes may have been there, only the name was missing.
    assert len(stage.offsets) == (1 if part > 0.98 else 2)
    assert left(stage) == []


def test_lc_18_a_successor_goes_on_where_the_killed_one_stopped(tmp_path: Path) -> None:
    stage = Stage(tmp_path, LARGE)
    where = int(len(LARGE.blob) * 0.9)
    with stage.actors({"hold_at": where}) as [leader]:
        offset = leader.until("holding")["offset"]
        leader.kill()
    with stage.actors({"views": BOTH, "threads": 2}) as [successor]:
        assert stage.right(successor.results(2))
        stats = successor.until("end")["stats"]
    assert stage.offsets == [0, offset]
    assert stats["resumed_bytes"] == offset
    assert stats["network_bytes"] == len(LARGE.blob) - offset
    assert left(stage) == []


def test_lc_18_a_damaged_leftover_costs_a_download_from_zero_and_nothing_else(
    tmp_path: Path,
) -> None:
    stage = Stage(tmp_path, LARGE)
    with stage.actors({"hold_at": 2_000_000}) as [leader]:
        leader.until("holding")
        leader.kill()
    (partial,) = left(stage)
    with partial.open("r+b") as file:
        file.write(b"\0" * 4096)  # as after a loss of power
    with stage.actors({}) as [successor]:
        assert stage.right(successor.results(1))
    assert stage.offsets[0] == 0
    assert stage.offsets[-1] == 0
    assert left(stage) == []


def test_a_holder_that_is_stopped_is_overtaken_when_patience_ends(stage: Stage) -> None:
    with stage.actors({"hold_at": 1000}) as [leader]:
        leader.until("holding")
        leader.signal(signal.SIGSTOP)
        with stage.actors({"options": {"patience": 0.3}}) as [other]:
            assert stage.right(other.results(1))
            assert other.until("end")["stats"]["takeovers"] == 1
        leader.signal(signal.SIGCONT)
        leader.go()
        assert stage.right(leader.results(1))
    assert left(stage) == []


def test_lc_19_a_forked_child_keeps_no_lock_and_writes_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path, sample())
    with stage.actors({"hold_at": 100_000, "fork_at": 50_000}) as [leader]:
        orphan = leader.until("forked")["pid"]
        try:
            leader.until("holding")
            leader.kill()
            with stage.actors({}) as [other]:
                assert stage.right(other.results(1))  # while the orphan lives
                assert Path(f"/proc/{orphan}").exists()
        finally:
            os.kill(orphan, signal.SIGKILL)
    assert len(stage.offsets) == 2


FOLLOWER = {"views": ["stream"], "threads": 3, "read_first": 1_000_000}


def test_lc_35_a_second_process_streams_what_the_first_one_is_still_downloading(
    tmp_path: Path,
) -> None:
    stage = Stage(tmp_path, LARGE)
    with stage.actors({"hold_at": 2_000_000}) as [leader]:
        leader.until("holding")
        with stage.actors(FOLLOWER) as [follower]:
            for _ in range(3):
                follower.until("began")  # a million bytes were read, and the leader still stands
            leader.go()
            assert stage.right(leader.results(1) + follower.results(3))
            stats = follower.until("end")["stats"]
    assert stage.offsets == [0]
    assert stats["network_bytes"] == 0
    assert stats["requests"] == stats["coalesced"] == 3


def test_lc_35_followers_survive_that_the_leader_is_killed(tmp_path: Path) -> None:
    stage = Stage(tmp_path, LARGE)
    with stage.actors({"hold_at": 2_000_000}) as [leader]:
        offset = leader.until("holding")["offset"]
        with stage.actors(FOLLOWER) as [follower]:
            for _ in range(3):
                follower.until("began")
            leader.kill()
            assert stage.right(follower.results(3))
            follower.until("end")
    assert stage.offsets == [0, offset]
    assert left(stage) == []


def test_lc_33_a_follower_that_is_killed_takes_nothing_from_the_leader(tmp_path: Path) -> None:
    stage = Stage(tmp_path, LARGE)
    with stage.actors({"hold_at": 2_000_000}) as [leader]:
        leader.until("holding")
        with stage.actors(FOLLOWER) as [follower]:
            follower.until("began")
            follower.kill()
        leader.go()
        assert stage.right(leader.results(1))
    assert stage.offsets == [0]


def test_lc_34_a_bad_end_raises_in_the_followers_of_other_processes(tmp_path: Path) -> None:
    stage = Stage(tmp_path, LARGE)
    with stage.actors({"hold_at": 2_000_000, "fail_at": 2_000_000}) as [leader]:
        leader.until("holding")
        with stage.actors(FOLLOWER) as [follower]:
            for _ in range(3):
                follower.until("began")
            leader.go()
            results = leader.results(1) + follower.results(3)
    assert [r["error"] for r in results] == ["RegistryUnreachable"] * 4
    assert stage.offsets == [0]
