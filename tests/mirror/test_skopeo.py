"""skopeo reads what we mirror, and we mirror what skopeo wrote."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from conforma.oci.manifest import Platform
from conforma.serve.images import image_of, index_of, layer_of, random_member
from conforma.serve.registry import RegistryServer
from tests.mirror.scene import Scene, stored

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("skopeo") is None, reason="skopeo is not installed (apt-get install skopeo)"
    ),
]


def skopeo(*arguments: str) -> str:
    done = subprocess.run(
        ["skopeo", "--insecure-policy", *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("scheme", ["oci", "oci-archive"])
def test_skopeo_copies_from_our_layout_and_archive(
    scene: Scene, destination: RegistryServer, tmp_path: Path, scheme: str
) -> None:
    scene.publish(3)
    place = f"{scheme}:{tmp_path / 'mirror'}"
    assert scene.mirror(place).status == 0
    for number, (name, image) in enumerate(scene.images.items()):
        assert skopeo("inspect", "--raw", f"{place}:{name}") == image.manifest.decode()
        inspected = json.loads(skopeo("inspect", f"{place}:{name}"))
        assert inspected["Digest"] == str(image.digest)
        target = f"docker://{destination.host}/from-skopeo:{number}"
        skopeo("copy", "--preserve-digests", "--dest-tls-verify=false", f"{place}:{name}", target)
        assert stored(destination, "from-skopeo", str(number)) == image.manifest


@pytest.mark.parametrize("scheme", ["oci", "oci-archive"])
def test_what_skopeo_wrote_is_mirrored_to_a_registry(
    scene: Scene, destination: RegistryServer, tmp_path: Path, scheme: str
) -> None:
    arm, amd = (
        image_of([layer_of([random_member("f", 1000, a)])], platform=Platform("linux", a))
        for a in ("arm64", "amd64")
    )
    index = index_of([arm, amd])
    index.put(scene.source.store, "team/app", "v1")
    place = f"{scheme}:{tmp_path / 'skopeo'}"
    skopeo("copy", "--all", "--preserve-digests", "--src-tls-verify=false",
           f"docker://{scene.source.host}/team/app:v1", f"{place}:v1")  # fmt: skip
    done = scene.mirror(f"{destination.host}/back/app", f"--from={place}", "--verify", images=[])
    assert (done.status, done.err) == (0, "")
    assert stored(destination, "back/app", "v1") == index.raw
    for child in (arm, amd):
        assert destination.store.repository("back/app").find(child.digest) is not None
