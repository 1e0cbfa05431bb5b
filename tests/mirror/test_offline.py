"""A mirrored snapshot is validated without a network, with the same report."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conforma.cli.root import run
from conforma.serve.images import image_of
from conforma.serve.signing import Signer, attach_sbom
from conforma.serve.statements import Build, provenance_v1
from tests.cli.shop import Shop

pytestmark = pytest.mark.slow

RULES = """
package main

import rego.v1

# METADATA
# title: Says what it is
# custom:
#   short_name: motd
deny contains result if {
    manifest := ec.oci.image_manifest(input.image.ref)
    repository := split(input.image.ref, "@")[0]
    config := json.unmarshal(ec.oci.blob(sprintf("%s@%s", [repository, manifest.config.digest])))
    not config.config.Labels.name
    result := {"code": "main.motd", "msg": "Does not say what it is"}
}

# METADATA
# title: Has a bill of material
# custom:
#   short_name: sbom
warn contains result if {
    descriptors := ec.oci.image_referrers(input.image.ref)
    count(descriptors) == 0
    result := {"code": "main.sbom", "msg": "Has none"}
}
"""


def isolated() -> list[str] | None:
    """A prefix for commands that puts them where there is no route to anywhere."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return None
    probe = subprocess.run(["unshare", "-n", "true"], capture_output=True)
    return ["unshare", "-n"] if probe.returncode == 0 else None


@pytest.fixture
def release(shop: Shop) -> Shop:
    for number, layout in enumerate(("tag", "bundle", "referrer")):
        name = f"app{number}"
        digest = shop.publish(name, signed=layout == "tag", attested=layout == "tag", v1=True)
        if layout != "tag":
            signer = Signer(shop.server.store, f"shop/{name}", shop.key, layout=layout)  # type: ignore[arg-type]
            signer.sign(digest)
            signer.attest(digest, provenance_v1(Build(f"{shop.server.host}/shop/{name}", digest)))
        attach_sbom(shop.server.store, f"shop/{name}", digest, {"n": number}, referrer=True)
    return shop


def mirrored(shop: Shop, to: str) -> None:
    snapshot = json.dumps({"components": shop.components})
    assert run(["mirror", "--images", snapshot, "--to", to, "--progress=none", "--verify"]) == 0


@pytest.mark.parametrize("scheme", ["oci", "oci-archive"])
def test_a_mirrored_snapshot_validates_without_routes_with_the_same_report(
    release: Shop, tmp_path: Path, scheme: str
) -> None:
    prefix = isolated()
    if prefix is None:
        pytest.skip("needs root and unshare, to make a network namespace without routes")
    flags = {"effective_time": "2030-01-01", "policy": release.policy(release.rules(RULES))}
    online = release.validate("--show-successes", **flags)
    assert online.status == 0, online.err
    place = f"{scheme}:{tmp_path / 'mirror'}"
    mirrored(release, place)
    command = [
        *prefix, sys.executable, "-m", "conforma", "validate", "image",
        f"--policy={flags['policy']}", f"--public-key={release.key_file()}",
        f"--images={json.dumps({'components': release.components})}",
        f"--cache-dir={tmp_path / 'other-cache'}", "--output=json", "--ignore-rekor=true",
        "--retry-max-retry=0", "--effective-time=2030-01-01", "--show-successes", "--offline", f"--mirror-from={place}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == online.out
    without = subprocess.run(
        [word for word in command if not word.startswith(("--offline", "--mirror-from"))],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert without.returncode == 3, "the namespace must really be without routes"


def test_offline_what_the_mirror_lacks_is_undecided_and_named(
    release: Shop, tmp_path: Path
) -> None:
    mirrored(release, f"oci:{tmp_path / 'mirror'}")
    release.publish("late")
    release.server.log.clear()
    done = release.validate("--offline", mirror_from=f"oci:{tmp_path / 'mirror'}")
    assert done.status == 3
    assert f"{release.reference('late')}: needed, but this run is offline" in done.err
    assert "--mirror-from" in done.err
    assert [c["name"] for c in done.report["components"] if c.get("error")] == ["late"]
    assert len(release.server.log) == 0


def test_offline_a_parent_that_the_mirror_lacks_is_told_with_what_brings_it(
    release: Shop, tmp_path: Path
) -> None:
    base = release.image("os")
    base.put(release.server.store, "base/os", "9")
    name = f"{release.server.host}/base/os:9@{base.digest}"
    image = image_of([], annotations={"org.opencontainers.image.base.name": name})
    digest = image.put(release.server.store, "shop/web", "1.0")
    signer = Signer(release.server.store, "shop/web", release.key)
    signer.sign(digest)
    signer.attest(digest, provenance_v1(Build(f"{release.server.host}/shop/web", digest)))
    release.components[:] = [{"name": "web", "containerImage": release.reference("web")}]
    place = f"oci:{tmp_path / 'mirror'}"
    mirrored(release, place)
    done = release.validate("--offline", mirror_from=place, policy=release.policy())
    assert done.status == 0, done.err
    (warning,) = (line for line in done.err.splitlines() if "without its parent image" in line)
    assert "mirror it first with conforma mirror (--related takes along" in warning


def test_an_unsigned_image_is_refused_offline_as_it_is_online(
    release: Shop, tmp_path: Path
) -> None:
    release.publish("bad", signed=False, attested=False)
    mirrored(release, f"oci:{tmp_path / 'mirror'}")
    flags = {"effective_time": "2030-01-01"}
    online = release.validate(**flags)
    offline = release.validate("--offline", mirror_from=f"oci:{tmp_path / 'mirror'}", **flags)
    assert online.status == offline.status == 1
    assert online.component("bad")["violations"]
    assert json.loads(offline.out)["components"][0].keys() == online.report["components"][0].keys()
    assert [v["metadata"]["code"] for v in offline.component("bad")["violations"]] == [
        v["metadata"]["code"] for v in online.component("bad")["violations"]
    ]


def test_images_of_a_layout_are_components_like_any_other(release: Shop, tmp_path: Path) -> None:
    place = f"oci:{tmp_path / 'mirror'}"
    mirrored(release, place)
    name = release.components[0]["containerImage"]
    component = {"name": "app0", "containerImage": f"{place}:{name}"}
    done = release.validate("--offline", images=json.dumps({"components": [component]}))
    assert (done.status, done.err) == (0, "")
    digest = release.images["app0"].digest
    repository = name.rpartition(":")[0]
    assert done.component("app0")["containerImage"] == f"{place}:{repository}@{digest}"


def test_a_cluster_or_a_download_is_not_asked_offline(release: Shop) -> None:
    for flags in (
        {"policy": "namespace/policy"},
        {"policy": "git::https://example.com/repository"},
        {"public_key": "k8s://namespace/secret"},
        {"public_key": "https://example.com/cosign.pub"},
    ):
        done = release.validate("--offline", **flags)
        assert done.status == 3, flags
        assert "this run is offline" in done.err, flags
