"""The contract of a batched metadata publisher: MP-1 to MP-14, each by its number."""

from __future__ import annotations

import json
import random
import select
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import SPECIFICATION_VERSION, Metadata, Targets

from conforma.errors import LedgerBusy, LedgerUnverified, OperationRefused, StaleRight
from conforma.ledger import keys, rendering
from conforma.ledger.config import DOORBELLS, TIMESTAMP
from conforma.ledger.doorbell import ring_all
from conforma.ledger.operation import Numbering, Operation, in_arrival_order
from conforma.ledger.publisher import Ticket
from conforma.ledger.state import SnapshotBody
from tests.ledger import witness
from tests.ledger.scenery import Place, WatchedSigner, queue

ROOT = Path(__file__).parents[2]
SECONDS = 60.0


def root_of(place: Place) -> bytes:
    return (place.directory / "metadata/1.root.json").read_bytes()


def run_module(module: str, *arguments: str, timeout: float = 240) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", f"tests.ledger.{module}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_mp_01_what_is_acknowledged_is_in_the_snapshot_that_is_published(place: Place) -> None:
    place.make()
    root = root_of(place)
    seen: list[tuple[str, bool]] = []

    def look(ticket: Ticket) -> None:
        # Called by the thread that learns the outcome, at that very moment.
        version, found = witness.current(place.directory, root)
        seen.append((ticket.operation.path, ticket.operation.path in found))
        assert version >= ticket.result(0)

    with place.open() as ledger, place.publisher(ledger) as publisher:

        def publish(name: int) -> None:
            for number in range(10):
                publisher.publish(f"p/sha256-{name}-{number}.json", b"x").when_done(look)

        together([lambda n=n: publish(n) for n in range(4)])
    assert len(seen) == 40 and all(there for _, there in seen)
    _, found = witness.current(place.directory, root)
    assert {path for path, _ in seen} == set(found)  # and in all later ones


def test_mp_02_the_acknowledgement_comes_after_the_timestamp_is_durable(place: Place) -> None:
    place.make()
    steps: list[str] = []

    def step(name: str, path: Path) -> None:
        steps.append(f"{name} {path.relative_to(place.directory).parts[0:2]}")
        if path == place.directory / TIMESTAMP:
            steps.append("switch")

    with place.open(before=step, parallel=1) as ledger, place.publisher(ledger) as publisher:
        publisher.publish("p/sha256-1.json", b"x").when_done(lambda _: steps.append("acknowledged"))
    switch, acknowledged = steps.index("switch"), steps.index("acknowledged")
    after = steps[switch:acknowledged]
    assert "sync_directory ('metadata',)" in after, "the switch is durable first"
    assert "unlink ('work', 'inbox')" in after and "unlink ('work', 'inbox')" not in steps[:switch]
    written = [name for name in steps[:switch] if name.startswith("create ('metadata'")]
    synced = [name for name in steps[:switch] if name.startswith("sync ('metadata'")]
    assert len(written) == len(synced) == 2  # bin and snapshot


def test_mp_03_versions_rise_by_one_and_no_versioned_file_is_ever_rewritten(place: Place) -> None:
    place.make()
    before: dict[str, tuple[int, bytes]] = {}
    with place.open() as ledger:
        committer, numbering = place.committer(ledger), Numbering()
        for number in range(6):
            for path in (place.directory / "metadata").iterdir():
                if path.name != "timestamp.json":
                    state = (path.stat().st_ino, path.read_bytes())
                    assert before.setdefault(path.name, state) == state
            queue(ledger, numbering, f"p/sha256-{number % 2}.json", b"%d" % number)
            record = committer.commit()
            assert record is not None and record.version == number + 2
            assert place.timestamp()["version"] == number + 2
            assert place.timestamp()["meta"]["snapshot.json"]["version"] == number + 2
    with place.open() as ledger, pytest.raises(FileExistsError):
        ledger.storage.create_all({"metadata/1.root.json": b"another"})


