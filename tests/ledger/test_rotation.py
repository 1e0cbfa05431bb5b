"""Offline keys are renewed and replaced; whoever trusts the first root follows."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, SuccinctRoles
from tuf.ngclient import Updater

from conforma.errors import InputError, LedgerError, LedgerUnverified
from conforma.ledger import adoption, inspection, keys
from conforma.ledger.commit import Committer
from conforma.ledger.ledger import Ledger
from conforma.ledger.operation import Numbering
from conforma.ledger.reader import Reader, trusted_root
from conforma.ledger.rotation import Change, Staged, stage
from tests.ledger.scenery import Place, queue
from tests.ledger.test_readers import PATH, publish, served

YEAR = timedelta(days=365)
SECONDS = 60.0


def key(place: Place, name: str) -> CryptoSigner:
    """One of the keys that the ledger was made with."""
    signer = keys.load(str(place.base / f"keys/{name}.pem"), {})
    assert isinstance(signer, CryptoSigner)
    return signer


def prepare(place: Place, change: Change, *signers: CryptoSigner, name: str = "next") -> Path:
    where = place.base / name
    with place.open() as ledger:
        stage(ledger.state, where, change, signers, YEAR)
    return where


def adopt(place: Place, where: Path, *signers: CryptoSigner) -> int:
    staged = Staged.read(where)
    with adoption.opened(place.directory, staged) as ledger:
        return adoption.adopt(ledger, staged, where, signers or [key(place, "online")])


def changes(place: Place) -> dict[str, tuple[Change, list[CryptoSigner], list[CryptoSigner]]]:
    """What may change, who signs it offline, and with what it is published."""
    root, targets, online = (key(place, name) for name in ("root", "targets", "online"))
    new = CryptoSigner.generate_ed25519()
    return {
        "renewal": (Change(), [root, targets], [online]),
        "root": (Change(root=(new.public_key,)), [root, new], [online]),
        "targets": (Change(targets=new.public_key), [root, targets, new], [online]),
        "online": (Change(online=new.public_key), [root, targets], [new, online]),
    }


def read(place: Place, root: bytes, memory: Path) -> bytes:
    with Reader(str(place.directory), root, memory) as reader:
        found = reader.find(PATH)
    assert found is not None
    return found.content


@pytest.mark.parametrize("name", ["renewal", "root", "targets", "online"])
def test_a_client_that_has_the_first_root_follows(place: Place, tmp_path: Path, name: str) -> None:
    place.make()
    root = trusted_root(str(place.directory))
    publish(place, b"before")

    def look(url: str, memory: Path) -> bytes:
        memory.mkdir(exist_ok=True)
        updater = Updater(
            str(memory), f"{url}/metadata/", str(memory), f"{url}/targets/", bootstrap=root
        )
        info = updater.get_targetinfo(PATH)
        assert info is not None
        return Path(updater.download_target(info, str(memory / "content"))).read_bytes()

    with served(place) as url:
        assert look(url, tmp_path / "seen") == b"before"
        change, offline, online = changes(place)[name]
        adopt(place, prepare(place, change, *offline), *online)
        assert look(url, tmp_path / "seen") == look(url, tmp_path / "new") == b"before"
        with place.open() as ledger:
            queue(ledger, Numbering(), PATH, b"after")
            assert place.committer(ledger, online[0]).commit() is not None
            assert inspection.status(ledger)["expires"]["root"] > f"{datetime.now(UTC):%Y-%m-%d}"
            assert ledger.state.root.version == 2
        assert look(url, tmp_path / "seen") == look(url, tmp_path / "new") == b"after"


@pytest.mark.parametrize("name", ["renewal", "root", "targets", "online"])
def test_at_no_step_of_a_rotation_does_a_reader_notice(
    place: Place, tmp_path: Path, name: str
) -> None:
    place.make(bins=2)
    root = trusted_root(str(place.directory))
    publish(place, b"content")
    change, offline, online = changes(place)[name]
    staged = Staged.read(prepare(place, change, *offline))
    steps: list[str] = []

    def look(step: str, path: Path) -> None:
        steps.append(step)
        assert read(place, root, tmp_path / "seen") == b"content"
        assert read(place, root, tmp_path / f"new-{len(steps)}") == b"content"

    with Ledger(place.directory, newest_root=1, before=look, parallel=1) as ledger:
        adoption.adopt(ledger, staged, tmp_path, online)
    assert len(steps) > 10 and (place.directory / "metadata/2.root.json").exists()


class Cut(BaseException):
    """The process ends here."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "gap"), [("targets", True), ("online", False), ("online", True)])
