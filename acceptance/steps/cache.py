"""The layer cache: what was downloaded, and what happens to damaged entries."""

from __future__ import annotations

import gzip
import hashlib
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_bdd import given, parsers, then, when

from acceptance.steps.images import layers_of, shared_layers
from acceptance.world import World


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


@given("there is a file where the cache directory should be")
def unusable_cache(world: World) -> None:
    world.cache_directory.write_text("in the way")


@when(parsers.parse("the first shared layer in the cache is {damage}"))
def damage_entry(world: World, damage: str) -> None:
    """Damage the layer as it was downloaded and as it was unpacked."""
    digest = shared_layers(world)[0]
    body = world.registry.store.blob(digest)
    assert body is not None
    unpacked = gzip.decompress(body.read(0, body.size))
    names = {digest.hex, hashlib.sha256(unpacked).hexdigest()}
    entries = [path for path in whole(world) if path.name in names]
    assert len(entries) == 2, [str(path) for path in whole(world)]
    for entry in entries:
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
    for path in whole(world):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def whole(world: World) -> list[Path]:
    """Every compressed and every unpacked layer in the cache, whatever the version of its layout."""
    found = files_below(world.cache_directory)
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