@pytest.mark.slow
def test_mp_04_a_reader_in_a_loop_never_meets_a_state_that_does_not_verify(place: Place) -> None:
    place.make(bins=8, rest=0.0)
    root = root_of(place)
    stop = threading.Event()
    problems: list[str] = []
    states: set[int] = set()

    def read() -> None:
        latest = 0
        while not stop.is_set():
            try:
                version, _ = witness.current(place.directory, root)
                assert version >= latest, "an older state"
            except Exception as error:
                problems.append(repr(error))
                return
            latest = version
            states.add(version)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    with place.open() as ledger:
        committer, numbering = place.committer(ledger), Numbering()
        for number in range(120):
            queue(ledger, numbering, f"p/sha256-{number}.json", b"%d" % number)
            committer.commit()
    stop.set()
    for reader in readers:
        reader.join()
    assert problems == []
    assert len(states) > 3


def test_mp_05_one_commit_takes_all_that_waits_and_writes_everything_once(place: Place) -> None:
    place.make()
    signed: list[str] = []
    with place.open() as ledger:
        signer = WatchedSigner(place.signer(ledger), signed.append)
        committer, numbering = place.committer(ledger, signer), Numbering()
        for number in range(50):
            queue(ledger, numbering, f"p/sha256-{number}.json", b"%d" % number)
        record = committer.commit()
        assert record is not None and len(record.outcomes) == 50
        assert committer.commit() is None  # nothing waits, so nothing is written
    assert sorted(signed) == ["snapshot", *["targets"] * 4, "timestamp"]  # each bin once
    assert signed[-2:] == ["snapshot", "timestamp"]
    assert place.files("metadata").count("2.snapshot.json") == 1


def test_mp_05_a_batch_is_bounded_by_count(place: Place) -> None:
    place.make(max_batch=8)
    with place.open() as ledger:
        committer, numbering = place.committer(ledger), Numbering()
        for number in range(20):
            queue(ledger, numbering, f"p/sha256-{number}.json", b"x")
        sizes = [len(record.outcomes) for record in iter(committer.commit, None)]
    assert sizes == [8, 8, 4]  # ceil(20 / 8) commits


def test_mp_06_arrivals_during_a_commit_form_the_next_batch(place: Place) -> None:
    place.make()
    entered, go_on = threading.Event(), threading.Event()

    def hold(role: str) -> None:
        if role == "timestamp" and not entered.is_set():
            entered.set()
            assert go_on.wait(SECONDS)

    with place.open() as ledger:
        signer = WatchedSigner(place.signer(ledger), hold)
        with place.publisher(ledger, signer) as publisher:
            first = publisher.publish("p/sha256-first.json", b"x")
            assert entered.wait(SECONDS)
            later = [publisher.publish(f"p/sha256-{n}.json", b"x") for n in range(30)]
            assert not first._future.done()  # publishing waited for nobody
            go_on.set()
            assert first.result(SECONDS) == 2
            assert {ticket.result(SECONDS) for ticket in later} == {3}