def test_a_rotation_that_was_cut_off_anywhere_is_done_by_doing_it_again(
    place: Place, tmp_path: Path, name: str, gap: bool
) -> None:
    """With ``gap`` the old key is lost: old readers cannot verify what comes next."""
    place.make(bins=2)
    root = trusted_root(str(place.directory))
    publish(place, b"content")
    change, offline, online = changes(place)[name]
    if gap:
        online, old = online[:1], key(place, "targets").public_key.keyid
        offline = [one for one in offline if name == "online" or one.public_key.keyid != old]
    where = prepare(place, change, *offline)
    staged, done, step = Staged.read(where), False, 0
    while not done:
        step += 1
        copy = Place(tmp_path / f"step-{step}")
        shutil.copytree(place.base, copy.base)
        before = cut_before(step)
        try:
            with Ledger(copy.directory, newest_root=1, before=before, parallel=1) as ledger:
                adoption.adopt(ledger, staged, where, online)
            done = True
        except Cut:
            try:
                adopt(copy, where, *online)
            except LedgerError as error:
                assert "is published already" in error.message
        assert read(copy, root, copy.base / "memory") == b"content"
        with copy.open() as ledger:
            inspected = [entry.path for entry in inspection.entries(ledger)]
            assert (inspected, ledger.state.root.version) == ([PATH], 2)
            queue(ledger, Numbering(), PATH, b"later")
            assert copy.committer(ledger, online[0]).commit() is not None
        assert read(copy, root, copy.base / "memory") == b"later"
        shutil.rmtree(copy.base)
    assert step > 10


def cut_before(step: int) -> Callable[[str, Path], None]:
    count = 0

    def before(name: str, path: Path) -> None:
        nonlocal count
        count += 1
        if count == step:
            raise Cut

    return before


def test_a_writer_with_the_old_online_key_is_told_and_what_it_queued_is_kept(place: Place) -> None:
    place.make()
    root = trusted_root(str(place.directory))
    with place.open() as ledger, place.publisher(ledger) as publisher:
        publisher.publish("p/sha256-0.json", b"x").result(SECONDS)
        change, offline, online = changes(place)["online"]
        adopt(place, prepare(place, change, *offline), *online[:1])
        ticket = publisher.publish(PATH, b"waits")
        with pytest.raises(LedgerError, match=r"not the online key of the ledger \(any more\)"):
            ticket.result(SECONDS)
    with place.open() as ledger:
        assert ledger.inbox.pending() == [ticket.operation.id]
        assert place.committer(ledger, online[0]).commit() is not None
    assert read(place, root, place.base / "memory") == b"waits"


def test_an_expired_root_is_renewed_without_the_readers_doing_anything(place: Place) -> None:
    place.make(offline_lifetime=1e-6)
    root = trusted_root(str(place.directory))
    publish(place, b"content")
    with pytest.raises(LedgerUnverified, match="expired"):
        read(place, root, place.base / "memory")
    adopt(place, prepare(place, Change(), key(place, "root"), key(place, "targets")))
    assert read(place, root, place.base / "memory") == b"content"


def test_holders_of_keys_sign_one_after_the_other_until_there_are_enough(place: Place) -> None:
    place.make()
    root = trusted_root(str(place.directory))
    publish(place, b"content")
    crew = [CryptoSigner.generate_ed25519() for _ in range(3)]
    team = Change(root=tuple(one.public_key for one in crew), threshold=2)
    where = prepare(place, team, key(place, "root"), crew[0])
    with place.open() as ledger:
        (missing,) = Staged.read(where).missing(ledger.state)
    assert missing.startswith("root: keys that it names itself: 1 of 2 signed; may sign: ")
    assert {one.public_key.keyid[:16] for one in crew[1:]} <= set(missing.replace(",", "").split())
    with pytest.raises(LedgerUnverified, match="1 of 2 signed") as caught:
        adopt(place, where)
    assert "nothing was changed" in str(caught.value.hint)
    assert "2.root.json" not in place.files("metadata")
    prepare(place, Change(), crew[2])
    adopt(place, where)
    assert read(place, root, place.base / "memory") == b"content"
    # From now on one of them alone is not enough, and the first key is worth nothing.
    where = prepare(place, Change(), crew[1], name="later")
    with pytest.raises(LedgerUnverified, match="1 of 2 signed"):
        adopt(place, where)
    with pytest.raises(InputError, match="this key signs neither root nor targets"):
        prepare(place, Change(), key(place, "root"), name="again")


