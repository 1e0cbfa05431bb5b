"""Where the content of a run came from, told by the registry client and the cache together."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from conforma.cache.filters import TreeFilter
from conforma.cache.images import ImageReader
from conforma.cache.options import CacheOptions
from conforma.cache.origins import Origin, Origins
from conforma.cache.safe_cache import SafeCache
from conforma.cancellation import Cancellation
from conforma.oci.digest import Digest
from conforma.oci.mirrors import Mirror
from conforma.oci.places import Places
from conforma.oci.reference import Reference
from conforma.oci.registry import RegistryOptions
from conforma.serve.images import Image, Member, image_of, layer_of
from conforma.serve.registry import RegistryServer
from tests.cache.upstream import Gate, Upstream, sample, together

LONG_AGO = 1_600_000_000.0


def picture() -> Image:
    return image_of([layer_of([Member(f"etc/{n}", os.urandom(5_000))]) for n in range(2)])


def read(
    directory: Path, reference: str, mirrors: Sequence[Mirror] = (), layouts: Sequence[str] = ()
) -> dict[Digest, Origin]:
    """One run: the files of one image."""
    origins = Origins()
    with SafeCache.open(CacheOptions(directory / "c"), origins=origins) as cache:
        options = RegistryOptions(
            environment={"HOME": str(directory), "PATH": ""},
            mirrors={mirror.origin: mirror for mirror in mirrors},
            content=cache.content,
            delivered=origins.delivered,
        )
        with Places(options, Cancellation(), layouts) as registry:
            list(ImageReader(registry, cache).tree(Reference.parse(reference), TreeFilter()))
        found = origins.listed(cache.verified_at)
    return {origin.digest: origin for origin in found}


def sources(found: dict[Digest, Origin]) -> set[tuple[str, str]]:
    return {(origin.source, origin.place) for origin in found.values()}


def test_what_was_downloaded_names_the_registry_and_what_was_there_the_cache(
    tmp_path: Path,
) -> None:
    image = picture()
    started = time.time()
    with RegistryServer() as server:
        digest = image.put(server.store, "app")
        reference = f"{server.host}/app@{digest}"
        cold = read(tmp_path, reference)
        served = server.log.settled().blob_downloads()
        warm = read(tmp_path, reference)
    assert sources(cold) == {("registry", server.host)}
    assert {str(d) for d in cold} == {str(digest), *served}
    assert sources(warm) == {("cache", "")}
    assert warm.keys() == cold.keys()
    for origin in (*cold.values(), *warm.values()):
        assert started - 1 <= origin.verified <= time.time()
        assert origin.size > 0
    layers = [origin for origin in cold.values() if origin.images]
    assert {images for origin in layers for images in origin.images} == {reference}
    assert len(layers) == 3  # two layers and a configuration


def test_when_it_was_verified_is_when_it_was_stored_or_checked_since(tmp_path: Path) -> None:
    with RegistryServer() as server:
        digest = picture().put(server.store, "app")
        reference = f"{server.host}/app@{digest}"
        read(tmp_path, reference)
        for path in (tmp_path / "c/v1").rglob("*"):
            os.utime(path, (LONG_AGO, LONG_AGO))
        layers = {d: o for d, o in read(tmp_path, reference).items() if o.images}
        assert {origin.verified for origin in layers.values()} == {LONG_AGO}
        checked = time.time()
        with SafeCache.open(CacheOptions(tmp_path / "c")) as cache:
            assert list(cache.upkeep().verify())[-1].bad == []
        layers = {d: o for d, o in read(tmp_path, reference).items() if o.images}
        assert all(origin.verified >= checked - 1 for origin in layers.values())


@pytest.mark.parametrize("final", [True, False])
def test_a_mirror_is_named_as_such(tmp_path: Path, final: bool) -> None:
    with RegistryServer() as server, RegistryServer() as origin:
        image = picture()
        digest = image.put(server.store, "app")
        if not final:
            image.put(origin.store, "app")
        mirror = Mirror(origin.host, server.host, final=final)
        found = read(tmp_path, f"{origin.host}/app@{digest}", [mirror])
        assert sources(found) == {("mirror", server.host)}
        assert origin.log.settled().blob_downloads() == {}


def test_a_layout_is_a_place_and_as_a_mirror_a_mirror(tmp_path: Path) -> None:
    from conforma.cli.root import run

    with RegistryServer() as server:
        digest = picture().put(server.store, "app")
        reference = f"{server.host}/app@{digest}"
        place = f"oci:{tmp_path / 'layout'}"
        assert run(["mirror", "--image", reference, "--to", place, "--progress=none"]) == 0
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert sources(read(tmp_path / "a", f"{place}@{digest}")) == {("registry", place)}
    assert sources(read(tmp_path / "b", reference, layouts=[place])) == {("mirror", place)}


def test_what_another_process_was_downloading_is_shared(tmp_path: Path) -> None:
    gate, upstream = Gate(), Upstream(sample())
    upstream.hold[100_000] = gate
    what = upstream.sample
    origins = Origins()
    with (
        SafeCache.open(CacheOptions(tmp_path / "c")) as other,
        SafeCache.open(CacheOptions(tmp_path / "c"), origins=origins) as mine,
    ):
        theirs = other.layer(what.descriptor, None, upstream.fetch)
        first = together(1, lambda _: theirs.compressed().read(), wait=False)
        gate.wait_reached()
        ours = mine.layer(what.descriptor, None, upstream.fetch)
        with ours.stream() as source:
            source.read(1)  # we follow what they download
            gate.open()
            source.read()
        assert first.join().results == [what.blob]
        (origin,) = origins.listed(mine.verified_at)
    assert upstream.requests == 1
    assert (origin.source, origin.place, origin.uses) == ("shared", "", 1)
    assert origin.verified > 0