@pytest.mark.slow
def test_mp_06_who_waits_in_another_process_is_told_and_does_not_look(place: Place) -> None:
    place.make()
    actor = subprocess.Popen(
        [sys.executable, "-m", "tests.ledger.actor", str(place.base)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert actor.stdin is not None and actor.stdout is not None
    with place.open() as ledger:
        # While we hold the right, the actor cannot commit; it can only be told.
        ledger.right.acquire()
        actor.stdin.write("publish p/sha256-theirs.json\n")
        actor.stdin.flush()
        assert json.loads(actor.stdout.readline())["event"] == "dropped"
        record = place.committer(ledger).commit()
        assert record is not None and len(record.outcomes) == 1
        ready, _, _ = select.select([actor.stdout], [], [], 0.0)
        assert not ready, "it must not find out by looking"
        ring_all(place.directory)
        acknowledged = json.loads(actor.stdout.readline())
        assert acknowledged == {"event": "acknowledged", "version": 2}
        ledger.right.release()
    actor.communicate("", timeout=SECONDS)


@pytest.mark.slow
def test_mp_06_without_a_bell_the_right_itself_brings_the_news(place: Place) -> None:
    place.make()
    # As on another machine, whose named pipes are its own: here there is no place for any.
    bells = place.directory / DOORBELLS
    shutil.rmtree(bells)
    bells.write_text("")
    with place.open() as ledger, place.open() as other, place.publisher(ledger) as publisher:
        other.right.acquire()
        ticket = publisher.publish("p/sha256-1.json", b"x")
        assert place.committer(other).commit() is not None
        other.right.release()
        assert ticket.result(SECONDS) == 2


def test_mp_06_to_hear_of_a_commit_is_to_read_its_timestamp_and_record(place: Place) -> None:
    place.make()
    with place.open() as ledger, place.open() as other:
        operation = queue(ledger, Numbering(), "p/sha256-1.json", b"x")
        assert place.committer(ledger).commit() is not None
        # Everybody who waits hears of every commit, so nothing that grows with the ledger is read.
        (place.directory / "metadata/2.snapshot.json").unlink()
        other.history.learn(other.state.glance())
        outcome = other.history.get(operation.id)
        assert outcome is not None and outcome.version == 2
        with pytest.raises(LedgerUnverified, match=r"2\.snapshot\.json: is not there"):
            other.state.refresh()


def test_mp_06_a_timestamp_by_another_key_acknowledges_nothing(place: Place) -> None:
    place.make()
    stranger = keys.generate(place.base / "other", "online", {})
    with place.open() as other:
        with place.open() as ledger:
            queue(ledger, Numbering(), "p/sha256-1.json", b"x")
            assert place.committer(ledger).commit() is not None
        body = Metadata[Any].from_file(str(place.directory / TIMESTAMP)).signed_bytes
        forged = rendering.with_signatures(body, [stranger.sign(body)])
        (place.directory / TIMESTAMP).write_bytes(forged)
        with pytest.raises(LedgerUnverified, match="timestamp was signed by 0/1 keys"):
            other.state.glance()


def test_mp_07_only_snapshot_and_timestamp_are_serial(place: Place) -> None:
    place.make(bins=4)
    both = threading.Barrier(2, timeout=SECONDS)
    order: list[str] = []

    def meet(role: str) -> None:
        order.append(role)
        if role == "targets":
            both.wait()  # passes only if two bins are being signed at the same time

    with place.open(parallel=2) as ledger:
        committer = place.committer(ledger, WatchedSigner(place.signer(ledger), meet))
        numbering = Numbering()
        roles: dict[str, str] = {}
        number = 0
        while len(roles) < 2:
            path = f"p/sha256-{number}.json"
            roles.setdefault(ledger.state.bins.get_role_for_target(path), path)
            number += 1
        # Preparing is the publishers' work and needs no right: somebody else holds it.
        with place.open() as other:
            other.right.acquire()
            together(
                [lambda path=path: queue(ledger, numbering, path, b"x") for path in roles.values()]
            )
            other.right.release()
        assert committer.commit() is not None
    assert order[-2:] == ["snapshot", "timestamp"]


def test_mp_08_a_stale_holder_cannot_publish(place: Place) -> None:
    """Both believe to hold the right, as after a lock was lost; the later claim wins."""
    place.make()
    entered, go_on = threading.Event(), threading.Event()
    outcome: list[object] = []

    def hold(role: str) -> None:
        if role == "timestamp":
            entered.set()
            assert go_on.wait(SECONDS)

    with place.open() as first, place.open() as second:
        numbering = Numbering()
        queue(first, numbering, "p/sha256-1.json", b"1")
        stale = place.committer(first, WatchedSigner(place.signer(first), hold))

        def commit() -> None:
            try:
                outcome.append(stale.commit())
            except StaleRight as error:
                outcome.append(error)

        thread = threading.Thread(target=commit)
        thread.start()
        assert entered.wait(SECONDS)
        record = place.committer(second).commit()
        assert record is not None and record.version == 2
        published = (place.directory / TIMESTAMP).read_bytes()
        go_on.set()
        thread.join()
        assert isinstance(outcome[0], StaleRight)
        assert (place.directory / TIMESTAMP).read_bytes() == published
        assert place.committer(second).commit() is None  # it was committed, once
    witness.current(place.directory, root_of(place))


@pytest.mark.slow
def test_mp_08_the_right_dies_with_its_holder(place: Place) -> None:
    place.make()
    actor = subprocess.Popen(
        [sys.executable, "-m", "tests.ledger.actor", str(place.base)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert actor.stdin is not None and actor.stdout is not None
    actor.stdin.write("hold\n")
    actor.stdin.flush()
    assert json.loads(actor.stdout.readline())["event"] == "holding"
    with place.open() as ledger, place.publisher(ledger) as publisher:
        ticket = publisher.publish("p/sha256-1.json", b"x")
        with pytest.raises(LedgerBusy, match="was not committed within"):
            ticket.result(0)
        actor.kill()
        actor.wait()
        assert ticket.result(SECONDS) == 2
    actor.stdin.close()
    actor.stdout.close()


def test_mp_09_renewing_goes_through_the_same_commits(place: Place) -> None:
    place.make(bins=8)
    with place.open() as ledger, place.publisher(ledger) as publisher:
        bump = publisher.bump(everything=True)
        adds = [publisher.publish(f"p/sha256-{n}.json", b"x") for n in range(20)]
        versions = {ticket.result(SECONDS) for ticket in [bump, *adds]}
    version, found = witness.current(place.directory, root_of(place))
    assert len(found) == 20 and max(versions) == version
    assert [record.version for record in place.records()] == list(range(2, version + 1))
    assert all(number >= 2 for number in newest(place).values())


def newest(place: Place) -> dict[str, int]:
    with place.open() as ledger:
        versions = ledger.state.snapshot.versions
        return {role: number for role, number in versions.items() if role.startswith("bins")}


def test_mp_09_a_bump_renews_only_the_bins_that_are_due(place: Place) -> None:
    place.make(bins=4, bins_lifetime=900.0)
    now = time.time()
    with place.open() as ledger:
        early = place.committer(ledger, clock=lambda: now)
        queue(ledger, Numbering(), "p/sha256-1.json", b"x")
        assert early.commit() is not None
        late = place.committer(ledger, clock=lambda: now + 250)
        ledger.inbox.drop(Operation(Numbering().next(), kind="bump"))
        assert late.commit() is not None
        assert sorted(newest(place).values()) == [1, 1, 1, 2]
        last = place.committer(ledger, clock=lambda: now + 299)
        queue(ledger, Numbering(), "p/sha256-1.json", b"y")
        assert last.commit() is not None
    assert place.timestamp()["version"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["kill", "power"])
def test_mp_10_a_kill_before_any_step_loses_doubles_and_breaks_nothing(
    tmp_path: Path, mode: str
) -> None:
    reports = run_module("crashes", str(tmp_path), mode)
    assert len(reports) > 20  # every step of the commit, not a few of them
    assert [report["finished"] for report in reports] == [False] * (len(reports) - 1) + [True]
    assert {report["seen"] for report in reports} == {2, 3}  # before the switch, and after it
    for report in reports:
        assert report["right"], report
        assert report["doubled"] == 0, report
        assert report["versions"] == list(range(2, report["version"] + 1)), report
        assert report["left"] == 0, report
        assert report["recovered"] == (report["seen"] == 2), report


@pytest.mark.slow
def test_mp_10_publishers_that_die_at_random_lose_nothing(tmp_path: Path) -> None:
    (total,) = run_module("swarm", str(tmp_path), "12", "8")
    assert total["kills"] >= 12 and total["acked"] >= 25 and total["looks"] > 5
    assert (total["lost"], total["doubled"], total["stale"], total["queued"]) == (0, 0, 0, 0)
    assert total["versions"] is True


def test_mp_10_an_orphan_of_a_dead_commit_is_never_a_base(place: Place) -> None:
    place.make(bins=2)
    with place.open() as ledger:
        numbering = Numbering()
        queue(ledger, numbering, "p/sha256-1.json", b"1")
        place.committer(ledger).commit()
    metadata = place.directory / "metadata"
    for role in ("bins-0", "bins-1", "snapshot"):
        for version in (2, 3, 9):
            target = metadata / f"{version}.{role}.json"
            if not target.exists():
                target.write_bytes(b'{"signatures":[],"signed":{"left":"by the dead"}}')
    with place.open() as ledger:
        (place.directory / "work/claims/000000000099-dead").touch()
        queue(ledger, Numbering(), "p/sha256-2.json", b"2")
        record = place.committer(ledger).commit()
    assert record is not None and record.version == 3
    version, found = witness.current(place.directory, root_of(place))
    assert (version, found) == (3, {"p/sha256-1.json": b"1", "p/sha256-2.json": b"2"})
    assert not (metadata / "9.snapshot.json").exists()


def test_mp_10_dropping_the_same_operation_again_does_not_apply_it_again(place: Place) -> None:
    place.make()
    with place.open() as ledger:
        numbering = Numbering()
        old = queue(ledger, numbering, "p/sha256-1.json", b"old")
        place.committer(ledger).commit()
        queue(ledger, numbering, "p/sha256-1.json", b"new")
        place.committer(ledger).commit()
        ledger.inbox.drop(old)  # the publisher died before it heard, and tries again
    with place.open() as ledger:
        assert place.committer(ledger).commit() is None
        with place.publisher(ledger) as publisher:
            assert publisher.submit(old).result(SECONDS) == 2  # and this is what became of it
    _, found = witness.current(place.directory, root_of(place))
    assert found == {"p/sha256-1.json": b"new"}


def test_mp_10_who_submits_what_is_waiting_shares_its_outcome(place: Place) -> None:
    place.make()
    begun, go_on = threading.Event(), threading.Event()

    def step(name: str, path: Path) -> None:
        if name == "rename" and path == place.directory / TIMESTAMP:
            begun.set()
            go_on.wait(SECONDS)

    with place.open(before=step) as ledger, place.publisher(ledger) as publisher:
        first = publisher.publish("p/sha256-1.json", b"x")
        assert begun.wait(SECONDS)
        second = publisher.submit(first.operation)
        go_on.set()
        assert first.result(SECONDS) == second.result(SECONDS) == 2


def bad_operations() -> dict[str, Callable[[Place, str], bytes]]:
    def document(**changes: Any) -> Callable[[Place, str], bytes]:
        def render(place: Place, operation_id: str) -> bytes:
            good = json.loads(
                Operation(operation_id, path="p/sha256-x.json", sha256="0" * 64).render()
            )
            return json.dumps(good | changes).encode()

        return render

    return {
        "not json": lambda place, operation_id: b"{",
        "not an object": lambda place, operation_id: b"[1]",
        "nothing": lambda place, operation_id: b"",
        "nested without end": lambda place, operation_id: b"[" * 100_000,
        "a bump of something": document(kind="bump", everything="bins"),
        "another id": document(id=Numbering().next()),
        "walking up": document(path="../../etc/passwd"),
        "absolute": document(path="/etc/passwd"),
        "control character": document(path="p/a\nb.json"),
        "bad hash": document(sha256="xyz"),
        "negative": document(length=-1),
        "custom object": document(custom={"a": {"b": "c"}}),
        "unknown kind": document(kind="destroy"),
        "content not there": document(length=5, sha256="1" * 64),
    }


@pytest.mark.parametrize("name", bad_operations())
def test_mp_11_a_bad_operation_fails_alone(place: Place, name: str) -> None:
    place.make()
    with place.open() as ledger:
        numbering = Numbering()
        queue(ledger, numbering, "p/sha256-1.json", b"1")
        bad = numbering.next()
        raw = bad_operations()[name](place, bad)
        (place.directory / f"work/inbox/{bad}.json").write_bytes(raw)
        queue(ledger, numbering, "p/sha256-2.json", b"2")
        record = place.committer(ledger).commit()
    assert record is not None
    assert [bool(reason) for reason in record.outcomes.values()] == [False, True, False]
    assert place.files("work/refused") == [f"{bad}.json"]
    _, found = witness.current(place.directory, root_of(place))
    assert sorted(found) == ["p/sha256-1.json", "p/sha256-2.json"]


def test_mp_11_its_publisher_alone_is_told(place: Place) -> None:
    place.make()
    with place.open() as ledger, place.publisher(ledger) as publisher:
        missing = Operation(Numbering().next(), path="p/sha256-0.json", length=1, sha256="0" * 64)
        good = publisher.publish("p/sha256-1.json", b"x")
        bad = publisher.submit(missing)
        assert good.result(SECONDS) >= 2
        with pytest.raises(OperationRefused, match="its content is not there"):
            bad.result(SECONDS)
        with pytest.raises(OperationRefused, match="cannot be the path"):
            publisher.publish("../x", b"x")


def test_mp_11_what_is_held_stays_held(place: Place) -> None:
    place.make()
    with place.open() as ledger:
        numbering = Numbering()
        length, sha256 = ledger.inbox.store("p/sha256-held.json", b"held")
        held = Operation(numbering.next(), "publish", "p/sha256-held.json", length, sha256)
        ledger.inbox.drop(held, hold=True)
        queue(ledger, numbering, "p/sha256-1.json", b"x")
        place.committer(ledger).commit()
        assert list(witness.current(place.directory, root_of(place))[1]) == ["p/sha256-1.json"]
        assert ledger.inbox.held() == [held.id]
        ledger.inbox.release(held.id)
        place.committer(ledger).commit()
    assert "p/sha256-held.json" in witness.current(place.directory, root_of(place))[1]


def test_mp_12_the_result_is_that_of_some_serial_order(place: Place) -> None:
    """Against a model: the last operation on each path, in order of arrival, is what stays."""
    place.make(rest=0.0)
    published: dict[str, list[tuple[str, bytes]]] = {}
    lock = threading.Lock()
    with place.open() as ledger, place.publisher(ledger) as publisher:

        def work(name: int) -> None:
            chance = random.Random(name)
            for number in range(25):
                path, content = f"p/sha256-{chance.randrange(5)}.json", b"%d %d" % (name, number)
                with lock:  # arrival is when the call returns, so this fixes the order
                    ticket = publisher.publish(path, content)
                    published.setdefault(path, []).append((ticket.operation.id, content))

        together([lambda n=n: work(n) for n in range(4)])
    model = {path: operations[-1][1] for path, operations in published.items()}
    assert witness.current(place.directory, root_of(place))[1] == model
    committed = {one: place_in for place_in, one in enumerate(committed_order(place))}
    for operations in published.values():
        order = [committed[one] for one, _ in operations]
        assert order == sorted(order)


def committed_order(place: Place) -> list[str]:
    return [one for record in place.records() for one in record.outcomes]


def test_mp_12_order_survives_a_coarse_clock_and_one_that_steps_back() -> None:
    first, second = Numbering(), Numbering()
    a = [first.next() for _ in range(3)]
    b = [second.next() for _ in range(2)]
    # All at the same coarse moment but the last of each, whose clock stepped back.
    arrived = [(a[0], 100), (a[1], 100), (a[2], 50), (b[0], 100), (b[1], 101)]
    ordered = in_arrival_order(reversed(arrived))
    assert [one for one in ordered if one in a] == a
    assert [one for one in ordered if one in b] == b
    assert in_arrival_order([(a[0], 2), (b[0], 1)]) == [b[0], a[0]]


def test_mp_13_a_full_queue_refuses_with_a_hint_when_to_try_again(place: Place) -> None:
    place.make(queue_limit=3)
    with place.open() as ledger:
        numbering = Numbering()
        for number in range(3):
            queue(ledger, numbering, f"p/sha256-{number}.json", b"x")
        with pytest.raises(LedgerBusy, match="3 operations are waiting") as caught:
            queue(ledger, numbering, "p/sha256-4.json", b"x")
        assert caught.value.retry_after > 0 and "try again in" in str(caught.value.hint)
        assert len(ledger.inbox.pending()) == 3
        place.committer(ledger).commit()
        queue(ledger, numbering, "p/sha256-4.json", b"x")  # there is room again


def test_mp_14_a_commit_renders_only_the_entries_that_changed() -> None:
    versions = {f"bins-{number:04x}": 1 for number in range(16_384)} | {"targets": 1}
    body = SnapshotBody(versions)
    changed = body.changed({"bins-0007": 2, "bins-1fff": 9})
    raw = changed.render(2, rendering.now())
    # The others are the very bytes that were there before.
    pairs = zip(sorted(versions), body._entries, changed._entries, strict=True)
    assert [name for name, old, new in pairs if new is not old] == ["bins-0007", "bins-1fff"]
    assert len(raw) < 2_000_000  # the most that ngclient reads
    assert json.loads(raw)["meta"]["bins-1fff.json"] == {"version": 9}
    assert body.versions["bins-0007"] == 1


def test_mp_14_bins_are_the_very_bytes_that_python_tuf_signs(place: Place) -> None:
    place.make(bins=2)
    with place.open() as ledger:
        numbering = Numbering()
        for number in range(5):
            queue(ledger, numbering, f"p/sha256-{number}.json", b"%d" % number)
        place.committer(ledger).commit()
    for role in ("bins-0", "bins-1"):
        raw = (place.directory / f"metadata/2.{role}.json").read_bytes()
        again: Metadata[Targets] = Metadata.from_bytes(raw)
        assert raw.endswith(b',"signed":%b}' % again.signed_bytes)
        assert again.signed.spec_version == ".".join(SPECIFICATION_VERSION)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_type": "snapshot"}, "is snapshot metadata"),
        ({"version": "2"}, "has version '2'"),
        ({"expires": "soon"}, "does not match format"),
        ({"targets": {"p/x": {"length": -1, "hashes": {}}}}, "p/x: -1 is no length"),
        ({"targets": {"p/x": {"length": 1, "hashes": {"sha256": "0"}}}}, "is no SHA-256"),
        ({"targets": []}, "no attribute"),
    ],
)
def test_mp_14_a_bin_that_is_signed_but_makes_no_sense_is_not_built_on(
    place: Place, change: dict[str, Any], message: str
) -> None:
    place.make(bins=2)
    name = place.directory / "metadata/1.bins-0.json"
    with place.open() as ledger:
        body = rendering.canonical(json.loads(name.read_bytes())["signed"] | change)
        name.write_bytes(
            rendering.with_signatures(body, [rendering.sign(place.signer(ledger), body)])
        )
        with pytest.raises(LedgerUnverified, match=message) as caught:
            ledger.state.bin("bins-0")
    assert "1.bins-0.json" in caught.value.message and "nothing was published" in caught.value.hint


def test_mp_14_what_is_rendered_piece_by_piece_is_what_python_tuf_signs(place: Place) -> None:
    place.make(bins=8)
    with place.open() as ledger:
        queue(ledger, Numbering(), "p/sha256-1.json", b"x")
        place.committer(ledger).commit()
    for name in ("2.snapshot.json", "timestamp.json", "1.targets.json", "1.root.json"):
        raw = (place.directory / "metadata" / name).read_bytes()
        assert raw.endswith(b',"signed":%b}' % Metadata.from_bytes(raw).signed_bytes)


def together(tasks: list[Callable[[], object]]) -> None:
    """Run the tasks in a thread each, starting at the same moment; raise what one raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(tasks))

    def run(task: Callable[[], object]) -> None:
        try:
            barrier.wait(SECONDS)
            task()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
