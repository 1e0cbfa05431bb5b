"""Where reports go, and that nothing is lost on the way."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from conforma.errors import InputError, ResourcesExhausted
from conforma.report import targets
from conforma.report.formats import Options
from conforma.report.targets import Target, parse, parse_all
from tests.report.samples import component, full, report

DEFAULTS = Options(show_successes=True)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("json", Target("json", DEFAULTS)),
        ("yaml=out=1.yaml", Target("yaml", DEFAULTS, "out=1.yaml")),
        ("=out", Target("json", DEFAULTS, "out")),
        ("", Target("json", DEFAULTS)),
        ("text?show-successes=false", Target("text", Options())),
        (
            "text=o?show-warnings=F&show-policy-docs-link=1&show-successes=",
            Target("text", Options(True, False, True), "o"),
        ),
    ],
)
def test_reads_targets(text: str, target: Target) -> None:
    assert parse(text, DEFAULTS) == target


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["spam"], '"spam" is not a valid report format'),
        (
            ["spam", "json", "egg=x"],
            '"spam" is not a valid report format\n"egg" is not a valid report format',
        ),
        (["text?show-successes=maybe"], 'strconv.ParseBool: parsing "maybe": invalid syntax'),
        (["text?colour=1"], '"colour" in --output "text?colour=1" is not an output option'),
        (["json=/nowhere/at/all.json"], "open /nowhere/at/all.json: no such file or directory"),
        (["json=/"], "open /: is a directory"),
    ],
)
def test_finds_what_is_wrong_before_work_begins(texts: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_all(texts, DEFAULTS)
    assert caught.value.message == message


def test_without_targets_it_is_text_on_standard_output() -> None:
    assert parse_all([], DEFAULTS) == (Target("text", DEFAULTS),)


def written(*texts: str) -> bytes:
    stdout = io.BytesIO()
    targets.write(full(), parse_all(texts, DEFAULTS), stdout)
    return stdout.getvalue()


def test_writes_every_target_in_order_with_one_newline_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    shown = written("appstudio", f"json={out}", "yaml", "attestation")
    assert shown.startswith(b'{"timestamp"') and b"}\ncomponents:\n" in shown
    assert shown.endswith(b"success: false\n\n"), "without attestations there is only a newline"
    assert out.read_bytes().endswith(b'"}\n') and out.read_bytes().count(b"\n") == 1


def test_a_new_file_has_the_usual_mode_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    old.write_text("before")
    old.chmod(0o640)
    before = os.umask(0o027)
    try:
        written(f"json={new}", f"json={old}")
    finally:
        os.umask(before)
    assert stat.S_IMODE(new.stat().st_mode) == 0o640
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert old.read_bytes().startswith(b'{"success"')


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_text("before")
    link = tmp_path / "link"
    link.symlink_to(real)
    written(f"json={link}")
    assert link.is_symlink() and real.read_bytes().startswith(b'{"success"')


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    written(f"json={pipe}")
    reader.join(10)
    assert got and got[0].startswith(b'{"success"')
    assert pipe.is_fifo()


def test_a_failure_half_way_leaves_the_old_file_and_the_other_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, fine = tmp_path / "broken", tmp_path / "fine"
    broken.write_text("before")

    def full_disk(*_: object) -> object:
        yield '{"half":'
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(targets.FORMATS, "junit", full_disk)  # type: ignore[misc]
    stdout = io.BytesIO()
    with pytest.raises(ResourcesExhausted) as caught:
        targets.write(
            report(component()),
            parse_all([f"junit={broken}", f"json={fine}", "appstudio"], DEFAULTS),
            stdout,
        )
    assert caught.value.message == f"write {broken}: no space left on device"
    assert broken.read_text() == "before"
    assert fine.read_bytes().startswith(b'{"success"')
    assert stdout.getvalue().startswith(b'{"timestamp"')
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken", "fine"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_the_surroundings_fault_and_an_unusable_target_the_users(
    tmp_path: Path,
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    unusable = parse_all([f"json={gone}/report"], DEFAULTS)
    gone.rmdir()
    with pytest.raises(InputError) as refused:
        targets.write(full(), unusable, io.BytesIO())
    assert refused.value.message == f"write {gone}/report: no such file or directory"
    assert refused.value.exit_status == 1
    with pytest.raises(ResourcesExhausted) as caught:
        targets.write(full(), [*unusable, *parse_all(["json=/dev/full"], DEFAULTS)], io.BytesIO())
    assert caught.value.exit_status == 3
    assert caught.value.message == (
        f"write {gone}/report: no such file or directory\nwrite /dev/full: no space left on device"
    )
    assert "free some space, or write the report elsewhere" in str(caught.value.hint)


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EIO])
def test_a_quota_and_a_broken_disk_are_like_a_full_one(number: int) -> None:
    class Failing(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(number, os.strerror(number))

    with pytest.raises(ResourcesExhausted) as caught:
        targets.write(full(), parse_all([], DEFAULTS), Failing())
    assert caught.value.message == f"write standard output: {os.strerror(number).lower()}"
    assert caught.value.exit_status == 3 and caught.value.hint


@pytest.mark.parametrize("options", ["rw", "ro"])
def test_a_file_that_is_mounted_by_itself_is_filled(tmp_path: Path, options: str) -> None:
    """As ``docker run --read-only -v ./report.json:/report.json`` does it."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare, to mount")
    root, outside = tmp_path / "root", tmp_path / "outside.txt"
    root.mkdir()
    (root / "report.txt").touch()
    outside.write_text("what was there before, and longer than what comes")
    script = (
        "from tests.report.test_targets import written;"
        f"assert written('text={root}/report.txt') == b''"
    )
    mounts = (
        f"mount --bind {root} {root} && mount -o remount,bind,{options} {root} && "
        f"mount --bind {outside} {root}/report.txt"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mounts} && exec "$0" -c "$1"', sys.executable, script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "mount:" in done.stderr:
        pytest.skip(f"mounting is not allowed here: {done.stderr}")
    assert (done.returncode, done.stderr) == (0, "")
    assert outside.read_bytes() == written("text")
    assert [path.name for path in root.iterdir()] == ["report.txt"]
