"""The demo's release is what it says it is, whole or broken, fresh or kept."""

from __future__ import annotations

import base64
import json
import socket
from pathlib import Path

import httpx
import pytest

from conforma.errors import InputError, SignatureMismatch
from conforma.oci.digest import Digest
from conforma.serve.demo_release import (
    BREAKAGES,
    Breakage,
    Release,
    fresh_release,
    kept_release,
)
from conforma.serve.registry import RegistryServer
from conforma.serve.signing import tag_of
from conforma.trust.evidence import SIGNATURE
from conforma.trust.keys import PublicKey

pytestmark = pytest.mark.slow


def components(release: Release) -> dict[str, tuple[str, Digest]]:
    """Repository and digest of every component of the snapshot."""
    snapshot = json.loads(release.snapshot.read_text())
    found = {}
    for component in snapshot["components"]:
        name, _, digest = component["containerImage"].partition("@")
        repository = name.partition("/")[2].partition(":")[0]
        found[component["name"]] = (repository, Digest.parse(digest))
    return found


def is_signed(release: Release, server: RegistryServer, name: str) -> bool:
    repository, digest = components(release)[name]
    found = server.store.repository(repository).find(tag_of(digest, "sig"))
    assert found is not None
    [layer] = found[1].document["layers"]
    body = server.store.blob(Digest.parse(layer["digest"]))
    assert body is not None
    signature = base64.b64decode(layer["annotations"][SIGNATURE])
    try:
        PublicKey.load(release.public_key.read_text()).verify(signature, body.read(0, body.size))
    except SignatureMismatch:
        return False
    return True


def test_components_share_layers_as_announced(tmp_path: Path) -> None:
    with fresh_release(tmp_path / "demo") as (release, server):
        layers = []
        for repository, digest in components(release).values():
            found = server.store.repository(repository).find(digest)
            assert found is not None
            layers += [(e["digest"], e["size"]) for e in found[1].document["layers"]]
        assert len(components(release)) == release.components == 12
        assert len(layers) == release.layers
        assert sum(size for _, size in layers) == release.layer_bytes
        assert dict(layers) == release.distinct
        assert len(release.distinct) < len(layers) / 2
        assert all(is_signed(release, server, name) for name in components(release))


@pytest.mark.parametrize("breakage", list(BREAKAGES))
def test_a_breakage_hits_one_component(tmp_path: Path, breakage: Breakage) -> None:
    with fresh_release(tmp_path / "demo", (breakage,)) as (release, server):
        victim = BREAKAGES[breakage]
        unsigned = {n for n in components(release) if not is_signed(release, server, n)}
        unattested = {
            name
            for name, (repository, digest) in components(release).items()
            if server.store.repository(repository).find(tag_of(digest, "att")) is None
        }
        assert unsigned == ({victim} if breakage == "bad-signature" else set())
        assert unattested == ({victim} if breakage == "missing-attestation" else set())


def test_a_kept_release_is_served_at_its_old_address(tmp_path: Path) -> None:
    with fresh_release(tmp_path / "demo") as (made, _):
        host = made.host
    with kept_release(tmp_path / "demo") as (release, _):
        assert release == made
        repository, digest = components(release)["cart"]
        assert httpx.head(f"http://{host}/v2/{repository}/manifests/{digest}").status_code == 200


def test_an_address_that_is_taken_is_an_explained_failure(tmp_path: Path) -> None:
    with fresh_release(tmp_path / "demo") as (release, _):
        port = int(release.host.rpartition(":")[2])
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(InputError, match="cannot be served"),
        kept_release(tmp_path / "demo"),
    ):
        pass


def test_a_directory_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(InputError, match="not empty"), fresh_release(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_can_be_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/demo")):
        with pytest.raises(InputError, match=str(place)), fresh_release(place):
            pass


def test_a_directory_without_a_release_is_an_explained_failure(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no release"), kept_release(tmp_path):
        pass
    for note in ("{", "[]", '{"host": 5}', '{"unknown": 1}'):
        (tmp_path / "release.json").write_text(note)
        with pytest.raises(InputError, match="holds no release"), kept_release(tmp_path):
            pass
