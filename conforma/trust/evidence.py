"""Finding what is attached to an image: cosign's tags, Sigstore bundles, bare referrers.

Sources: signatures.md 2; OCI distribution-spec "Listing Referrers". All
layouts are always looked at. What is not there (404) is no evidence; a
registry that does not answer raises, because "could not be read" must never
look like "not signed".
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from conforma.errors import BadEvidence, BadManifest, BadResponse, NotFound
from conforma.oci.digest import Digest
from conforma.oci.manifest import Descriptor, Manifest
from conforma.oci.reference import Reference

if TYPE_CHECKING:
    from conforma.oci.registry import Registry

SIMPLE_SIGNING: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
DSSE_ENVELOPE: Final = "application/vnd.dsse.envelope.v1+json"
BUNDLE: Final = "application/vnd.dev.sigstore.bundle"
SIGNATURE: Final = "dev.cosignproject.cosign/signature"
CERTIFICATE: Final = "dev.sigstore.cosign/certificate"
CHAIN: Final = "dev.sigstore.cosign/chain"
REKOR_BUNDLE: Final = "dev.sigstore.cosign/bundle"
MAX_LAYERS: Final = 1000
MAX_LAYER_BYTES: Final = 128 << 20
_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?\s*", re.IGNORECASE)

Kind = Literal["signature", "attestation", "bundle"]


class Attached(Struct, frozen=True):
    """One attached layer, its bytes verified against its digest, nothing else checked.

    ``fault`` says why a single item could not be used; the others still count.
    """

    kind: Kind
    digest: Digest
    media_type: str
    content: bytes
    annotations: Mapping[str, str]
    bare: bool = False
    fault: str = ""


class EvidenceReader:
    """Reads what is attached to images. The registry client remembers what was read."""

    def __init__(self, registry: Registry, environ: Mapping[str, str] = os.environ) -> None:
        self._registry = registry
        self._limit = attachment_limit(environ)

    def signatures(self, image: Reference) -> tuple[Attached, ...]:
        """The layers under the ``.sig`` tag; empty if the tag does not exist."""
        return self._tagged(image, "signature", "sig")

    def attestations(self, image: Reference) -> tuple[Attached, ...]:
        """The layers under the ``.att`` tag; empty if the tag does not exist."""
        return self._tagged(image, "attestation", "att")

    def bundles(self, image: Reference) -> tuple[Attached, ...]:
        """The Sigstore bundles among the image's referrers."""
        return self._referring(image, _may_be_bundle)

    def bare(self, image: Reference, media_type: str) -> tuple[Attached, ...]:
        """Referrers that are a single signature or envelope, as cosign v2 could attach them."""
        return self._referring(image, lambda found: found.artifact_type == media_type)

    def _tagged(self, image: Reference, kind: Kind, suffix: str) -> tuple[Attached, ...]:
        digest = digest_of(image)
        place = image.with_tag(f"{digest.algorithm}-{digest.hex}.{suffix}")
        try:
            manifest = self._registry.manifest(place)
        except NotFound:
            return ()
        except BadManifest as cause:
            raise BadEvidence(f"{place}: {cause.message}") from cause
        if not isinstance(manifest, Manifest):
            raise BadEvidence(f"{place}: is an index, not a list of signatures")
        return tuple(self._layer(place, layer, kind) for layer in self._counted(manifest.layers))

    def _referring(
        self, image: Reference, wanted: Callable[[Descriptor], bool]
    ) -> tuple[Attached, ...]:
        referrers = [found for found in self._referrers(image) if wanted(found)]
        attached = (self._referrer(image, found) for found in self._counted(tuple(referrers)))
        return tuple(item for item in attached if item is not None)

    def _referrers(self, image: Reference) -> tuple[Descriptor, ...]:
        try:
            return self._registry.referrers(image)
        except NotFound:
            return ()

    def _referrer(self, image: Reference, found: Descriptor) -> Attached | None:
        place = image.pinned(found.digest)
        try:
            manifest = self._registry.manifest(place)
        except NotFound as cause:
            raise BadResponse(
                f"{place}: the registry lists it among what refers to {image}, but does not have it:"
                f" {cause.message}",
                hint="push it again, or remove it from the list",
            ) from cause
        except BadManifest as cause:
            if not (found.artifact_type or "").startswith(BUNDLE):
                return None  # Nothing says that this is evidence at all.
            return Attached("bundle", found.digest, "", b"", {}, fault=f"{place}: {cause.message}")
        if not isinstance(manifest, Manifest) or len(manifest.layers) != 1:
            return None
        layer = manifest.layers[0]
        if layer.media_type.startswith(BUNDLE):
            return self._layer(place, layer, "bundle")
        if found.artifact_type == layer.media_type == SIMPLE_SIGNING:
            return self._bare(place, manifest, "signature")
        if found.artifact_type == layer.media_type == DSSE_ENVELOPE:
            return self._bare(place, manifest, "attestation")
        return None

    def _bare(self, place: Reference, manifest: Manifest, kind: Kind) -> Attached:
        # cosign annotates the manifest of a referrer, not its layer, and an
        # envelope there has no annotation for the signature it holds.
        found = self._layer(place, manifest.layers[0], kind)
        implied = {SIGNATURE: ""} if kind == "attestation" else {}
        annotations = {**implied, **manifest.annotations, **found.annotations}
        return replace(found, annotations=annotations, bare=True)

    def _counted(self, layers: tuple[Descriptor, ...]) -> tuple[Descriptor, ...]:
        if len(layers) > MAX_LAYERS:
            raise BadEvidence(f"number of layers ({len(layers)}) exceeded the limit ({MAX_LAYERS})")
        return layers

    def _layer(self, place: Reference, layer: Descriptor, kind: Kind) -> Attached:
        content, fault = b"", ""
        if layer.size > self._limit:
            fault = f"size of layer ({layer.size}) exceeded the limit ({self._limit})"
        else:
            content = self._registry.read_blob(place, layer, limit=self._limit)
        return Attached(
            kind, layer.digest, layer.media_type, content, layer.annotations, fault=fault
        )


def digest_of(image: Reference) -> Digest:
    """The digest of a pinned reference."""
    if image.digest is None:
        raise ValueError(f"{image} is not pinned to a digest")
    return image.digest


def attachment_limit(environ: Mapping[str, str]) -> int:
    """Bytes an attached layer may have; ``COSIGN_MAX_ATTACHMENT_SIZE`` overrides 128 MiB."""
    match = _SIZE.fullmatch(environ.get("COSIGN_MAX_ATTACHMENT_SIZE", ""))
    if match is None:
        return MAX_LAYER_BYTES
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** " KMGT".index(match[2].upper() or " "))


def _may_be_bundle(found: Descriptor) -> bool:
    """Whether a referrer's manifest is worth fetching: a bundle, or of no telling type."""
    kind = found.artifact_type or ""
    return kind.startswith(BUNDLE) or kind in (
        "",
        "application/vnd.oci.empty.v1+json",
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.unknown.artifact.v1",
    )
