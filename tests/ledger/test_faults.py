"""What goes wrong around a ledger is said clearly, and nothing is lost by it."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
import traceback
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

from conforma.errors import InputError, LedgerError, LedgerUnverified
from conforma.ledger import inspection, keys
from conforma.ledger.collect import collect
from conforma.ledger.config import CLAIMS, TIMESTAMP, Config
from conforma.ledger.initialize import initialize
from conforma.ledger.ledger import Ledger
from conforma.ledger.operation import Numbering
from tests.ledger import witness
from tests.ledger.scenery import Place, queue

PATH = "p/sha256-1.json"
SECONDS = 60.0


def found(place: Place) -> dict[str, bytes]:
    root = (place.directory / "metadata/1.root.json").read_bytes()
    return witness.current(place.directory, root)[1]


def commit_again(place: Place) -> dict[str, bytes]:
    """What is published once the fault is gone."""
    with place.open() as ledger:
        assert place.committer(ledger).commit() is not None
    return found(place)


@pytest.mark.parametrize("offset", [-3600.0, 3600.0])
def test_a_wrong_clock_is_told_and_nothing_is_signed(place: Place, offset: float) -> None:
    place.make()
    with place.open() as ledger:
        queue(ledger, Numbering(), PATH, b"x")
        committer = place.committer(ledger, clock=lambda: time.time() + offset)
        with pytest.raises(LedgerError, match="the clock of this machine says") as caught:
            committer.commit()
        assert "what is queued stays queued" in str(caught.value.hint)
    assert place.timestamp()["version"] == 1
    assert commit_again(place) == {PATH: b"x"}


def test_an_expired_timestamp_does_not_keep_a_writer_from_renewing_it(place: Place) -> None:
    place.make(skew=1e9)
    with place.open() as ledger:
        queue(ledger, Numbering(), PATH, b"x")
        place.committer(ledger, clock=lambda: time.time() - 30 * 86400).commit()
        assert inspection.status(ledger)["expired"] == ["snapshot", "timestamp"]
        with place.publisher(ledger) as publisher:
            publisher.bump().result(SECONDS)
        assert inspection.status(ledger)["expired"] == []
    assert found(place) == {PATH: b"x"}


def test_another_key_is_refused_before_anything_is_queued(place: Place, tmp_path: Path) -> None:
    place.make()
    keys.generate(tmp_path / "other", "online", {})
    with place.open() as ledger:
        with pytest.raises(LedgerError, match="this is not the online key of the ledger"):
            keys.online(str(tmp_path / "other/online.pem"), ledger.state.root, {})
        with pytest.raises(InputError, match="no online key was given"):
            keys.online("", ledger.state.root, {})
        with pytest.raises(InputError, match=r"not-there\.pem: No such file"):
            keys.online("not-there.pem", ledger.state.root, {})


def test_a_key_with_a_passphrase_and_one_from_the_environment(tmp_path: Path) -> None:
    secret = {keys.PASSPHRASE: "open sesame"}
    initialize(tmp_path / "l", tmp_path / "k", Config().with_bins(2), environ=secret)
    pem = (tmp_path / "k/online.pem").read_text()
    assert "BEGIN ENCRYPTED PRIVATE KEY" in pem
    assert (tmp_path / "k/online.pem").stat().st_mode & 0o777 == 0o600
    with Ledger(tmp_path / "l") as ledger:
        root = ledger.state.root
        assert keys.online("env:KEY", root, secret | {"KEY": pem}).public_key.keyid
        assert keys.online(f"file:{tmp_path / 'k/online.pem'}", root, secret).public_key.keyid
        with pytest.raises(InputError, match="the key is encrypted"):
            keys.online("env:KEY", root, {"KEY": pem})
        with pytest.raises(InputError, match="the passphrase is wrong or the key is damaged"):
            keys.online("env:KEY", root, {"KEY": pem, keys.PASSPHRASE: "wrong"})
        with pytest.raises(InputError, match="environment variable NONE is not set"):
            keys.online("env:NONE", root, {})


def test_a_key_given_in_place_of_its_name_is_not_shown(place: Place) -> None:
    place.make()
    pem = Path(place.online).read_text()
    with place.open() as ledger, pytest.raises(InputError) as caught:
        keys.online(pem, ledger.state.root, {})
    told = "".join(traceback.format_exception(caught.value))
    assert "the key given: " in told
    assert not any(line in told for line in pem.splitlines()[1:-1])
    assert (
        caught.value.hint == "name the private key in a PEM file, as conforma ledger init made it"
    )


def test_keys_stay_out_of_the_ledger_and_nothing_is_overwritten(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is within the ledger, which others read"):
        initialize(tmp_path / "l", tmp_path / "l/keys", Config())
    initialize(tmp_path / "l", tmp_path / "k", Config().with_bins(2))
    with pytest.raises(InputError, match="is not empty"):
        initialize(tmp_path / "l", tmp_path / "k2", Config())
    with pytest.raises(InputError, match="there is a key already"):
        initialize(tmp_path / "l2", tmp_path / "k", Config())


@pytest.mark.parametrize("damage", [b"", b"{", b"not json", b'{"signed":{}}'])
def test_a_damaged_bin_is_found_before_anything_is_built_on_it(place: Place, damage: bytes) -> None:
    place.make(bins=2)
    with place.open() as ledger:
        queue(ledger, Numbering(), PATH, b"1")
        place.committer(ledger).commit()
        role = ledger.state.bins.get_role_for_target(PATH)
    file = place.directory / f"metadata/2.{role}.json"
    good = file.read_bytes()
    file.write_bytes(damage)
    with place.open() as ledger:
        queue(ledger, Numbering(), PATH, b"2")
        with pytest.raises(LedgerUnverified, match=rf"2\.{role}\.json"):
            place.committer(ledger).commit()
        with pytest.raises(LedgerUnverified, match=rf"2\.{role}\.json"):
            inspection.verify(ledger)
    assert place.timestamp()["version"] == 2
    file.write_bytes(good)
    assert commit_again(place) == {PATH: b"2"}


def test_a_bin_changed_by_somebody_without_the_key_is_found(place: Place) -> None:
    place.make(bins=2)
    with place.open() as ledger:
        queue(ledger, Numbering(), PATH, b"1")
        place.committer(ledger).commit()
        role = ledger.state.bins.get_role_for_target(PATH)
    file = place.directory / f"metadata/2.{role}.json"
    document = json.loads(file.read_bytes())
    document["signed"]["targets"].clear()
    file.write_text(json.dumps(document))
    with place.open() as ledger:
        queue(ledger, Numbering(), PATH, b"2")
        with pytest.raises(LedgerUnverified, match="was signed by 0/1 keys"):
            place.committer(ledger).commit()


@pytest.mark.parametrize("step", range(1, 19))
def test_a_full_disk_at_any_step_is_told_and_nothing_is_lost(place: Place, step: int) -> None:
    place.make(bins=2)
    with place.open() as ledger:
        queue(ledger, Numbering(), PATH, b"1")
    steps: list[str] = []

    def full(name: str, path: Path) -> None:
        steps.append(name)
        if len(steps) == step and name in ("create", "write", "sync", "sync_directory"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    failed = False
    with place.open(before=full, parallel=1) as ledger:
        try:
            place.committer(ledger).commit()
        except LedgerError as error:
            failed = True
            assert "No space left on device" in error.message
            assert "what is queued stays queued" in str(error.hint)
    with place.open() as ledger:
        numbering = Numbering()
        queue(ledger, numbering, "p/sha256-2.json", b"2")
        assert place.committer(ledger).commit() is not None
    assert found(place) == {PATH: b"1", "p/sha256-2.json": b"2"}
    assert [record.version for record in place.records()] == (
        list(range(2, place.timestamp()["version"] + 1))
    )
    assert failed or len(steps) < step or steps[step - 1] in ("rename", "unlink")


def test_a_publisher_is_told_of_a_full_disk(place: Place) -> None:
    place.make()
    full = False

    def step(name: str, path: Path) -> None:
        if full and name == "create" and path.parent.name == "metadata":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with place.open(before=step) as ledger, place.publisher(ledger) as publisher:
        full = True
        ticket = publisher.publish(PATH, b"1")
        with pytest.raises(LedgerError, match="No space left on device"):
            ticket.result(SECONDS)
        full = False
        assert publisher.publish("p/sha256-2.json", b"2").result(SECONDS) == 2
    assert sorted(found(place)) == [PATH, "p/sha256-2.json"]  # the first one as well


def test_a_bug_in_a_commit_leaves_nobody_waiting(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.make()
    ended = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: ended.set())

    def step(name: str, path: Path) -> None:
        if name == "rename" and path == place.directory / TIMESTAMP:
            raise AssertionError("a bug")

    with place.open(before=step) as ledger, place.publisher(ledger) as publisher:
        ticket = publisher.publish(PATH, b"1")
        with pytest.raises(LedgerError, match="the commit failed: AssertionError: a bug"):
            ticket.result(SECONDS)
        assert ended.wait(SECONDS), "a bug shows its traceback"
        with pytest.raises(LedgerError, match="the commit failed: AssertionError: a bug"):
            publisher.publish(PATH, b"2")
    assert commit_again(place) == {PATH: b"1"}


def test_names_that_a_file_system_puts_beside_claims_are_no_claims(place: Place) -> None:
    place.make()
    (place.directory / CLAIMS / ".nfs0000000000a1b2c300000001").touch()
    with place.open() as ledger:
        queue(ledger, Numbering(), PATH, b"1")
        assert place.committer(ledger).commit() is not None
    assert found(place) == {PATH: b"1"}


def test_a_ledger_of_a_later_version_is_left_alone(place: Place) -> None:
    place.make()
    with place.open() as ledger:
        queue(ledger, Numbering(), PATH, b"1")
        committer = place.committer(ledger)
        settings = place.directory / "ledger.json"
        now = settings.read_bytes()
        settings.write_text(json.dumps(json.loads(now) | {"format": 2, "new": True}))
        with pytest.raises(LedgerError, match="has format 2, this version knows up to 1"):
            committer.commit()
        with pytest.raises(LedgerError, match="has format 2"):
            place.open()
        assert place.timestamp()["version"] == 1
        settings.write_bytes(now)
    assert commit_again(place) == {PATH: b"1"}


def test_an_operation_of_a_later_version_waits_for_one_that_knows_it(place: Place) -> None:
    place.make()
    with place.open() as ledger:
        numbering = Numbering()
        later = queue(ledger, numbering, PATH, b"later")
        file = place.directory / f"work/inbox/{later.id}.json"
        document = json.loads(file.read_text())
        file.write_text(json.dumps(document | {"format": 2}))
        queue(ledger, numbering, "p/sha256-2.json", b"2")
        record = place.committer(ledger).commit()
        assert record is not None and len(record.outcomes) == 1
        assert ledger.inbox.pending() == [later.id]
        with pytest.raises(LedgerError, match="a queued operation cannot be read"):
            collect(ledger)  # what it names is not known, so nothing of it is removed
        file.write_text(json.dumps(document))
    assert commit_again(place) == {PATH: b"later", "p/sha256-2.json": b"2"}


def test_collecting_removes_what_is_superseded_and_only_after_a_while(place: Place) -> None:
    place.make(bins=2)
    with place.open() as ledger:
        numbering = Numbering()
        for number in range(4):
            queue(ledger, numbering, PATH, b"%d" % number)
            place.committer(ledger).commit()
        length, sha256 = ledger.inbox.store("p/sha256-queued.json", b"queued")
        before = place.files("metadata")
        nothing = collect(ledger)
        assert (nothing.metadata, nothing.targets, nothing.records) == (0, 0, 0)
        assert place.files("metadata") == before
        removed = collect(ledger, clock=lambda: time.time() + ledger.config.grace + 60)
        assert removed.metadata > 4 and removed.targets == 4  # three old ones, one unnamed
        assert "1.root.json" in place.files("metadata")
    assert found(place) == {PATH: b"3"}
    assert (length, len(sha256)) == (6, 64)


def test_settings_that_cannot_be_meant_are_refused() -> None:
    for wrong in (0, 1, 3, 1 << 20):
        with pytest.raises(InputError):
            Config().with_bins(wrong)
    with pytest.raises(InputError):
        replace(Config(), timestamp_lifetime=0.0).checked()
    with pytest.raises(LedgerError, match="not the settings of a ledger"):
        Config.parse(b"[]", "x")


@pytest.mark.slow
def test_a_writer_of_this_version_stops_when_a_later_one_takes_over(place: Place) -> None:
    """Both run at the same time: the later one is a process that changes settings and publishes."""
    place.make()
    later = (
        "import json, pathlib, sys\n"
        "file = pathlib.Path(sys.argv[1], 'ledger.json')\n"
        "settings = json.loads(file.read_text()) | {'format': 2, 'order': 'new'}\n"
        "file.write_text(json.dumps(settings))\n"
    )
    with place.open() as ledger, place.publisher(ledger) as publisher:
        assert publisher.publish(PATH, b"1").result(SECONDS) == 2
        subprocess.run([sys.executable, "-c", later, str(place.directory)], check=True)
        ticket = publisher.publish("p/sha256-2.json", b"2")
        with pytest.raises(LedgerError, match="has format 2, this version knows up to 1") as caught:
            ticket.result(SECONDS)
        assert "use the version of conforma that made the ledger" in str(caught.value.hint)
        assert ledger.inbox.pending() == [ticket.operation.id]
    assert place.timestamp()["version"] == 2
    settings = json.loads((place.directory / "ledger.json").read_text())
    (place.directory / "ledger.json").write_text(json.dumps(settings | {"format": 1}))
    assert commit_again(place) == {PATH: b"1", "p/sha256-2.json": b"2"}


EARLIER: Final = "34620747df8f"
"""The ledger as it was before its bins were written in another way and its rest was shortened."""


def earlier_program(place: Path) -> Path:
    """The package as it was in ``EARLIER``, below ``place``; skips where history does not reach."""
    top = Path(__file__).parents[2]
    made = subprocess.run(
        ["git", "-C", str(top), "archive", EARLIER, "conforma"], capture_output=True
    )
    if made.returncode != 0:
        pytest.skip(f"the history of this checkout has no {EARLIER}")
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as archive:
        archive.extractall(place, filter="data")
    return place


@pytest.mark.slow
def test_a_writer_of_an_earlier_version_and_one_of_this_share_a_ledger(
    place: Place, tmp_path: Path
) -> None:
    """A process runs the earlier package, while a publisher of this one is open.

    Each commits on top of what the other made, and nothing is lost.
    """
    program = earlier_program(tmp_path / "earlier")
    writer = (
        "import sys, conforma\n"
        "from pathlib import Path\n"
        "from conforma.ledger import keys\n"
        "from conforma.ledger.ledger import Ledger\n"
        "from conforma.ledger.publisher import Publisher\n"
        "assert conforma.__file__.startswith(sys.argv[1]), conforma.__file__\n"
        "with Ledger(Path(sys.argv[2])) as ledger:\n"
        "    publisher = Publisher(ledger, keys.online(sys.argv[3], ledger.state.root))\n"
        "    print(publisher.publish(sys.argv[4], b'earlier').result(60))\n"
        "    publisher.close()\n"
    )
    place.make()
    expected: dict[str, bytes] = {}
    with place.open() as ledger, place.publisher(ledger) as publisher:
        for number in range(2):
            name = f"p/sha256-{number}.json"
            assert publisher.publish(name, b"this").result(SECONDS) == 2 * number + 2
            theirs = f"p/sha256-{number}-earlier.json"
            done = subprocess.run(
                [sys.executable, "-c", writer, str(program), str(place.directory), place.online,
                 theirs],
                env={**os.environ, "PYTHONPATH": str(program)},
                cwd=program, capture_output=True, text=True,
            )  # fmt: skip
            assert (done.stdout, done.stderr) == (f"{2 * number + 3}\n", "")
            expected |= {name: b"this", theirs: b"earlier"}
    assert found(place) == expected
