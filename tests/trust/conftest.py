"""A real registry with a real image, and a verifier that talks to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conforma.cancellation import Cancellation
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry, RegistryOptions, RetryPolicy
from conforma.serve.registry import RegistryServer
from conforma.trust.evidence import Attached
from conforma.trust.root import TrustRoot
from conforma.trust.trust_policy import TrustPolicy
from conforma.trust.verify import Verifier
from tests.trust.lab import Lab


@dataclass
class World:
    """The registry, the lab whose signatures it holds, and one image in it."""

    server: RegistryServer
    registry: Registry
    lab: Lab
    image: Reference

    @property
    def digest(self) -> Digest:
        assert self.image.digest is not None
        return self.image.digest

    def verifier(self, policy: TrustPolicy, root: TrustRoot | None = None) -> Verifier:
        return Verifier(self.registry, policy, root or self.lab.root(), environ={})

    def tag(self, suffix: str, *layers: Attached) -> None:
        """Put layers under the ``.sig`` or ``.att`` tag."""
        name = self.digest.hex
        self.server.store.repository(self.image.repository).put_manifest(
            self._manifest(layers),
            media_types.OCI_MANIFEST,
            tag=f"sha256-{name}.{suffix}",
        )

    def refer(
        self, content: bytes, media_type: str, annotations: Mapping[str, str] | None = None
    ) -> None:
        """Attach one layer as a referrer; the annotations are on the manifest, as cosign has it."""
        layer = Attached("bundle", Digest.of(content), media_type, content, {})
        self.server.store.repository(self.image.repository).put_manifest(
            self._manifest(
                [layer],
                artifactType=media_type,
                subject=self._subject(),
                **({"annotations": dict(annotations)} if annotations else {}),
            ),
            media_types.OCI_MANIFEST,
        )

    def attach_bundle(self, bundle: dict[str, Any]) -> None:
        self.refer(json.dumps(bundle).encode(), bundle["mediaType"])

    def _subject(self) -> dict[str, Any]:
        return {
            "mediaType": media_types.OCI_MANIFEST,
            "digest": str(self.digest),
            "size": len(self.registry.manifest(self.image).raw),
        }

    def _manifest(self, layers: Any, **members: Any) -> bytes:
        listed = []
        for layer in layers:
            self.server.store.put_blob(self.image.repository, layer.content)
            listed.append(
                {
                    "mediaType": layer.media_type,
                    "digest": str(Digest.of(layer.content)),
                    "size": len(layer.content),
                    "annotations": dict(layer.annotations),
                }
            )
        config = {
            "mediaType": media_types.OCI_EMPTY,
            "digest": str(self.server.store.put_blob(self.image.repository, b"{}")),
            "size": 2,
        }
        document = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": config,
            "layers": listed,
            **members,
        }
        return json.dumps(document).encode()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    cancellation = Cancellation()
    options = RegistryOptions(
        retry=RetryPolicy(duration=0.001, max_wait=0.002, max_retry=1),
        environment={"HOME": str(tmp_path), "PATH": ""},
    )
    with RegistryServer() as server, Registry(options, cancellation) as registry:
        made = World(
            server, registry, Lab(), Reference.parse(f"{server.host}/app@{Digest.of(b'')}")
        )
        raw = made._manifest([])
        digest = server.store.repository("app").put_manifest(
            raw, media_types.OCI_MANIFEST, tag="latest"
        )
        made.image = Reference.parse(f"{server.host}/app@{digest}")
        yield made
        server.faults.clear()
    cancellation.close()
