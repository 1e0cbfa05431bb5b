"""``conforma fetch policy``: sources of every kind, each in a directory of its own."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from conforma.cli.root import run
from conforma.serve.images import artifact_of
from conforma.serve.registry import RegistryServer
from tests.policy.services import commit, git_backend, repository, serving

RULES = "package main\n"


def name_of(url: str) -> str:
    return hashlib.sha224(url.encode()).hexdigest()[:9]


def tree(directory: Path) -> dict[str, str]:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): path.read_text() for path in files}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    place = tmp_path / "source"
    place.mkdir()
    (place / "main.rego").write_text(RULES)
    return place


def test_policies_come_first_and_data_lies_apart(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    title = {"org.opencontainers.image.title": "data.yaml"}
    artifact = artifact_of("application/vnd.example.data", [(b"a: 1\n", "text/yaml", title)])
    repository(tmp_path / "git" / "lib.git", {"lib/lib.rego": RULES, "other.rego": RULES})
    with (
        RegistryServer() as server,
        serving(git_backend(tmp_path / "git"), tmp_path) as hub,
    ):
        artifact.put(server.store, "data", "1")
        monkeypatch.setenv("SSL_CERT_FILE", str(hub.ca_file))
        monkeypatch.chdir(tmp_path)
        policies = [str(source), f"git::https://{hub.host}/lib.git//lib"]
        data = f"oci::{server.host}/data:1"
        arguments = ["--data-source", data, "--source", policies[0], "-s", policies[1]]
        assert run(["fetch", "policy", *arguments]) == 0
    places = [f"policy/{name_of(url)}" for url in policies] + [f"data/{name_of(data)}"]
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        f"Downloading {url} to {place}"
        for url, place in zip([*policies, data], places, strict=True)
    ]
    assert told.err == ""
    assert [tree(tmp_path / place) for place in places] == [
        {"main.rego": RULES},
        {"lib.rego": RULES},
        {"data.yaml": "a: 1\n"},
    ]


def test_what_an_earlier_download_left_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = repository(tmp_path / "git" / "rules.git", {"old.rego": RULES, "kept.rego": RULES})
    with serving(git_backend(tmp_path / "git"), tmp_path) as hub:
        monkeypatch.setenv("SSL_CERT_FILE", str(hub.ca_file))
        url = f"git::https://{hub.host}/rules.git"
        arguments = ["fetch", "policy", "-s", url, "-d", str(tmp_path / "fetched")]
        place = tmp_path / "fetched" / "policy" / name_of(url)
        assert run(arguments) == 0
        assert tree(place) == {"old.rego": RULES, "kept.rego": RULES}
        (origin / "old.rego").unlink()
        commit(origin, {"kept.rego": "package new\n"})
        assert run(arguments) == 0
        assert tree(place) == {"kept.rego": "package new\n"}
        # Nothing is lost to a download that fails.
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
        assert run(arguments) != 0
        assert tree(place) == {"kept.rego": "package new\n"}


def test_a_link_in_the_place_of_a_download_is_replaced_and_not_followed(
    source: Path, tmp_path: Path
) -> None:
    place = tmp_path / "fetched" / "policy" / name_of(str(source))
    place.parent.mkdir(parents=True)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "precious").write_text("kept")
    place.symlink_to(mine)
    assert run(["fetch", "policy", "-s", str(source), "-d", str(tmp_path / "fetched")]) == 0
    assert tree(mine) == {"precious": "kept"}
    assert not place.is_symlink()
    assert tree(place) == {"main.rego": RULES}


def test_a_working_directory_is_new_and_stays(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    arguments = ["fetch", "policy", "--source", str(source), "--dest", str(tmp_path / "no")]
    assert run([*arguments, "--work-dir"]) == 0
    (root,) = temporary.iterdir()
    assert root.name.startswith("ec-work-")
    place = root / "policy" / name_of(str(source))
    assert tree(place) == {"main.rego": RULES}
    assert capsys.readouterr().out == f"Downloading {source} to {place}\n"
    assert not (tmp_path / "no").exists()


def test_the_first_source_that_fails_ends_the_command(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, dest = f"{tmp_path}/missing", tmp_path / "fetched"
    arguments = ["--source", missing, "--source", str(source), "--dest", str(dest)]
    assert run(["fetch", "policy", *arguments]) == 1
    told = capsys.readouterr()
    assert told.out == f"Downloading {missing} to {dest}/policy/{name_of(missing)}\n"
    assert told.err.startswith(f"Error: source file does not exist: stat {missing}")
    assert not dest.exists()


def test_a_comma_in_a_source_is_part_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rules,all"
    source.mkdir()
    (source / "main.rego").write_text(RULES)
    assert run(["fetch", "policy", "-s", str(source), "-d", str(tmp_path)]) == 0
    assert tree(tmp_path / "policy" / name_of(str(source))) == {"main.rego": RULES}
    assert capsys.readouterr().err == ""


def test_passwords_are_not_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = "git::http://user:hidden@127.0.0.1:1/rules.git"
    assert run(["fetch", "policy", "-s", url, "-d", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert told.out.startswith("Downloading git::http://127.0.0.1:1/rules.git to ")
    assert "attempting to download from insecure source" in told.err
    assert "hidden" not in told.out + told.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], 'Error: required flag(s) "source" not set\n'),
        (["--data-source", "/x"], 'Error: required flag(s) "source" not set\n'),
        (["-s", "/x", "y"], 'Error: unknown command "y" for "conforma fetch policy"\n'),
    ],
)
def test_what_cannot_be_asked_for(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["fetch", "policy", *arguments]) == 1
    assert capsys.readouterr() == ("", message)


def test_a_destination_that_cannot_be_written_is_named(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert run(["fetch", "policy", "-s", str(source), "-d", str(tmp_path / "file")]) == 3
    assert f"Error: cannot write below {tmp_path}/file/policy/" in capsys.readouterr().err
