"""Anybody with a TUF client can read a ledger, at any moment, and nobody can be lied to."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace
from tuf.ngclient import Updater

from conforma.errors import LedgerError, LedgerUnverified
from conforma.ledger import keys, rendering, web
from conforma.ledger.config import TIMESTAMP
from conforma.ledger.operation import Numbering
from conforma.ledger.reader import Reader, trusted_root
from conforma.ledger.state import timestamp_body
from tests.ledger.scenery import Place, queue

PATH = "p/sha256-1.json"


@contextmanager
def served(place: Place) -> Iterator[str]:
    with web.serve(place.directory, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def publish(place: Place, content: bytes, path: str = PATH) -> int:
    with place.open() as ledger:
        queue(ledger, Numbering(), path, content)
        record = place.committer(ledger).commit()
        assert record is not None
        return record.version


def reader(place: Place, memory: Path | None = None, location: str = "") -> Reader:
    where = location or str(place.directory)
    return Reader(where, trusted_root(str(place.directory)), memory)


@pytest.mark.parametrize("over", ["directory", "http"])
def test_what_is_published_is_found_and_nothing_else(place: Place, over: str) -> None:
    place.make()
    publish(place, b"content")
    with served(place) as url, reader(place, location=url if over == "http" else "") as opened:
        found = opened.find(PATH)
        assert found is not None and found.content == b"content"
        assert found.custom["operation"]
        assert opened.find("p/sha256-2.json") is None


@pytest.mark.slow
def test_the_client_of_python_tuf_reads_over_http_during_many_commits(
    place: Place, tmp_path: Path
) -> None:
    """The client is python-tuf's own, with a memory, so any step back would be an error.

    LEDGER_COMMITS says how many commits there are.
    """
    commits = int(os.environ.get("LEDGER_COMMITS", "150"))
    place.make(bins=8, rest=0.0)
    root = trusted_root(str(place.directory))
    stop = threading.Event()
    versions: list[int] = []
    problems: list[str] = []
    publish(place, b"0")

    def read(url: str) -> None:
        memory = tmp_path / "memory"
        memory.mkdir()
        while not stop.is_set() or not versions or versions[-1] <= commits:
            try:
                updater = Updater(
                    str(memory),
                    f"{url}/metadata/",
                    target_dir=str(memory),
                    target_base_url=f"{url}/targets/",
                    bootstrap=root,
                )
                updater.refresh()
                info = updater.get_targetinfo(PATH)
                assert info is not None
                content = Path(updater.download_target(info, str(memory / "content"))).read_bytes()
                versions.append(int(content))
            except Exception as error:
                problems.append(repr(error))
                return

    with served(place) as url:
        thread = threading.Thread(target=read, args=(url,))
        thread.start()
        with place.open() as ledger:
            committer, numbering = place.committer(ledger), Numbering()
            for number in range(1, commits + 2):
                queue(ledger, numbering, PATH, b"%d" % number)
                assert committer.commit() is not None
        stop.set()
        thread.join()
    assert problems == []
    assert versions == sorted(versions) and versions[-1] == commits + 1


def test_only_metadata_and_targets_are_served(place: Place) -> None:
    import urllib.error
    import urllib.request

    place.make()
    publish(place, b"content")
    with served(place) as url:
        for path in ("ledger.json", "work/inbox/", "metadata/../ledger.json", "metadata/", "", "x"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"{url}/{path}")
        with urllib.request.urlopen(f"{url}/metadata/timestamp.json") as answer:
            assert answer.headers["Cache-Control"] == "no-cache"
            assert answer.read() == (place.directory / TIMESTAMP).read_bytes()


def test_what_cannot_be_read_is_not_said_to_be_missing(place: Place) -> None:
    import urllib.error
    import urllib.request

    place.make()
    root = place.directory / "metadata/1.root.json"
    root.unlink()
    root.symlink_to(root.name)  # a file that nobody can open, not even root
    with served(place) as url, pytest.raises(urllib.error.HTTPError, match="503"):
        urllib.request.urlopen(f"{url}/metadata/1.root.json")


def test_a_rollback_is_refused(place: Place, tmp_path: Path) -> None:
    place.make()
    publish(place, b"old")
    old = (place.directory / TIMESTAMP).read_bytes()
    publish(place, b"new")
    memory = tmp_path / "memory"
    with reader(place, memory) as opened:
        opened.refresh()
    (place.directory / TIMESTAMP).write_bytes(old)
    with reader(place, memory) as opened, pytest.raises(LedgerUnverified, match="does not verify"):
        opened.find(PATH)


def test_a_freeze_is_refused_once_the_timestamp_expires(place: Place) -> None:
    place.make(timestamp_lifetime=3600.0)
    with place.open() as ledger:
        moment = datetime.now(UTC) - timedelta(hours=2)
        queue(ledger, Numbering(), PATH, b"x")
        # A ledger that nobody renewed for two hours: its files are as they were then.
        config = replace(ledger.state.config, skew=1e9)
        (place.directory / "ledger.json").write_bytes(config.render())
        place.committer(ledger, clock=moment.timestamp).commit()
    with reader(place) as opened, pytest.raises(LedgerUnverified) as caught:
        opened.find(PATH)
    assert "expired" in caught.value.message
    assert "the clock of this machine says 20" in caught.value.message
    assert "conforma ledger bump" in str(caught.value.hint)


def test_a_mix_of_two_states_is_refused(place: Place) -> None:
    place.make(bins=2)
    publish(place, b"1")
    metadata = place.directory / "metadata"
    old = (metadata / "2.snapshot.json").read_bytes()
    publish(place, b"2")
    (metadata / "3.snapshot.json").write_bytes(old)  # an old snapshot under the new name
    with reader(place) as opened, pytest.raises(LedgerUnverified, match="does not verify"):
        opened.find(PATH)


def test_an_old_bin_under_a_new_name_is_refused(place: Place) -> None:
    place.make(bins=2)
    publish(place, b"1")
    publish(place, b"2")
    metadata = place.directory / "metadata"
    with place.open() as ledger:
        role = ledger.state.bins.get_role_for_target(PATH)
    shutil.copy(metadata / f"2.{role}.json", metadata / f"3.{role}.json")
    with reader(place) as opened, pytest.raises(LedgerUnverified, match="does not verify"):
        opened.find(PATH)


def test_content_that_was_changed_is_refused(place: Place) -> None:
    place.make()
    publish(place, b"content")
    (content,) = (place.directory / "targets/p").iterdir()
    content.write_bytes(b"CONTENT")
    with reader(place) as opened, pytest.raises(LedgerUnverified, match="does not verify"):
        opened.find(PATH)


def test_a_timestamp_by_another_key_is_refused(place: Place, tmp_path: Path) -> None:
    place.make()
    publish(place, b"x")
    other = keys.generate(tmp_path / "other", "online", {})
    snapshot = (place.directory / "metadata/2.snapshot.json").read_bytes()
    body = timestamp_body(9, rendering.now() + timedelta(days=1), snapshot, {})
    forged = rendering.with_signatures(body, [other.sign(body)])
    (place.directory / TIMESTAMP).write_bytes(forged)
    with reader(place) as opened, pytest.raises(LedgerUnverified, match="does not verify"):
        opened.find(PATH)


def test_another_ledger_in_the_same_place_is_refused(place: Place, tmp_path: Path) -> None:
    place.make()
    root = trusted_root(str(place.directory))
    other = Place(tmp_path / "other").make()
    publish(other, b"x")
    with (
        Reader(str(other.directory), root) as opened,
        pytest.raises(LedgerUnverified, match="does not verify"),
    ):
        opened.find(PATH)


def test_what_cannot_be_reached_is_not_taken_for_a_lie(place: Place, tmp_path: Path) -> None:
    place.make()
    with (
        Reader(str(tmp_path / "nowhere"), trusted_root(str(place.directory))) as opened,
        pytest.raises(LedgerError, match="cannot be read") as caught,
    ):
        opened.find(PATH)
    assert not isinstance(caught.value, LedgerUnverified)
    assert caught.value.exit_status == 3
