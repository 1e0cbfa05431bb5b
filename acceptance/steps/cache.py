"""The layer cache: what was downloaded, and what happens to damaged entries."""

from __future__ import annotations

import gzip
import hashlib
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_bdd import given, parsers, then, when

from acceptance.steps.images import layers_of, shared_layers
from acceptance.world import World

CACHE = "@CACHE@"
"""Stands for the cache directory in a line for the shell."""


@then("every layer was downloaded exactly once")
def each_once(world: World) -> None:
    downloads = layer_downloads(world)
    wanted = {str(digest) for name in world.images for digest in layers_of(world, name)}
    assert set(downloads) == wanted
    assert set(downloads.values()) == {1}, downloads


@then("no layer was downloaded")
def none_downloaded(world: World) -> None:
    assert layer_downloads(world) == {}


@then(parsers.parse("{count:d} layer was downloaded"))
def some_downloaded(world: World, count: int) -> None:
    assert sum(layer_downloads(world).values()) == count, layer_downloads(world)


@then(parsers.parse('only the layers of "{name}" were downloaded'))
def only_own_downloaded(world: World, name: str) -> None:
    assert set(layer_downloads(world)) == {str(digest) for digest in layers_of(world, name)}


@then("every shared layer was downloaded by every component")
def each_shared_often(world: World) -> None:
    downloads = layer_downloads(world)
    assert min(downloads[str(digest)] for digest in shared_layers(world)) >= len(world.images)


@then("all reports are the same")
def same_reports(world: World) -> None:
    every = [without_times(outcome.report) for outcome in world.outcomes if outcome.report]
    assert len(every) > 1
    assert all(report == every[0] for report in every)


@then("all commands passed")
def all_passed(world: World) -> None:
    for outcome in world.outcomes:
        assert outcome.status == 0, outcome.stderr


@when("the cache directory is made read-only")
def read_only_cache(world: World, request: pytest.FixtureRequest) -> None:
    """Take the write permission away; root writes all the same, which changes no answer."""
    for path in [world.cache_directory, *world.cache_directory.rglob("*")]:
        mode = path.stat().st_mode
        path.chmod(mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))

    def restore() -> None:
        for path in [world.cache_directory, *world.cache_directory.rglob("*")]:
            path.chmod(path.stat().st_mode | stat.S_IWUSR)

    request.addfinalizer(restore)


@when("the cache is mounted read-only")
def read_only_mount(world: World) -> None:
    """Not even root can write there, and the commands that follow are in that situation."""
    in_own_mounts(world, f"mount --bind {CACHE} {CACHE} && mount -o remount,bind,ro {CACHE}", "")


@given(parsers.parse("the cache lives on a disk with room for {size:d} kB"))
def small_disk(world: World, size: int) -> None:
    """A file system of its own in memory; what is on it in the end is copied out to be looked at."""
    world.cache_directory.mkdir()
    kept = world.directory / "kept"
    in_own_mounts(
        world,
        f"mount -t tmpfs -o size={size}k,mode=700 cache {CACHE}",
        f"rm -rf {kept}; cp -a {CACHE} {kept}",
    )