def test_fewer_keys_of_root_need_fewer_signatures(place: Place) -> None:
    place.make()
    crew = [CryptoSigner.generate_ed25519() for _ in range(2)]
    team = Change(root=tuple(one.public_key for one in crew), threshold=2)
    adopt(place, prepare(place, team, key(place, "root"), *crew))
    alone = prepare(place, Change(root=(crew[0].public_key,)), *crew, name="alone")
    adopt(place, alone)
    with place.open() as ledger:
        assert ledger.state.root.roles["root"].threshold == 1


def test_another_root_of_the_same_version_is_not_replaced(place: Place) -> None:
    place.make()
    ours = prepare(place, Change(), key(place, "root"))
    there = place.directory / "metadata/2.root.json"
    there.write_bytes(b"a root that somebody else has signed")
    with pytest.raises(LedgerUnverified, match=r"2\.root\.json: is there already, with other"):
        adopt(place, ours)
    assert there.read_bytes() == b"a root that somebody else has signed"


def spoilt(where: Path, name: str, change: Callable[[Any], None]) -> None:
    metadata: Metadata[Any] = Metadata.from_file(str(where / name))
    change(metadata.signed)
    (where / name).write_bytes(metadata.to_bytes())


def version_nine(signed: Any) -> None:
    signed.version = 9


def other_bins(signed: Any) -> None:
    signed.delegations.succinct_roles = SuccinctRoles(["0" * 64], 1, 5, "bins")


def later(signed: Any) -> None:
    signed.expires += YEAR


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("root.json", version_nine, "root.json: is version 9, but 1 is published"),
        ("targets.json", other_bins, "does not delegate to the bins of this ledger"),
        ("root.json", later, "root: keys that are trusted now: 0 of 1 signed"),
        ("targets.json", later, "targets: 0 of 1 signed"),
    ],
)
def test_what_was_changed_on_the_way_is_not_published(
    place: Place, name: str, change: Callable[[Any], None], message: str
) -> None:
    place.make()
    where = prepare(place, Change(), key(place, "root"), key(place, "targets"))
    spoilt(where, name, change)
    with pytest.raises((InputError, LedgerUnverified), match=message):
        adopt(place, where)
    assert place.timestamp()["version"] == 1 and "2.root.json" not in place.files("metadata")


def test_mistakes_with_staged_files_are_explained(place: Place, tmp_path: Path) -> None:
    place.make()
    where = prepare(place, Change(), key(place, "root"))
    new = CryptoSigner.generate_ed25519()
    with pytest.raises(InputError, match="a rotation is prepared there already"):
        prepare(place, Change(targets=new.public_key), key(place, "root"))
    with pytest.raises(InputError, match="2 keys of 1 cannot sign a root"):
        prepare(place, Change(threshold=2), key(place, "root"), name="much")
    with pytest.raises(InputError, match="nothing is prepared there"):
        adopt(place, tmp_path / "nowhere")
    (where / "targets.json").write_text("{")
    with pytest.raises(InputError, match=r"targets\.json: is no metadata"):
        adopt(place, where)
    (where / "targets.json").write_bytes((where / "root.json").read_bytes())
    with pytest.raises(InputError, match=r"targets\.json: is root metadata"):
        adopt(place, where)
    (where / "targets.json").unlink()
    adopt(place, where)
    with pytest.raises(LedgerError, match=r"2\.root\.json: is published already"):
        adopt(place, where)


def test_a_commit_signs_nothing_with_a_key_that_root_does_not_name(place: Place) -> None:
    place.make()
    with place.open() as ledger:
        queue(ledger, Numbering(), PATH, b"x")
        stranger: Sequence[CryptoSigner] = [CryptoSigner.generate_ed25519()]
        committer: Committer = place.committer(ledger, stranger[0])
        with pytest.raises(LedgerError, match="this is not the online key") as caught:
            committer.commit()
        assert "what is queued stays queued" in str(caught.value.hint)
        assert len(ledger.inbox.pending()) == 1
    assert place.timestamp()["version"] == 1
