"""What a mirror takes along: attachments, platforms, related images, policy sources; and names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from conforma.cancellation import Cancellation
from conforma.cli.root import run
from conforma.errors import InputError, SourceUnavailable
from conforma.mirror import inventory
from conforma.mirror.names import Names, Prefix, Rule
from conforma.oci.digest import Digest
from conforma.oci.manifest import Platform
from conforma.oci.options import RegistryOptions
from conforma.oci.places import Places
from conforma.oci.reference import Reference
from conforma.policy.source import Sources
from conforma.serve.faults import Fault
from conforma.serve.images import image_of, index_of, layer_of, random_member
from conforma.serve.registry import RegistryServer
from conforma.serve.signing import Signer, attach_sbom, tag_of
from conforma.serve.signing_key import SigningKey
from tests.mirror.scene import Scene, stored
from tests.policy.services import files_at, git_backend, repository, serving

pytestmark = pytest.mark.slow


def test_signatures_attestations_and_boms_come_along_in_both_layouts(
    scene: Scene, destination: RegistryServer
) -> None:
    key = SigningKey.generate()
    store = scene.source.store
    scene.publish(1, repository="shop/app{}")
    (image,) = scene.images.values()
    for layout in ("tag", "bundle", "referrer"):
        signer = Signer(store, "shop/app0", key, layout=layout)  # type: ignore[arg-type]
        signer.sign(image.digest)
        signer.attest(image.digest, b'{"_type":"https://in-toto.io/Statement/v1","subject":[]}')
    for referrer in (False, True):
        attach_sbom(store, "shop/app0", image.digest, {"b": referrer}, referrer=referrer)
    assert scene.mirror(destination.host).status == 0
    for suffix in ("sig", "att", "sbom"):
        tag = tag_of(image.digest, suffix)
        assert stored(destination, "shop/app0", tag) == stored(scene.source, "shop/app0", tag)

    def referrers(server: RegistryServer) -> set[Digest]:
        reference = Reference.parse(f"{server.host}/shop/app0").pinned(image.digest)
        with Places(RegistryOptions(), Cancellation()) as registry:
            return {found.digest for found in registry.referrers(reference)}

    assert len(referrers(scene.source)) == 5
    assert referrers(destination) == referrers(scene.source)


def test_a_registry_without_the_referrers_api_gets_the_list_as_a_tag(scene: Scene) -> None:
    scene.publish(1)
    (image,) = scene.images.values()
    attach_sbom(scene.source.store, "shop/app0", image.digest, {"a": 1}, referrer=True)
    with RegistryServer(referrers=False) as old:
        assert scene.mirror(old.host, "--verify").status == 0
        index = json.loads(stored(old, "shop/app0", f"sha256-{image.digest.hex}"))
        assert len(index["manifests"]) == 1
        again = scene.mirror(old.host)
        assert again.summary["copied"] == 0


def test_chosen_platforms_leave_the_others_out_and_say_so(scene: Scene, tmp_path: Path) -> None:
    images = [
        image_of([layer_of([random_member("f", 1000, a)])], platform=Platform("linux", a))
        for a in ("amd64", "arm64", "s390x")
    ]
    index_of(images).put(scene.source.store, "app", "multi")
    place = tmp_path / "layout"
    done = scene.mirror(
        f"oci:{place}", "--platform=linux/amd64,linux/s390x", "--verify",
        images=[f"{scene.source.host}/app:multi"],
    )  # fmt: skip
    assert done.status == 0, done.err
    assert done.summary["skipped"] == 1
    here = [(place / "blobs" / "sha256" / image.digest.hex).exists() for image in images]
    assert here == [True, False, True]


def test_images_named_by_attestations_come_along_on_request(
    scene: Scene, destination: RegistryServer
) -> None:
    base = image_of([layer_of([random_member("base", 1000, "base")])])
    base.put(scene.source.store, "images/base", "1")
    bundle = image_of([layer_of([random_member("task", 1000, "task")])])
    bundle.put(scene.source.store, "tasks/build", "1")
    scene.publish(1)
    (image,) = scene.images.values()
    host = scene.source.host
    statement = {
        "_type": "https://in-toto.io/Statement/v0.1",
        "subject": [],
        "predicate": {
            "materials": [
                {"uri": f"oci://{host}/images/base", "digest": {"sha256": base.digest.hex}},
                {"uri": "git+https://example.com/source", "digest": {"sha1": "0" * 40}},
            ],
            "buildConfig": {"tasks": [{"ref": {"bundle": f"{host}/tasks/build@{bundle.digest}"}}]},
        },
    }
    signer = Signer(scene.source.store, "shop/app0", SigningKey.generate())
    signer.attest(image.digest, json.dumps(statement).encode())
    assert scene.mirror(destination.host).status == 0
    assert destination.store.existing("tasks/build") is None
    done = scene.mirror(destination.host, "--related", "--verify")
    assert done.status == 0, done.err
    for name, related in (("images/base", base), ("tasks/build", bundle)):
        assert destination.store.repository(name).find(related.digest) is not None


def test_the_parent_that_annotations_name_comes_along_on_request(
    scene: Scene, destination: RegistryServer
) -> None:
    base = image_of([layer_of([random_member("base", 1000, "base")])])
    base.put(scene.source.store, "images/base", "1")
    name = f"{scene.source.host}/images/base:1@{base.digest}"
    image = image_of([], annotations={"org.opencontainers.image.base.name": name})
    image.put(scene.source.store, "shop/app", "1")
    command = ["--image", f"{scene.source.host}/shop/app:1", "--to", destination.host]
    for flags, there in (([], False), (["--related"], True)):
        assert run(["mirror", *command, "--progress=none", *flags]) == 0
        assert (destination.store.existing("images/base") is not None) is there
    assert destination.store.repository("images/base").find(base.digest) is not None


def test_an_image_that_an_attestation_names_in_vain_is_told_once(
    scene: Scene, tmp_path: Path
) -> None:
    scene.publish(1)
    (image,) = scene.images.values()
    repository, digest = f"{scene.source.host}/images/base", "0" * 64
    materials = [{"uri": f"oci://{repository}", "digest": {"sha256": digest}}]
    statement = {
        "_type": "https://in-toto.io/Statement/v0.1",
        "subject": [],
        "predicate": {"materials": materials},
    }
    signer = Signer(scene.source.store, "shop/app0", SigningKey.generate())
    signer.attest(image.digest, json.dumps(statement).encode())
    done = scene.mirror(f"oci:{tmp_path / 'shelf'}", "--related")
    assert done.status == 3
    (line,) = (line for line in done.err.splitlines() if line.startswith("Error: "))
    missing = f"{repository}@sha256:{digest}"
    assert line.endswith(f"(needed by {missing} (named by app0:v0))")
    assert line.count(missing) == 2, "once as what failed, once as what needs it"


def test_an_image_whose_attestation_cannot_be_read_fails_alone(
    scene: Scene, destination: RegistryServer
) -> None:
    scene.publish(2)
    first, _ = scene.images.values()
    signer = Signer(scene.source.store, "shop/app0", SigningKey.generate())
    signer.attest(first.digest, b"{}")
    tag = f"sha256-{first.digest.hex}.att"
    (layer,) = json.loads(stored(scene.source, "shop/app0", tag))["layers"]
    scene.source.faults.add(Fault(status=403), path=f"/blobs/{layer['digest']}", times=None)
    done = scene.mirror(destination.host, "--related")
    assert done.status == 3
    assert "FORBIDDEN" in done.err and "app0:v0" in done.err
    assert destination.store.existing("shop/app0") is None
    assert destination.store.repository("shop/app1").tags == ("v1",)


def test_what_is_too_large_for_an_attestation_is_not_searched_for_images(
    scene: Scene, destination: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory, "MAX_LAYER_BYTES", 10)
    scene.publish(1)
    (image,) = scene.images.values()
    attach_sbom(scene.source.store, "shop/app0", image.digest, {"a": "b" * 10}, referrer=True)
    assert scene.mirror(destination.host, "--related", "--verify").status == 0


def test_a_dry_run_tells_sizes_and_moves_nothing(scene: Scene, destination: RegistryServer) -> None:
    scene.publish(3)
    done = scene.mirror(destination.host, "--dry-run")
    assert done.status == 0
    assert done.summary["bytes"] == sum(scene.blobs.values())
    assert [image["missing"] for image in done.summary["images"]] == [
        image["bytes"] for image in done.summary["images"]
    ]
    assert not destination.log.matching("PUT") and not scene.source.log.blob_downloads()


def test_policy_and_data_sources_are_used_from_the_mirror(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository(tmp_path / "repos" / "rules.git", {"policy/main.rego": "package main\n"})
    place = f"oci:{tmp_path / 'mirror'}"
    with (
        serving(git_backend(tmp_path / "repos"), tmp_path) as git,
        serving(files_at({"/data.json": b'{"a": 1}'}), _fresh(tmp_path / "two")) as web,
    ):
        both = tmp_path / "both.pem"
        both.write_text(git.ca_file.read_text() + web.ca_file.read_text())
        monkeypatch.setenv("SSL_CERT_FILE", str(both))
        monkeypatch.setenv("GIT_SSL_CAINFO", str(both))
        urls = (f"git::https://{git.host}/rules.git//policy", f"https://{web.host}/data.json")
        policy = json.dumps({"sources": [{"policy": [urls[0]], "data": [urls[1]]}]})
        done = scene.mirror(place, f"--policy={policy}", "--verify", images=[])
        assert done.status == 0, done.err
        with Sources(lambda: places, Cancellation(), environment=dict(os.environ)) as online:
            pins = {url: online.fetch(url).pinned for url in urls}
        git.log.clear()
        web.log.clear()
        with (
            Places(RegistryOptions(offline=True), Cancellation(), [place]) as places,
            Sources(lambda: places, Cancellation(), use_mirrors=True, offline=True) as offline,
        ):
            rules, data = (offline.fetch(url) for url in urls)
            assert (rules.path / "main.rego").read_text() == "package main\n"
            assert (data.path / "data.json").read_text() == '{"a": 1}'
            assert {rules.url: rules.pinned, data.url: data.pinned} == pins
            with pytest.raises(SourceUnavailable, match=r"other\.git.*this run is offline"):
                offline.fetch(f"git::https://{git.host}/other.git")
        assert git.log == web.log == []


def test_names_follow_the_longest_rule_else_the_destination() -> None:
    rules = (Rule.parse("a.example/x=b.example/y"), Rule.parse("a.example/x/z=c.example"))
    names = Names(rules, Prefix.parse("d.example/all"))

    def named(text: str) -> str:
        return str(names.of(Reference.parse(text)))

    assert named("a.example/x/app:1") == "b.example/y/app:1"
    assert named("a.example/x/z/app:1") == "c.example/app:1"
    assert named("a.example/xy/app:1") == "d.example/all/xy/app:1"
    assert named("e.example/app:1") == "d.example/all/app:1"
    assert str(Names(rules).of(Reference.parse("e.example/app:1"))) == "e.example/app:1"
    with pytest.raises(InputError, match="no rule for names"):
        Rule.parse("a.example/x")
    with pytest.raises(InputError, match="not a registry with a path"):
        Prefix.parse("d.example/all:tag")


def test_two_images_cannot_get_one_name(scene: Scene, destination: RegistryServer) -> None:
    scene.publish(1, repository="one/first{}")
    scene.publish(1, repository="two/second{}")
    host = scene.source.host
    done = scene.mirror(
        destination.host,
        f"--rewrite={host}/one/first0={destination.host}/x/app,"
        f"{host}/two/second0={destination.host}/x/app",
    )
    # The two have the same content, so the name is not contested; now they differ.
    assert done.status == 0, done.err
    image_of([layer_of([random_member("f", 10, "other")])]).put(
        scene.source.store, "two/second0", "v0"
    )
    done = scene.mirror(
        destination.host,
        f"--rewrite={host}/one/first0={destination.host}/x/app,"
        f"{host}/two/second0={destination.host}/x/app",
    )
    assert done.status == 1
    assert "would be two things" in done.err and "--rewrite" in done.err


def _fresh(path: Path) -> Path:
    path.mkdir()
    return path
