"""A release to try conforma on: images, evidence, a key, a policy and a snapshot.

Everything goes into one directory and one registry, so that a kept
directory can be served and validated again at any time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from conforma import gojson
from conforma.errors import InputError
from conforma.oci.digest import Digest
from conforma.serve.demo_content import VERSION, Content, base_layers, contents
from conforma.serve.images import CREATED, image_of
from conforma.serve.registry import RegistryServer
from conforma.serve.sboms import spdx
from conforma.serve.signing import Signer
from conforma.serve.signing_key import SigningKey
from conforma.serve.statements import SPDX, Build, provenance_v02, provenance_v1, statement

Breakage = Literal["bad-signature", "missing-attestation", "forbidden-file"]
BREAKAGES: dict[Breakage, str] = {
    "bad-signature": "payments",
    "missing-attestation": "search",
    "forbidden-file": "storefront",
}
"""What can be wrong with the release, and the component that has it."""

# Still attested in SLSA's older format, which the policy is about to refuse.
_LAGGARD = "reviews"
_NOTE = "release.json"


class Release(Struct, frozen=True):
    """A release in ``directory``, served at ``host``; sizes are in bytes."""

    directory: Path
    host: str
    components: int
    layers: int
    """Layers of all images, shared ones counted for each image."""
    layer_bytes: int
    distinct: Mapping[str, int]
    """Every different layer and its size."""

    @property
    def snapshot(self) -> Path:
        """The components to validate."""
        return self.directory / "snapshot.json"

    @property
    def policy(self) -> Path:
        """The policy configuration."""
        return self.directory / "policy.yaml"

    @property
    def public_key(self) -> Path:
        """The key that verifies the signatures."""
        return self.directory / "cosign.pub"

    @property
    def cache(self) -> Path:
        """A cache directory of its own, so that the first run is a cold one."""
        return self.directory / "cache"

    def command(self, workers: int) -> list[str]:
        """The arguments that validate this release."""
        return [
            "validate",
            "image",
            f"--policy={self.policy}",
            f"--public-key={self.public_key}",
            f"--images={self.snapshot}",
            f"--cache-dir={self.cache}",
            f"--workers={workers}",
            "--ignore-rekor",
            "--output=text",
        ]


@contextmanager
def fresh_release(
    directory: Path, breakages: tuple[Breakage, ...] = ()
) -> Iterator[tuple[Release, RegistryServer]]:
    """Make a release in ``directory`` and serve it until the block ends.

    Raises ``InputError`` if the directory already holds something or cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        empty = not any(directory.iterdir())
    except (FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError) as cause:
        raise InputError(f"{directory}: {cause.strerror}", hint="name a new directory") from cause
    if not empty:
        raise InputError(
            f"{directory} is not empty",
            hint="name a new directory, or serve what is in it with conforma demo --serve",
        )
    with RegistryServer(directory / "registry") as server:
        yield _make(directory, server, breakages), server


@contextmanager
def kept_release(directory: Path) -> Iterator[tuple[Release, RegistryServer]]:
    """Serve a kept release at its old address until the block ends.

    Raises ``InputError`` if there is none in ``directory`` or if the address is taken.
    """
    try:
        note = json.loads((directory / _NOTE).read_text(encoding="utf-8"))
        release = Release(directory=directory, **note)
        port = int(release.host.rpartition(":")[2])
    except (OSError, ValueError, TypeError, AttributeError) as cause:
        raise InputError(
            f"{directory} holds no release of the demo", hint="make one with conforma demo --keep"
        ) from cause
    try:
        server = RegistryServer(directory / "registry", port=port)
    except OSError as cause:
        raise InputError(
            f"{release.host}, where the release says it is, cannot be served: {cause.strerror}",
            hint="something else listens there now; make a new release with conforma demo --keep",
        ) from cause
    with server:
        yield release, server