def in_own_mounts(world: World, before: str, after: str) -> None:
    """Run what follows with mounts that nobody else sees; skips where the system forbids that."""
    probe = ["unshare", "--map-root-user", "--mount", "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        pytest.skip("this system lets nobody mount anything")
    script = f'{before} && {{ "$@"; status=$?; {after or ":"}; exit $status; }}'
    script = script.replace(CACHE, str(world.cache_directory))
    world.surroundings = (*probe[:-1], "sh", "-c", script, "sh")


@when("everything in the cache directory is noted")
def note_everything(world: World) -> None:
    world.noted = state_of(world.cache_directory)


@then("nothing in the cache directory has changed")
def nothing_changed(world: World) -> None:
    assert world.noted
    assert state_of(world.cache_directory) == world.noted


@when("the first shared layer is missing from the cache")
def remove_entry(world: World) -> None:
    for entry in entries_of_the_first_shared_layer(world):
        entry.unlink()


@when(parsers.parse('another machine imports "{place}" into its empty cache'))
def import_elsewhere(world: World, place: str) -> None:
    """From here on, the cache is that of the other machine."""
    world.cache_directory.rename(world.directory / "the first machine's cache")
    world.finish(world.start("cache", "import", place), world.new_report())


@when(parsers.parse('the first shared layer in "{place}" is bit-flipped'))
def damage_export(world: World, place: str) -> None:
    digest = shared_layers(world)[0]
    path = world.directory / place / "blobs" / digest.algorithm / digest.hex
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@then("the small disk holds nothing but whole layers")
def whole_layers_on_small_disk(world: World) -> None:
    kept = whole(world.directory / "kept")
    assert kept, "nothing was stored at all"
    assert_whole(kept)


@then("the first shared layer was asked for twice, the second time only its rest")
def resumed(world: World) -> None:
    digest = shared_layers(world)[0]
    body = world.registry.store.blob(digest)
    assert body is not None
    asked = world.registry.log.settled().matching("GET", f"/blobs/{digest}")
    assert [request.status for request in asked] == [200, 206]
    assert 0 < asked[1].bytes < body.size


@given("there is a file where the cache directory should be")
def unusable_cache(world: World) -> None:
    world.cache_directory.write_text("in the way")


@when(parsers.parse("the first shared layer in the cache is {damage}"))
def damage_entry(world: World, damage: str) -> None:
    """Damage the layer as it was downloaded and as it was unpacked."""
    for entry in entries_of_the_first_shared_layer(world):
        data = bytearray(entry.read_bytes())
        if damage == "truncated":
            del data[len(data) // 2 :]
        elif damage == "empty":
            data.clear()
        elif damage == "bit-flipped":
            # In the configuration that the policy reads, or anywhere in the compressed bytes.
            place = data.find(b'{"layer"')
            data[place if place >= 0 else len(data) // 2] ^= 1
        else:
            raise AssertionError(damage)
        mode = entry.stat().st_mode
        entry.chmod(mode | stat.S_IWUSR)
        entry.write_bytes(data)
        entry.chmod(mode)


@then("the cache holds nothing but whole layers")
def whole_layers(world: World) -> None:
    """Whatever has the name of a layer has its content."""
    assert_whole(whole(world.cache_directory))


def assert_whole(paths: list[Path]) -> None:
    for path in paths:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def entries_of_the_first_shared_layer(world: World) -> list[Path]:
    """As it was downloaded, and as it was unpacked."""
    digest = shared_layers(world)[0]
    body = world.registry.store.blob(digest)
    assert body is not None
    unpacked = gzip.decompress(body.read(0, body.size))
    names = {digest.hex, hashlib.sha256(unpacked).hexdigest()}
    found = whole(world.cache_directory)
    entries = [path for path in found if path.name in names]
    assert len(entries) == 2, [str(path) for path in found]
    return entries


def state_of(directory: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file."""
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in files_below(directory)}


def whole(directory: Path) -> list[Path]:
    """Every compressed and every unpacked layer in a cache, whatever the version of its layout."""
    found = files_below(directory)
    kinds = ("blobs", "layers")
    return [f for f in found if f.parts[-4] in kinds and re.fullmatch("[0-9a-f]{64}", f.name)]


def files_below(directory: Path) -> Iterator[Path]:
    return (path for path in directory.rglob("*") if path.is_file())


def layer_downloads(world: World) -> dict[str, int]:
    """How often each layer was fetched with GET."""
    layers = {str(digest) for name in world.images for digest in layers_of(world, name)}
    downloads = world.registry.log.settled().blob_downloads()
    return {digest: count for digest, count in downloads.items() if digest in layers}


def without_times(report: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if report is None else {k: v for k, v in report.items() if k != "effective-time"}
