"""Directories of killed processes are swept; those of anybody else are not touched."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conforma.policy.work_directory import WorkDirectory, sweep

OWNER = """
import sys
from conforma.policy.work_directory import WorkDirectory
place = WorkDirectory(keep=sys.argv[1] == "keep")
place.path.joinpath("policy").mkdir()
place.path.joinpath("policy", "main.rego").write_text("package main")
print(place.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert all(path.stat().st_uid == os.geteuid() for path in tmp_path.iterdir())


def another(place: Path, how: str = "") -> tuple[subprocess.Popen[str], Path]:
    """A process with a directory of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, how],
        env={**os.environ, "TMPDIR": str(place), "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)


def test_it_is_new_named_with_digits_and_for_its_owner_only(temporary: Path) -> None:
    one, other = WorkDirectory(keep=True).path, WorkDirectory(keep=True).path
    assert one != other
    for path in (one, other):
        assert path.parent == temporary
        assert re.fullmatch(r"ec-work-\d+", path.name)
        assert path.stat().st_mode & 0o777 == 0o700


def test_what_a_killed_process_left_is_removed_and_not_before(temporary: Path) -> None:
    process, directory = another(temporary)
    sweep()
    assert (directory / "policy/main.rego").is_file()
    kill(process)
    sweep()
    assert list(temporary.iterdir()) == []


def test_what_is_to_stay_stays_for_ever(temporary: Path) -> None:
    process, directory = another(temporary, "keep")
    kill(process)
    sweep()
    assert (directory / "policy/main.rego").is_file()


def test_what_somebody_else_made_is_left_alone(temporary: Path) -> None:
    foreign = temporary / "ec-work-of-another-program"
    foreign.mkdir()
    (foreign / "precious").write_text("")
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".in-use").write_text("")
    (temporary / "ec-work-link").symlink_to(elsewhere)
    (temporary / "ec-work-file").write_text("")
    before = sorted(temporary.rglob("*"))
    sweep()
    assert sorted(temporary.rglob("*")) == before


def test_our_own_are_removed_when_we_are_done(temporary: Path) -> None:
    place = WorkDirectory(keep=False)
    (place.path / "a").mkdir()
    (place.path / "b").write_text("")
    sweep()
    assert place.path.is_dir()
    place.remove()
    assert list(temporary.iterdir()) == []
