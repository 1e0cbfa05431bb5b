"""A mirrored source is the one that was asked for, or it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conforma.cancellation import Cancellation
from conforma.errors import PolicyError
from conforma.oci.media_types import OCI_MANIFEST
from conforma.oci.mirrors import Mirror
from conforma.oci.options import RegistryOptions
from conforma.oci.registry import Registry
from conforma.policy import mirrored
from conforma.serve.registry import RegistryServer

URL = "git::https://user:hunter2@git.example.com/policy.git//rules?ref=main"


def kept(server: RegistryServer, url: str, directory: Path, *, note: bool = True) -> None:
    """Store ``directory`` as a mirror would for ``url``, but under the name of ``URL``."""
    raw, blobs = mirrored.pack(url, "abc", directory)
    if not note:
        document = json.loads(raw)
        del document["annotations"]["dev.conforma.source.url"]
        raw = json.dumps(document).encode()
    for blob in blobs:
        server.store.put_blob("policy", blob)
    tag = mirrored.place_of(URL).tag
    server.store.repository("policy").put_manifest(raw, OCI_MANIFEST, tag=tag)


def fetched(server: RegistryServer, destination: Path) -> str | None:
    mirror = Mirror.parse(f"{mirrored.place_of(URL).registry}={server.host}")
    options = RegistryOptions(mirrors={mirror.origin: mirror})
    cancellation = Cancellation()
    with Registry(options, cancellation) as registry:
        return mirrored.fetch(registry, URL, destination, cancellation)


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    directory = tmp_path / "rules"
    directory.mkdir()
    (directory / "a.rego").write_text("package a\n")
    return directory


def test_the_source_that_was_asked_for(tmp_path: Path, rules: Path) -> None:
    with RegistryServer() as server:
        kept(server, URL, rules)
        assert fetched(server, tmp_path / "out") == "abc"
    assert (tmp_path / "out" / "a.rego").read_text() == "package a\n"


@pytest.mark.parametrize(
    ("url", "note", "found"),
    [
        (
            "git::https://git.example.com/other.git",
            True,
            "'git::https://git.example.com/other.git'",
        ),
        (URL, False, "''"),
    ],
)
def test_another_source_under_the_same_name_is_refused(
    tmp_path: Path, rules: Path, url: str, note: bool, found: str
) -> None:
    with RegistryServer() as server:
        kept(server, url, rules, note=note)
        with pytest.raises(PolicyError, match="what the mirror has under this name is") as caught:
            fetched(server, tmp_path / "out")
    assert caught.value.message.endswith(found)
    assert "git.example.com/policy.git" in caught.value.message
    assert "hunter2" not in caught.value.message
    assert not (tmp_path / "out").exists()
