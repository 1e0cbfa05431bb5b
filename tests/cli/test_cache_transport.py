"""``conforma cache export`` and ``import``: layers from one cache to another, by an image layout."""

from __future__ import annotations

import hashlib
import json
import resource
import tarfile
from pathlib import Path

import pytest

from conforma.cli.root import run
from conforma.oci import media_types
from conforma.oci.digest import DiffID, Digest
from conforma.oci.layout import Layout
from conforma.oci.reference import Reference
from conforma.serve.images import Layer, Member, image_of, layer_of, random_member
from conforma.serve.signing import Signer
from conforma.serve.statements import Build, provenance_v1
from tests.cli.program import finish, read_only, run_program, run_with_mounts, start
from tests.cli.shop import Outcome, Shop

SIZE = 200_000
RULE = """
package main

import rego.v1

# METADATA
# title: No keys
# custom:
#   short_name: no_keys
deny contains result if {
    some path, _ in ec.oci.image_files(input.image.ref, ["opt"])
    endswith(path, ".pem")
    result := {"code": "main.no_keys", "msg": path}
}
"""


def cache(shop: Shop, *args: str, directory: str = "cache") -> Outcome:
    shop.capture.readouterr()
    status = run(["cache", *args, "--cache-dir", str(shop.directory / directory)])
    captured = shop.capture.readouterr()
    return Outcome(status, captured.out, captured.err)


def bad_words(outcome: Outcome) -> list[str]:
    return [name for name in ("Traceback", "object at 0x") if name in outcome.out + outcome.err]


@pytest.fixture
def warm(shop: Shop) -> Shop:
    """Two images that share a layer, in the cache of their shop."""
    shared = layer_of([random_member("opt/shared", SIZE, 1)])
    for name in ("web", "api"):
        image = image_of([shared, layer_of([Member(f"opt/{name}", name.encode() * 9)])])
        digest = image.put(shop.server.store, f"shop/{name}", "1.0")
        shop.images[name] = image
        signer = Signer(shop.server.store, f"shop/{name}", shop.key)
        signer.sign(digest)
        signer.attest(digest, provenance_v1(Build(f"{shop.server.host}/shop/{name}", digest)))
        reference = f"{shop.server.host}/shop/{name}@{digest}"
        shop.components.append({"name": name, "containerImage": reference})
    done = cache(shop, "prefetch", "--images", snapshot(shop))
    assert done.status == 0, done.err
    return shop


def snapshot(shop: Shop) -> str:
    return json.dumps({"components": shop.components})


def layers(shop: Shop, name: str) -> list[str]:
    return [layer["digest"] for layer in json.loads(shop.images[name].manifest)["layers"]]


def blobs_below(directory: Path) -> dict[str, Path]:
    return {path.name: path for path in directory.glob("blobs/sha256/*")}


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


def entry(shop: Shop, digest: str, directory: str = "cache") -> Path:
    name = Digest.parse(digest).hex
    return shop.directory / directory / "v1/blobs/sha256" / name[:2] / name


@pytest.mark.parametrize("place", ["layout", "layout.tar", "oci:other", "oci-archive:other"])
def test_what_is_exported_and_imported_needs_no_download(warm: Shop, place: str) -> None:
    scheme, _, name = place.rpartition(":")
    place = f"{scheme}{':' if scheme else ''}{warm.directory / name}"
    done = cache(warm, "export", "--images", snapshot(warm), place, "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out) == {
        "destination": place,
        "blobs": 2 + 2 + 3,  # manifests, configurations, layers
        "bytes": json.loads(done.out)["bytes"],
        "present": 0,
        "images": 2,
        "missing": [],
        "bad": [],
    }
    done = cache(warm, "import", place, "--json", directory="there")
    assert done.status == 0, done.err
    imported = json.loads(done.out)
    assert (imported["blobs"], imported["present"], imported["layers"]) == (7, 0, 3)
    warm.server.log.clear()
    policy = warm.policy(warm.rules(RULE))
    done = warm.validate(policy=policy, cache_dir=str(warm.directory / "there"), workers="2")
    assert done.status == 0, done.err
    wanted = {digest for name in warm.images for digest in layers(warm, name)}
    assert wanted.isdisjoint(warm.server.log.settled().blob_downloads())
    info = json.loads(cache(warm, "info", "--json", directory="there").out)
    assert info["areas"]["tocs"]["entries"] == info["areas"]["links"]["entries"] == 3
    assert info["totals"]["hits"] > 0
    assert info["totals"]["downloadedBytes"] == 0  # what was imported was not downloaded


