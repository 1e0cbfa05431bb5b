"""``conforma sigstore initialize``: which repository is trusted from now on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from acceptance.private_sigstore.trusted_root import trusted_root
from acceptance.private_sigstore.tuf_repository import TufRepository
from conforma.cli.root import run
from conforma.trust.root_sources import RootSource
from tests.trust.lab import Lab, check_layer

REMOTE = "remote.json"


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
def tuf(lab: Lab, tmp_path: Path) -> Iterator[TufRepository]:
    with TufRepository(tmp_path / "served", trusted_root(lab.fulcio, lab.log)) as served:
        yield served


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "cache"
    monkeypatch.setenv("TUF_ROOT", str(place))
    for name in ("TUF_MIRROR", "TUF_ROOT_JSON"):
        monkeypatch.delenv(name, raising=False)
    return place


@pytest.fixture
def root(tuf: TufRepository, tmp_path: Path) -> Path:
    place = tmp_path / "root.json"
    place.write_bytes(tuf.first_root)
    return place


def trusts(lab: Lab, cache: Path, *, offline: bool = False) -> bool:
    """Whether a later run verifies the lab's signatures with what it finds."""
    found = RootSource(lab.by_key(), {"TUF_ROOT": str(cache)}, offline=offline)()
    return check_layer(lab, lab.signature(), lab.by_key(), logs=found.logs).witness is not None


def initialize(*flags: str) -> int:
    return run(["sigstore", "initialize", *flags])


def test_later_runs_use_the_mirror(
    lab: Lab, tuf: TufRepository, cache: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert initialize("--mirror", tuf.url, "--root", str(root)) == 0
    assert capsys.readouterr() == ("", "")
    assert json.loads((cache / REMOTE).read_bytes()) == {"mirror": tuf.url}
    assert cache.stat().st_mode & 0o777 == 0o700
    assert trusts(lab, cache)
    tuf.close()
    assert trusts(lab, cache)
    assert trusts(lab, cache, offline=True)


def test_a_root_at_a_url_with_and_without_its_checksum(
    lab: Lab, tuf: TufRepository, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{tuf.url}/1.root.json"
    assert initialize("--mirror", tuf.url, "--root", url) == 0
    assert "is trusted as it came over a plain connection" in capsys.readouterr().err
    checksum = hashlib.sha256(tuf.first_root).hexdigest()
    assert initialize("--mirror", tuf.url, "--root", url, "--root-checksum", checksum) == 0
    assert capsys.readouterr().err == ""
    assert trusts(lab, cache)


def test_a_root_that_is_not_the_expected_one_changes_nothing(
    tuf: TufRepository, cache: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--mirror", tuf.url, "--root", str(root), "--root-checksum", "0" * 64)
    assert initialize(*flags) == 1
    assert f"Error: {root}: does not have the SHA-256 000" in capsys.readouterr().err
    assert not cache.exists()
    assert tuf.requests == []


def test_a_directory_serves_where_there_is_no_network(
    lab: Lab, tuf: TufRepository, cache: Path, root: Path
) -> None:
    tuf.close()
    assert initialize("--mirror", tuf.directory.as_uri(), "--root", root.as_uri()) == 0
    assert trusts(lab, cache)


def test_offline_uses_what_is_there(
    lab: Lab,
    tuf: TufRepository,
    cache: Path,
    root: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ("--mirror", tuf.url, "--root", str(root))
    assert initialize(*flags, "--offline") == 3
    assert "is not on disk" in capsys.readouterr().err
    assert not (cache / REMOTE).exists()
    assert tuf.requests == []
    assert initialize(*flags) == 0
    asked = len(tuf.requests)
    (cache / REMOTE).unlink()
    assert initialize("--mirror", tuf.url, "--offline") == 0
    assert len(tuf.requests) == asked
    assert trusts(lab, cache, offline=True)


def test_a_repository_of_strangers_changes_nothing(
    lab: Lab,
    tuf: TufRepository,
    cache: Path,
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert initialize("--mirror", tuf.url, "--root", str(root)) == 0
    before = (cache / REMOTE).read_bytes()
    with TufRepository(tmp_path / "other", trusted_root(lab.fulcio, lab.log)) as other:
        assert initialize("--mirror", other.url, "--root", str(root)) == 3
    assert f"Error: Sigstore trust root of {other.url}" in capsys.readouterr().err
    assert (cache / REMOTE).read_bytes() == before
    assert trusts(lab, cache)


@pytest.mark.parametrize(
    ("flags", "status", "text"),
    [
        (("--mirror", "tuf.test"), 1, "--mirror: tuf.test: not an https, http or file URL"),
        (("--mirror", "file:///nowhere"), 1, "could not find cached root.json"),
        (("--root", "/nowhere/root.json"), 1, "/nowhere/root.json: No such file or directory"),
        (("--root", "file:///nowhere/root.json"), 1, "file:///nowhere/root.json: root.json is"),
        (
            ("--root", "http://127.0.0.1:9/root.json"),
            3,
            "http://127.0.0.1:9/root.json: Connection refused\n",
        ),
        (("now",), 1, 'unknown command "now" for "conforma sigstore initialize"'),
        (("--mirrors",), 1, "unknown flag: --mirrors"),
    ],
)
def test_what_cannot_be_used_is_told(
    flags: tuple[str, ...],
    status: int,
    text: str,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert initialize(*flags) == status
    assert f"Error: {text}" in capsys.readouterr().err
    assert not cache.exists()


def test_the_group_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sigstore"]) == 0
    assert "initialize" in capsys.readouterr().out