def policy_directory() -> Path:
    """The policies that come with conforma: in the package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    packed = package / "_policies"
    return packed if packed.is_dir() else package.parent / "policies"


def _make(directory: Path, server: RegistryServer, breakages: tuple[Breakage, ...]) -> Release:
    key = SigningKey.generate()
    base = image_of(base_layers(), labels={"name": "example-linux"})
    base_digest = base.put(server.store, "base/example-linux", "9.4")
    broken = {BREAKAGES[breakage]: breakage for breakage in breakages}
    forbidden = BREAKAGES["forbidden-file"] if "forbidden-file" in breakages else None
    everything = contents(forbidden)
    components = [
        _component(name, content, server, key, base_digest, broken.get(name))
        for name, content in everything.items()
    ]
    layers = [layer.descriptor for content in everything.values() for layer in content.layers]
    distinct = {str(layer.digest): layer.size for layer in layers}
    release = Release(
        directory,
        server.host,
        len(components),
        len(layers),
        sum(layer.size for layer in layers),
        distinct,
    )
    _write(release, components, key)
    return release


def _component(
    name: str,
    content: Content,
    server: RegistryServer,
    key: SigningKey,
    base: Digest,
    broken: Breakage | None,
) -> dict[str, Any]:
    repository = f"bookshop/{name}"
    source = f"https://git.example.com/bookshop/{name}.git"
    revision = Digest.of(f"{name} {VERSION}".encode()).hex[:40]
    base_name = f"{server.host}/base/example-linux:9.4"
    image = image_of(
        content.layers,
        config={"User": "1001", "Entrypoint": [f"/app/{name}"]},
        labels={
            "org.opencontainers.image.title": f"Bookshop {name}",
            "org.opencontainers.image.version": VERSION,
            "org.opencontainers.image.source": source,
            "org.opencontainers.image.revision": revision,
            "org.opencontainers.image.created": CREATED,
        },
        annotations={
            "org.opencontainers.image.base.name": base_name,
            "org.opencontainers.image.base.digest": str(base),
        },
    )
    digest = image.put(server.store, repository, VERSION)
    trusted = Signer(server.store, repository, key)
    signer = trusted
    if broken == "bad-signature":
        signer = Signer(server.store, repository, SigningKey.generate())
    signer.sign(digest)
    if broken != "missing-attestation":
        where = f"{server.host}/{repository}"
        build = Build(where, digest, source, revision, VERSION, base_images={base_name: base})
        provenance = provenance_v02(build) if name == _LAGGARD else provenance_v1(build)
        trusted.attest(digest, provenance)
        trusted.attest(
            digest, statement(SPDX, spdx(where, digest, content.packages), where, digest)
        )
    return {
        "name": name,
        "containerImage": f"{server.host}/{repository}:{VERSION}@{digest}",
        "source": {"git": {"url": source, "revision": revision}},
    }


def _write(release: Release, components: list[dict[str, Any]], key: SigningKey) -> None:
    here = release.directory
    shutil.copytree(policy_directory(), here / "policies")
    policy = {
        "name": "Bookshop release",
        "description": "The release rules that come with conforma, for images on this machine.",
        "sources": [
            {
                "name": "release",
                "policy": [f"{here}/policies/lib", f"{here}/policies/release"],
                "data": [f"{here}/policies/data"],
                "ruleData": {"allowed_base_images": [f"{release.host}/base"]},
                "config": {"include": ["@release"]},
            }
        ],
    }
    snapshot = {"application": "bookshop", "components": components}
    note = {
        "host": release.host,
        "components": release.components,
        "layers": release.layers,
        "layer_bytes": release.layer_bytes,
        "distinct": dict(release.distinct),
    }
    # JSON is YAML; the file is called .yaml because that is what people edit.
    release.policy.write_text(gojson.dumps(policy, indent="  ") + "\n", encoding="utf-8")
    release.snapshot.write_text(gojson.dumps(snapshot, indent="  ") + "\n", encoding="utf-8")
    release.public_key.write_text(key.public_pem, encoding="utf-8")
    private = here / "cosign.key"
    private.touch(mode=0o600)  # before there is anything to read in it
    private.write_text(key.private_pem, encoding="utf-8")
    (here / _NOTE).write_text(json.dumps(note), encoding="utf-8")
