"""LC-40 and LC-41 through the real command: the cache changes what a run costs, never what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conforma.oci.digest import Digest
from conforma.serve.images import Member, image_of, layer_of, random_member
from conforma.serve.signing import Signer
from conforma.serve.statements import Build, provenance_v1
from tests.cli.program import finish, read_only, run_program, run_with_mounts, start
from tests.cli.shop import Outcome, Shop

COMPONENTS, SHARED, SIZE = 6, 3, 150_000
BAD = "component-3"
RULES = """
package main

import rego.v1

# METADATA
# title: No keys
# custom:
#   short_name: no_keys
deny contains result if {
    some path, content in ec.oci.image_files(input.image.ref, ["etc"])
    content.key
    result := {"code": "main.no_keys", "msg": path, "term": path}
}

# METADATA
# title: Listed
# custom:
#   short_name: listed
warn contains result if {
    some entry in conforma.oci.image_tree(input.image.ref, {"paths": ["opt/*"]})
    result := {"code": "main.listed", "msg": entry.path, "term": entry.path}
}
"""


@pytest.fixture
def release(shop: Shop) -> Shop:
    """Components with common layers, one of which holds what it must not."""
    shared = [layer_of([random_member(f"opt/shared-{n}", SIZE, n)]) for n in range(SHARED)]
    for number in range(COMPONENTS):
        name = f"component-{number}"
        settings = json.dumps({"name": name, "key": name == BAD}).encode()
        image = image_of([*shared, layer_of([Member("etc/app.json", settings)])])
        digest = image.put(shop.server.store, f"shop/{name}")
        signer = Signer(shop.server.store, f"shop/{name}", shop.key)
        signer.sign(digest)
        signer.attest(digest, provenance_v1(Build(f"{shop.server.host}/shop/{name}", digest)))
        shop.images[name] = image
        reference = f"{shop.server.host}/shop/{name}@{digest}"
        shop.components.append({"name": name, "containerImage": reference})
    return shop


def arguments(
    release: Shop, *args: str, cache: Path | None = None, output: str = "json"
) -> list[str]:
    return release.arguments(
        *args,
        policy=release.policy(release.rules(RULES)),
        workers="8",
        effective_time="2030-01-01T00:00:00Z",
        output=output,
        cache_dir=str(cache or release.directory / "cache"),
    )


def run(release: Shop, *args: str, **choices: Path | None) -> Outcome:
    return run_program(arguments(release, *args, **choices))


def verdict(release: Shop) -> str:
    """What a run without a cache says, which is the truth."""
    done = run(release, "--no-cache")
    assert done.status == 1, done.err
    failed = [c["name"] for c in done.report["components"] if not c["success"]]
    assert failed == [BAD]
    assert done.component(BAD)["violations"][0]["msg"] == "etc/app.json"
    assert len(done.component(BAD)["warnings"]) == SHARED
    return done.out


def entries(directory: Path, area: str) -> list[Path]:
    return [path for path in (directory / "v1" / area).rglob("*") if path.is_file()]


def rewrite(path: Path, content: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(content)


def test_lc_40_verdicts_are_the_same_bytes_cold_warm_and_shared_by_two_processes(
    release: Shop,
) -> None:
    truth = verdict(release)
    release.server.log.clear()
    running = [start(arguments(release)) for _ in range(2)]
    both = [finish(process) for process in running]
    assert [(done.status, done.out) for done in both] == [(1, truth)] * 2
    downloads = release.server.log.settled().blob_downloads()
    layers = {
        layer["digest"]
        for image in release.images.values()
        for layer in json.loads(image.manifest)["layers"]
    }
    assert {digest: downloads[digest] for digest in layers} == dict.fromkeys(layers, 1)
    warm = run(release)
    assert (warm.status, warm.out) == (1, truth)


@pytest.mark.parametrize("sabotage", ["truncated", "emptied", "flipped", "swapped", "index"])
def test_lc_40_verdicts_are_the_same_bytes_over_a_sabotaged_cache(
    release: Shop, sabotage: str
) -> None:
    truth = verdict(release)
    cache = release.directory / "cache"
    assert run(release).out == truth
    if sabotage == "index":
        for path in entries(cache, "index"):
            rewrite(path, b"no database")
    for area in ("blobs", "layers", "tocs", "links"):
        found = sorted(entries(cache, area))
        contents = [path.read_bytes() for path in found]
        for number, path in enumerate(found):
            data = bytearray(contents[number])
            if sabotage == "truncated":
                rewrite(path, bytes(data[: len(data) // 2]))
            elif sabotage == "emptied":
                rewrite(path, b"")
            elif sabotage == "flipped":
                data[len(data) // 2] ^= 1
                rewrite(path, bytes(data))
            elif sabotage == "swapped":
                rewrite(path, contents[number - 1])
    done = run(release, "--cache-verify=always")
    assert (done.status, done.out) == (1, truth), done.err


def test_lc_40_verdicts_are_the_same_bytes_over_a_read_only_cache(release: Shop) -> None:
    truth = verdict(release)
    assert run(release).out == truth
    cache = release.directory / "cache"
    entries(cache, "links")[0].unlink()  # so that there are misses as well as hits
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    done = run_with_mounts(read_only(cache), arguments(release))
    assert (done.status, done.out) == (1, truth), done.err
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


def test_lc_40_verdicts_are_the_same_bytes_with_no_room_to_speak_of(release: Shop) -> None:
    truth = verdict(release)
    done = run(release, "--cache-size=1KiB")
    assert (done.status, done.out) == (1, truth), done.err


def test_lc_40_verdicts_are_the_same_bytes_with_a_full_disk(release: Shop) -> None:
    truth = verdict(release)
    small = release.directory / "small"
    small.mkdir()
    mount = f"mount -t tmpfs -o size=200k,mode=700 cache {small}"
    full = run_with_mounts(mount, arguments(release, cache=small))
    assert (full.status, full.out) == (1, truth), full.err
    assert "cannot keep everything: No space left on device" in full.err


def test_lc_40_a_fault_is_an_error_verdict_neither_pass_nor_violation(release: Shop) -> None:
    name = "component-1"
    own = json.loads(release.images[name].manifest)["layers"][-1]
    digest = Digest.parse(own["digest"])
    body = release.server.store.blob(digest)
    assert body is not None
    data = bytearray(body.read(0, body.size))
    data[len(data) // 2] ^= 1
    release.server.store.put_blob(f"shop/{name}", bytes(data), digest=digest)
    reports = [run(release, *args) for args in ((), (), ("--no-cache",))]
    assert [done.status for done in reports] == [3, 3, 3]
    for done in reports:
        broken = done.component(name)
        assert "digest mismatch" in broken["error"]
        assert not broken["success"]
        assert "violations" not in broken
        others = [c["name"] for c in done.report["components"] if c["success"]]
        assert len(others) == COMPONENTS - 2


def test_lc_41_a_warm_run_moves_and_inflates_nothing_where_one_without_repeats_everything(
    release: Shop,
) -> None:
    def effort(*args: str) -> dict[str, int]:
        done = run_program(arguments(release, *args, output="provenance"))
        assert done.status == 1, done.err
        found: dict[str, int] = done.report["totals"]["cache"]
        return found

    distinct = SHARED + COMPONENTS
    without, cold, warm = effort("--no-cache"), effort(), effort()
    assert cold["transfers"] == distinct + COMPONENTS  # layers and configurations, each once
    assert cold["derived"] == distinct
    assert (warm["transfers"], warm["networkBytes"], warm["derived"]) == (0, 0, 0)
    assert warm["savedBytes"] == cold["savedBytes"] + cold["networkBytes"]
    assert without["transfers"] >= COMPONENTS * (SHARED + 2)
    assert without["networkBytes"] >= COMPONENTS * SHARED * SIZE
    assert without["networkBytes"] > 2 * cold["networkBytes"]
