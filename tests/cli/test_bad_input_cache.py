"""A cache directory that cannot be used, and entries that are not what they should be."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conforma.serve.images import Member, image_of, layer_of, random_member
from tests.cli.bad_release import BAD, BadRelease, assert_clean
from tests.cli.program import run_program
from tests.cli.shop import Outcome

pytestmark = pytest.mark.slow

LAYER = layer_of([Member("etc/motd", b"hello"), random_member("usr/lib/x", 300_000, "cache")])
IMAGE = image_of([LAYER])


@pytest.fixture
def full(release: BadRelease) -> BadRelease:
    release.add(IMAGE)
    return release


def answers(done: Outcome) -> dict[str, object]:
    """The report without the time."""
    assert done.status == 0, done.err
    assert_clean(done)
    return {name: value for name, value in done.report.items() if name != "effective-time"}


def entries(cache: Path, area: str, name: str) -> list[Path]:
    return [file for file in (cache / "v1" / area).rglob(name) if file.is_file()]


def downloads(release: BadRelease) -> int:
    return sum(
        request.method == "GET" and request.path.endswith(str(LAYER.digest))
        for request in release.shop.server.log
    )


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def empty(file: Path) -> None:
    os.truncate(file, 0)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    times = file.stat()
    file.write_bytes(data)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def link(file: Path) -> None:
    file.unlink()
    file.symlink_to("/etc/passwd")


@pytest.mark.parametrize("damage", [cut, empty, flip, link])
def test_a_damaged_entry_is_never_believed(
    full: BadRelease, damage: Callable[[Path], None]
) -> None:
    cache = full.shop.directory / "cache"
    before = answers(full.run())
    for area, name in (("blobs", LAYER.digest.hex), ("layers", LAYER.diff_id.hex)):
        (file,) = entries(cache, area, name)
        file.chmod(0o600)
        damage(file)
    for file in entries(cache, "tocs", "*"):
        file.unlink()
    assert answers(full.run()) == before
    if damage is not flip:  # its size is right; the table of contents was made from what it held
        assert downloads(full) == 2


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda place: place.write_text(""), "it is not a directory"),
        (lambda place: place.symlink_to(place.parent), "it is a symbolic link"),
        (lambda place: (place.mkdir(), place.chmod(0o777)), "everybody may write to it"),
    ],
    ids=["file", "link", "public"],
)
def test_a_directory_that_must_not_serve_costs_time_only(
    full: BadRelease, prepare: Callable[[Path], object], reason: str
) -> None:
    place = full.shop.directory / "place"
    prepare(place)
    done = full.run(cache_dir=str(place))
    answers(done)
    assert f"layers are not cached in this run: cannot use {place} as a cache: {reason}" in done.err


def without_privileges() -> None:
    """Make file modes count for root as well: give up the capabilities that override them."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (1, 2, 3):  # DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP, in force after exec


@pytest.mark.parametrize("where", ["cache_dir", "parent", "home"])
def test_a_directory_that_we_may_not_write_to(full: BadRelease, where: str) -> None:
    locked = full.shop.directory / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    place = {"cache_dir": locked, "parent": locked / "cache", "home": ""}[where]
    done = run_program(
        full.shop.arguments(policy=full.policy, cache_dir=str(place)),
        changes={"HOME": str(locked), "XDG_CACHE_HOME": None, "EC_CACHE_DIR": None},
        before=without_privileges,
    )
    locked.chmod(0o700)
    answers(done)
    assert not list(locked.iterdir())
    if where != "cache_dir":
        assert "layers are not cached in this run: " in done.err
        assert "Permission denied" in done.err


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    place = tmp_path / "tiny"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tiny", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only those who may mount can have a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_full_during_a_fill_costs_time_only(full: BadRelease, tiny: Path) -> None:
    before = answers(full.run("--no-cache"))
    cache = tiny / "cache"
    done = full.run(cache_dir=str(cache))
    assert answers(done) == before
    assert done.err.count(f"the cache {cache} cannot keep everything: No space left on device") == 1
    assert not entries(cache, "blobs", LAYER.digest.hex)
    assert not [file for file in cache.rglob("*.part") if file.stat().st_size]


def test_a_disk_that_is_full_everywhere_is_no_verdict(full: BadRelease, tiny: Path) -> None:
    (tiny / "tmp").mkdir()
    done = full.run("--no-cache", workers="1", changes={"TMPDIR": str(tiny / "tmp")})
    assert done.status == 3
    assert full.shop.components[-1]["name"] == BAD
    assert "No space left on device" in done.component(BAD)["error"]
    assert done.component("web")["success"] is True
    assert "hint: free some space, or set TMPDIR" in done.err
    assert_clean(done)


def test_files_may_not_become_large_enough(full: BadRelease) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = run_program(full.shop.arguments(policy=full.policy), before=limit)
    assert done.status == 3
    assert "File too large" in done.component(BAD)["error"]
    assert done.component("web")["success"] is True
    assert_clean(done)
