"""What the program says it is made of."""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path

import pytest

import conforma
from conforma.cli import version
from conforma.cli.root import run


def test_two_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Version            v{conforma.__version__}"
    assert [line[:19].rstrip() for line in lines] == [
        "Version", "Source ID", "Change date", "ECC", "OPA", "Conftest", "Cosign", "Sigstore",
        "Rekor", "Tekton Pipeline", "Kubernetes Client",
    ]  # fmt: skip


def test_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version", "-j"]) == 0
    out = capsys.readouterr().out
    document = json.loads(out)
    assert out.count("\n") == 1
    assert list(document) == ["Version", "Commit", "ChangedOn", "Components"]
    versions = {part["Name"]: part["Version"] for part in document["Components"]}
    assert versions["Sigstore"] == f"v{importlib.metadata.version('sigstore')}"
    assert versions["Conftest"] == "N/A"


def test_short_is_the_version_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version", "--short"]) == 0
    assert capsys.readouterr().out == f"v{conforma.__version__}"


def test_a_stray_word_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version", "--short", "vsa"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert 'Error: unknown command "vsa" for "conforma version"\n' in captured.err


def test_a_build_knows_its_commit(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "commit.txt").write_text(f"{'ab' * 20} 1257894000\n")
    monkeypatch.setattr(version, "PACKAGE", str(tmp_path))
    assert run(["version"]) == 0
    source, changed = capsys.readouterr().out.splitlines()[1:3]
    assert source == f"Source ID          {'ab' * 20}"
    assert re.fullmatch(
        r"Change date        2009-11-10 23:00:00 \+0000 UTC \(\d\d years ago\)", changed
    )
    assert run(["version", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["Commit"], document["ChangedOn"]) == ("ab" * 20, "2009-11-10T23:00:00Z")


def test_without_a_build_there_is_no_commit(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version, "PACKAGE", str(tmp_path))
    assert run(["version", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["Commit"], document["ChangedOn"]) == ("N/A", "N/A")


def test_opa_is_the_one_that_is_built_in() -> None:
    modules = Path(conforma.__file__).parent / "policy" / "rego" / "engine" / "go.mod"
    pinned = re.search(r"open-policy-agent/opa (v\S+)", modules.read_text())
    assert pinned is not None and pinned[1] == version.OPA
