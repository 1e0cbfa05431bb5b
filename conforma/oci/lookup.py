"""What one reference means: its manifest, what it runs on, and what is attached to it.

Nothing is verified beyond digests: an attached signature is there, not good.
What is not there and what could not be learnt are told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct, field

from conforma.errors import ConformaError, IntegrityError, NotFound, RegistryError
from conforma.oci.manifest import Descriptor, Index, Manifest
from conforma.oci.media_types import DOCKER_CONFIG, OCI_CONFIG
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry

Kind = Literal["signatures", "attestations", "sboms"]
KINDS: Final[tuple[Kind, ...]] = ("signatures", "attestations", "sboms")

_TAGS: Final[Mapping[Kind, str]] = {"signatures": "sig", "attestations": "att", "sboms": "sbom"}
_ARTIFACTS: Final[Mapping[str, Kind]] = {
    "application/vnd.dev.cosign.artifact.sig.v1+json": "signatures",
    "application/vnd.dev.cosign.simplesigning.v1+json": "signatures",
    "application/vnd.cncf.notary.signature": "signatures",
    "application/vnd.dsse.envelope.v1+json": "attestations",
    "application/vnd.in-toto+json": "attestations",
    "application/vnd.dev.cosign.artifact.sbom.v1+json": "sboms",
    "application/spdx+json": "sboms",
    "application/vnd.cyclonedx+json": "sboms",
    "application/vnd.cyclonedx": "sboms",
    "text/spdx": "sboms",
    "text/spdx+json": "sboms",
    "application/vnd.syft+json": "sboms",
}
_BUNDLE: Final = "application/vnd.dev.sigstore.bundle"
# What a Sigstore bundle holds, as cosign says beside it.
_CONTENT: Final = "dev.sigstore.bundle.content"
_PREDICATE: Final = "dev.sigstore.bundle.predicateType"
_SIGNING: Final = "https://sigstore.dev/cosign/sign/v1"


class Found(Struct, frozen=True):
    """What a reference names. Sizes in bytes.

    ``content`` is what the configuration and layers of an image take, as
    stored; it, ``platforms`` and the counts are ``None`` where they were not
    looked for or could not be learnt, and then ``problems`` says why.
    """

    reference: Reference
    described: Descriptor
    content: int | None = None
    platforms: tuple[str, ...] | None = None
    annotations: Mapping[str, str] | None = None
    attached: Mapping[Kind, int | None] = field(default_factory=dict)
    problems: tuple[ConformaError, ...] = ()


def look_up(registry: Registry, reference: Reference, *, brief: bool = False) -> Found:
    """What ``reference`` means now; ``brief`` asks for no more than one HEAD.

    Raises ``NotFound`` if the registry has no such thing, and what
    :class:`Registry` raises if it does not say. What goes wrong after that is
    among the problems.
    """
    if brief:
        return Found(reference, registry.head(reference))
    manifest = registry.manifest(reference)
    # From memory: whoever has the manifest knows its digest.
    described = registry.head(reference)
    pinned = reference.pinned(described.digest)
    asking = _Asking(registry, pinned)
    return Found(
        reference,
        described,
        content=_content(manifest),
        platforms=asking.platforms(manifest),
        annotations=manifest.annotations,
        attached=asking.attached(),
        problems=tuple(asking.problems),
    )


class _Asking:
    """Questions about one image; what cannot be learnt is a problem, not the end."""

    def __init__(self, registry: Registry, pinned: Reference) -> None:
        self._registry = registry
        self._pinned = pinned
        self.problems: list[ConformaError] = []

    def platforms(self, manifest: Manifest | Index) -> tuple[str, ...] | None:
        """Where it runs; nothing for an artifact that is no image."""
        if isinstance(manifest, Index):
            named = (str(child.platform) for child in manifest.manifests if child.platform)
            return tuple(dict.fromkeys(named))
        if manifest.config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
            return ()
        try:
            document = self._registry.image_config(self._pinned, manifest).document
        except (RegistryError, IntegrityError) as error:
            self.problems.append(error)
            return None
        parts = (document.get(name) for name in ("os", "architecture", "variant"))
        name = "/".join(part for part in parts if isinstance(part, str) and part)
        return (name,) if name else ()

    def attached(self) -> dict[Kind, int | None]:
        """How many signatures, attestations and SBOMs there are, by tag and by referrer."""
        counts: dict[Kind, int | None] = {kind: self._tagged(kind) for kind in KINDS}
        try:
            referrers = self._registry.referrers(self._pinned)
        except (RegistryError, IntegrityError) as error:
            self.problems.append(error)
            return dict.fromkeys(KINDS)
        for referrer in referrers:
            kind = kind_of(referrer)
            if kind is not None and (count := counts[kind]) is not None:
                counts[kind] = count + 1
        return counts

    def _tagged(self, kind: Kind) -> int | None:
        """The layers under cosign's tag: each is one signature, attestation or SBOM."""
        digest = self._pinned.digest
        assert digest is not None
        tag = f"{digest.algorithm}-{digest.hex}.{_TAGS[kind]}"
        try:
            document = self._registry.manifest(self._pinned.with_tag(tag))
        except NotFound:
            return 0
        except (RegistryError, IntegrityError) as error:
            self.problems.append(error)
            return None
        return len(document.layers) if isinstance(document, Manifest) else 0


def kind_of(referrer: Descriptor) -> Kind | None:
    """What a referrer is, by what its descriptor says about it."""
    artifact = referrer.artifact_type or ""
    if artifact.startswith(_BUNDLE):
        plain = referrer.annotations.get(_CONTENT) == "message-signature"
        signs = referrer.annotations.get(_PREDICATE) == _SIGNING
        return "signatures" if plain or signs else "attestations"
    return _ARTIFACTS.get(artifact)


def _content(manifest: Manifest | Index) -> int | None:
    if isinstance(manifest, Index):
        return None
    return manifest.config.size + sum(layer.size for layer in manifest.layers)
