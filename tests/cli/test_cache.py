"""``conforma cache``: looking after the layer cache from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conforma.cli.root import run
from tests.cli.program import read_only, run_with_mounts
from tests.cli.shop import Outcome, Shop


def cache(shop: Shop, *args: str) -> Outcome:
    shop.capture.readouterr()
    status = run(["cache", *args, "--cache-dir", str(shop.directory / "cache")])
    captured = shop.capture.readouterr()
    return Outcome(status, captured.out, captured.err)


def snapshot(shop: Shop, *images: str) -> str:
    return json.dumps(
        {"components": [{"name": f"c{n}", "containerImage": i} for n, i in enumerate(images)]}
    )


@pytest.fixture
def filled(shop: Shop) -> Shop:
    shop.publish("web")
    done = cache(shop, "prefetch", "--images", snapshot(shop, shop.reference("web")))
    assert done.status == 0, done.err
    return shop


def layers_of(shop: Shop) -> int:
    return len(json.loads(shop.images["web"].manifest)["layers"])


def inventory(shop: Shop) -> dict[str, int]:
    document = json.loads(cache(shop, "info", "--json").out)
    return {area: found["entries"] for area, found in document["areas"].items()}


def test_prefetch_brings_every_layer_and_a_second_time_none(filled: Shop) -> None:
    layers = layers_of(filled)
    counts = inventory(filled)
    assert counts["tocs"] == counts["links"] == layers
    assert counts["blobs"] >= layers + 1
    before = len(filled.server.log.matching("GET", r"/blobs/"))
    done = cache(filled, "prefetch", "--images", snapshot(filled, filled.reference("web")))
    assert done.out.startswith("fetched 0 B; ")
    assert len(filled.server.log.matching("GET", r"/blobs/")) == before


def test_prefetch_tells_what_is_missing_and_brings_the_rest(shop: Shop) -> None:
    shop.publish("web")
    missing = shop.reference("web").replace("web", "nowhere")
    done = cache(shop, "prefetch", "--images", snapshot(shop, missing, shop.reference("web")))
    assert done.status == 3
    assert "nowhere" in done.err
    assert inventory(shop)["tocs"] == layers_of(shop)


def test_verify_finds_quarantines_and_exits_with_1(filled: Shop) -> None:
    assert cache(filled, "verify").status == 0
    root = filled.directory / "cache" / "v1"
    victims = [next(f for f in (root / a).rglob("*") if f.is_file()) for a in ("blobs", "tocs")]
    for victim in victims:
        content = bytearray(victim.read_bytes())
        content[-1] ^= 1
        victim.chmod(0o600)
        victim.write_bytes(content)
    done = cache(filled, "verify", "--json")
    assert done.status == 1
    found = json.loads(done.out)
    assert len(found["bad"]) == 2
    assert {name.partition("/")[0] for name in found["bad"]} == {"blobs", "tocs"}
    assert not any(victim.exists() for victim in victims)
    assert cache(filled, "verify").status == 0


def test_clear_leaves_nothing(filled: Shop) -> None:
    assert cache(filled, "clear").out.startswith("freed ")
    assert set(inventory(filled).values()) == {0}


def test_gc_keeps_the_limit(filled: Shop) -> None:
    assert cache(filled, "gc", "--cache-size", "1KiB").status == 0
    assert json.loads(cache(filled, "info", "--json").out)["bytes"] <= 1024


def test_lc_39_info_says_what_all_runs_had_as_the_registry_saw_it(filled: Shop) -> None:
    cache(filled, "prefetch", "--images", snapshot(filled, filled.reference("web")))
    downloads = filled.server.log.settled().matching("GET", r"/blobs/")
    totals = json.loads(cache(filled, "info", "--json").out)["totals"]
    assert totals["runs"] == 2
    assert totals["downloads"] == len(downloads) == totals["misses"]
    assert totals["downloadedBytes"] == sum(request.bytes for request in downloads)
    assert totals["savedBytes"] == totals["downloadedBytes"]  # the second run read the same
    assert totals["hitRate"] == 0.5
    text = cache(filled, "info").out
    assert f"Hits:       {totals['hits']} of {2 * totals['hits']} reads (50%) in 2 runs" in text
    assert f"were downloaded in {len(downloads)} transfers" in text


def test_info_of_an_unused_cache_says_so(shop: Shop) -> None:
    assert json.loads(cache(shop, "info", "--json").out)["totals"]["hitRate"] is None
    assert "no run has read a layer yet" in cache(shop, "info").out


def test_info_is_for_people_too(filled: Shop) -> None:
    text = cache(filled, "info").out
    assert f"Directory:  {filled.directory / 'cache'} (read-write)" in text
    assert "Leftovers:  0 unfinished, 0 quarantined" in text


@pytest.mark.parametrize("operation", ["info", "verify", "gc", "clear"])
def test_a_directory_with_other_things_is_left_alone(shop: Shop, operation: str) -> None:
    foreign = shop.directory / "cache"
    foreign.mkdir()
    (foreign / "diary.txt").write_text("mine")
    done = cache(shop, operation)
    assert done.status == 1
    assert "holds other things and no cache" in done.err
    assert [path.name for path in foreign.iterdir()] == ["diary.txt"]


def test_what_would_change_a_cache_that_is_read_only_for_us_says_so(filled: Shop) -> None:
    directory = filled.directory / "cache"

    def locked(operation: str) -> Outcome:
        arguments = ["cache", operation, "--cache-dir", str(directory)]
        return run_with_mounts(read_only(directory), arguments)

    for operation in ("gc", "clear"):
        done = locked(operation)
        assert done.status == 3
        assert "it is read-only for us" in done.err
    done = locked("info")
    assert (done.status, done.err) == (0, "")
    assert "(read-only)" in done.out
    victim = next(path for path in (directory / "v1/tocs").rglob("*") if path.is_file())
    victim.chmod(0o600)
    victim.write_bytes(b"damaged")
    done = locked("verify")
    assert done.status == 1
    assert "bad, left where it is: the cache is read-only: tocs/sha256:" in done.out
    assert victim.exists()


@pytest.mark.parametrize("operation", ["info", "verify", "gc", "clear"])
def test_a_directory_that_cannot_serve_is_an_error(shop: Shop, operation: str) -> None:
    Path(shop.directory / "cache").write_text("a file")
    done = cache(shop, operation)
    assert done.status == 3
    assert "cannot use" in done.err