def test_what_is_exported_is_an_image_layout_as_others_read_it(warm: Shop) -> None:
    place = warm.directory / "layout"
    assert cache(warm, "export", "--images", snapshot(warm), str(place)).status == 0
    assert json.loads((place / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    for name, path in blobs_below(place).items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == name
    layout = Layout.open(f"oci:{place}")
    for component in warm.components:
        reference = Reference.parse(component["containerImage"])
        assert layout.manifest(reference).media_type
    assert {e.repository for e in layout.entries} == {
        f"{warm.server.host}/shop/{name}" for name in ("web", "api")
    }


def test_a_tag_is_looked_up_and_kept_as_the_name(warm: Shop) -> None:
    place = warm.directory / "layout"
    images = json.dumps({"components": [{"name": "web", "containerImage": warm.reference("web")}]})
    assert cache(warm, "export", "--images", images, str(place)).status == 0
    (found,) = Layout.open(f"oci:{place}").entries
    assert (found.repository, found.tag) == (f"{warm.server.host}/shop/web", "1.0")


def test_a_second_export_adds_what_is_missing_and_a_second_import_nothing(warm: Shop) -> None:
    place = str(warm.directory / "layout")
    first = cache(warm, "export", "--json", layers(warm, "web")[0], place)
    assert json.loads(first.out)["blobs"] == 1
    second = json.loads(cache(warm, "export", "--json", "--images", snapshot(warm), place).out)
    assert (second["blobs"], second["present"], second["images"]) == (6, 1, 2)
    assert cache(warm, "import", place, directory="there").status == 0
    again = json.loads(cache(warm, "import", "--json", place, directory="there").out)
    assert (again["blobs"], again["bytes"], again["present"]) == (0, 0, 7)


def test_one_thing_is_told_as_one(warm: Shop) -> None:
    place = str(warm.directory / "layout")
    done = cache(warm, "export", layers(warm, "web")[0], place)
    assert done.out.startswith("1 blob, ")
    assert done.out.endswith(
        "exported; already there: 0; 0 images are complete; 0 missing, 0 bad\n"
    )
    done = cache(warm, "import", place, directory="there")
    assert done.out.startswith("1 blob, ")
    assert done.out.endswith("imported; already there: 0; 0 layers are ready; 0 bad\n")
    assert cache(warm, "verify", directory="there").out.startswith("1 entry, ")


def test_a_manifest_is_exported_with_all_that_belongs_to_it(warm: Shop) -> None:
    place = warm.directory / "layout"
    digest = warm.components[0]["containerImage"].partition("@")[2]
    done = cache(warm, "export", digest, str(place))
    assert done.status == 0
    assert "1 image is complete" in done.out
    wanted = {Digest.parse(text).hex for text in (digest, *layers(warm, "web"))}
    assert wanted < blobs_below(place).keys()
    assert len(blobs_below(place)) == 4


def test_without_a_choice_everything_is_exported_and_complete_images_are_listed(
    warm: Shop,
) -> None:
    entry(warm, layers(warm, "api")[1]).unlink()  # as if it had been evicted
    place = warm.directory / "layout"
    done = cache(warm, "export", "--json", str(place))
    assert done.status == 0
    assert json.loads(done.out)["images"] == 1
    stored = {
        path.name for path in (warm.directory / "cache/v1/blobs").rglob("*") if path.is_file()
    }
    assert blobs_below(place).keys() == stored
    done = cache(warm, "import", str(place), directory="there")
    assert done.status == 0, done.err
    assert cache(warm, "verify", directory="there").status == 0


def test_what_is_not_in_the_cache_is_named_and_the_rest_exported(warm: Shop) -> None:
    gone = layers(warm, "api")[1]
    entry(warm, gone).unlink()
    place = warm.directory / "layout"
    done = cache(warm, "export", "--images", snapshot(warm), str(place))
    assert done.status == 1
    assert f"not in the cache: {gone} (layer of {warm.server.host}/shop/api@" in done.out
    assert "6 blobs" in done.out and "1 image is complete" in done.out
    names = [e.repository for e in Layout.open(f"oci:{place}").entries]
    assert names == [f"{warm.server.host}/shop/web"]
    unknown = Digest.of(b"nobody has this")
    done = cache(warm, "export", str(unknown), layers(warm, "web")[1], str(place))
    assert done.status == 1
    assert f"not in the cache: {unknown}" in done.out


def test_a_bad_blob_is_quarantined_by_an_export_and_its_neighbours_are_exported(
    warm: Shop,
) -> None:
    victim = layers(warm, "api")[1]
    damage(entry(warm, victim))
    place = warm.directory / "layout"
    done = cache(warm, "export", "--images", snapshot(warm), str(place), "--json")
    assert done.status == 1
    report = json.loads(done.out)
    assert (report["blobs"], report["images"], report["missing"]) == (6, 1, [])
    assert len(report["bad"]) == 1 and victim in report["bad"][0]
    assert Digest.parse(victim).hex not in blobs_below(place)
    assert not entry(warm, victim).exists()
    assert json.loads(cache(warm, "info", "--json").out)["quarantined"] == 1


def test_a_bad_blob_is_refused_by_an_import_and_its_neighbours_are_taken(warm: Shop) -> None:
    place = warm.directory / "layout"
    assert cache(warm, "export", "--images", snapshot(warm), str(place)).status == 0
    shared, victim = layers(warm, "api")
    damage(blobs_below(place)[Digest.parse(victim).hex])
    manifest = warm.components[0]["containerImage"].rpartition(":")[2]
    damage(blobs_below(place)[manifest])
    (place / "blobs/sha256/readme").write_text("no digest")
    done = cache(warm, "import", str(place), "--json", directory="there")
    assert done.status == 1
    report = json.loads(done.out)
    assert report["blobs"] == 5
    assert len(report["bad"]) == 3
    for name in (victim, manifest, "blobs/sha256/readme"):
        assert any(name in text for text in report["bad"]), report["bad"]
    assert not entry(warm, victim, "there").exists()
    assert entry(warm, shared, "there").exists()
    assert cache(warm, "verify", directory="there").status == 0


def test_a_read_only_cache_takes_nothing_in_and_says_so(warm: Shop) -> None:
    place = warm.directory / "layout"
    assert cache(warm, "export", str(place)).status == 0
    directory = warm.directory / "cache"
    arguments = ["cache", "import", str(place), "--cache-dir", str(directory)]
    done = run_with_mounts(read_only(directory), arguments)
    assert done.status == 3
    assert f"cannot change the cache {directory}: it is read-only for us" in done.err


def test_a_blob_that_the_cache_has_cut_short_is_brought_in_again(warm: Shop) -> None:
    place = warm.directory / "layout"
    assert cache(warm, "export", "--images", snapshot(warm), str(place)).status == 0
    victim = entry(warm, layers(warm, "web")[0])
    victim.chmod(0o600)
    victim.write_bytes(victim.read_bytes()[:100])
    report = json.loads(cache(warm, "import", str(place), "--json").out)
    assert (report["blobs"], report["present"], report["bad"]) == (1, 6, [])
    assert cache(warm, "verify").status == 0


def test_a_layer_that_is_no_archive_is_taken_in_as_the_blob_it_is(shop: Shop) -> None:
    blob = b"no archive at all"
    layer = Layer(blob, Digest.of(blob), DiffID.of(blob), media_types.OCI_LAYER_GZIP)
    image_of([layer]).put(shop.server.store, "shop/odd", "1.0")
    place = shop.directory / "layout"
    image = f"{shop.server.host}/shop/odd:1.0"
    assert run(["mirror", "--image", image, "--to", f"oci:{place}", "--progress=none"]) == 0
    done = cache(shop, "import", str(place), "--json")
    assert done.status == 0, done.err
    report = json.loads(done.out)
    assert (report["blobs"], report["layers"], report["bad"]) == (3, 0, [])


def test_cached_content_must_be_offered_where_that_is_asked_for(warm: Shop) -> None:
    """The manifest of an image is in another repository, its configuration and layers are not."""
    image = warm.images["web"]
    warm.server.store.repository("shop/copy").put_manifest(
        image.manifest, image.media_type, tag="1.0"
    )
    signer = Signer(warm.server.store, "shop/copy", warm.key)
    signer.sign(image.digest)
    signer.attest(image.digest, provenance_v1(Build(f"{warm.server.host}/shop/copy", image.digest)))
    copy = f"{warm.server.host}/shop/copy@{image.digest}"
    warm.components[:] = [{"name": "copy", "containerImage": copy}]
    policy, directory = warm.policy(warm.rules(RULE)), str(warm.directory / "cache")
    done = warm.validate(policy=policy, cache_dir=directory)
    assert done.status == 0, done.err
    done = warm.validate("--cache-proof", policy=policy, cache_dir=directory)
    assert done.status == 3
    assert "BLOB_UNKNOWN" in done.out + done.err


def small_files() -> None:
    """As a disk that is full: no file may grow beyond this (EFBIG, which we treat alike)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, SIZE // 2))


def test_a_full_disk_ends_an_import_and_says_so(warm: Shop) -> None:
    place = warm.directory / "layout"
    assert cache(warm, "export", str(place)).status == 0
    arguments = ["cache", "import", str(place), "--cache-dir", str(warm.directory / "there")]
    done = run_program(arguments, before=small_files)
    assert done.status == 3, done.err
    assert "cannot store blobs/sha256:" in done.err
    assert "File too large" in done.err
    assert bad_words(done) == []
    assert list((warm.directory / "there").rglob("*.part")) == []
    assert run_program(arguments).status == 0


def test_a_full_disk_ends_an_export_and_says_so(warm: Shop) -> None:
    for place in ("layout", "layout.tar"):
        target = warm.directory / place
        arguments = ["cache", "export", str(target), "--cache-dir", str(warm.directory / "cache")]
        done = run_program(arguments, before=small_files)
        assert done.status == 3, done.err
        assert f"{target}: cannot be written: file too large" in done.err
        assert bad_words(done) == []
        assert run_program(arguments).status == 0


def test_a_cache_that_is_too_small_for_an_import_says_so(warm: Shop) -> None:
    place = warm.directory / "layout"
    assert cache(warm, "export", str(place)).status == 0
    done = cache(warm, "import", str(place), "--cache-size", "100KiB", directory="there")
    assert done.status == 3
    assert "could not keep" in done.err and "--cache-size" in done.err


def test_two_imports_and_an_export_at_once_are_all_right(warm: Shop) -> None:
    place = str(warm.directory / "layout.tar")
    assert cache(warm, "export", place).status == 0
    there = str(warm.directory / "there")
    running = [start(["cache", "import", place, "--cache-dir", there]) for _ in range(2)]
    again = warm.directory / "again"
    running.append(start(["cache", "export", str(again), "--cache-dir", there]))
    outcomes = [finish(process) for process in running]
    assert [outcome.status for outcome in outcomes] == [0, 0, 0], outcomes
    for name, path in blobs_below(again).items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == name
    assert list(Path(there).rglob("*.part")) == []
    assert cache(warm, "verify", directory="there").status == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export"], "no destination"),
        (["export", "sha256:abc", "x"], "sha256:abc"),
        (["export", "nonsense", "x"], "nonsense"),
        (["export", "--images", "{}", f"sha256:{'0' * 64}", "x"], "both --images and digests"),
        (["export", "--images", "nowhere.yaml", "x"], "nowhere.yaml"),
        (["export", "--cache-size", "plenty", "x"], '--cache-size: "plenty" is not a size'),
        (["import"], "import takes one image layout"),
        (["import", "a", "b"], "import takes one image layout"),
        (["import", "nowhere"], "no such file"),
        (["import", "oci:nowhere"], "not an OCI image layout"),
        (["prefetch"], "--images is missing"),
        (["prefetch", "--images", "{}", "more"], "unknown command"),
        (["info", "more"], 'unknown command "more"'),
    ],
)
def test_bad_input_is_refused_in_words(
    shop: Shop, arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop.directory)
    done = cache(shop, *arguments)
    assert done.status == 1
    assert says in done.err
    assert bad_words(done) == []
    assert not (shop.directory / "x").exists()


def test_a_place_that_holds_something_else_is_left_alone(warm: Shop) -> None:
    foreign = warm.directory / "foreign"
    foreign.mkdir()
    (foreign / "diary.txt").write_text("mine")
    done = cache(warm, "export", str(foreign))
    assert done.status == 1
    assert "neither empty nor an image layout" in done.err
    done = cache(warm, "import", str(foreign), directory="there")
    assert done.status == 1
    assert "not an OCI image layout" in done.err
    with tarfile.open(warm.directory / "foreign.tar", "w") as archive:
        archive.add(foreign / "diary.txt", "diary.txt")
    done = cache(warm, "import", str(warm.directory / "foreign.tar"), directory="there")
    assert done.status == 1
    assert (foreign / "diary.txt").read_text() == "mine"
