"""The Verifier: everything attached to an image, held against one policy.

Each of its answers is either verified or a ``TrustError``; a registry that
could not be read raises its own error and is never taken for "not signed".
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, TypeVar

from conforma.errors import BadEvidence, NoMatchingSignature, NoSignature, TrustError
from conforma.oci.digest import Digest
from conforma.oci.reference import Reference
from conforma.trust import slsa
from conforma.trust.bundle import Bundle
from conforma.trust.bundle_verify import VerifiedBundle, verify_bundle
from conforma.trust.envelope import STATEMENT_TYPES, Statement
from conforma.trust.evidence import (
    DSSE_ENVELOPE,
    SIMPLE_SIGNING,
    Attached,
    EvidenceReader,
    digest_of,
)
from conforma.trust.legacy_verify import SearchLog, VerifiedLayer, read_envelope, verify_layer
from conforma.trust.root import TrustRoot
from conforma.trust.signature import Attestation, Signature, build_type_of
from conforma.trust.signature_objects import bundle_signatures, layer_signatures, unverified
from conforma.trust.trust_policy import TrustPolicy

if TYPE_CHECKING:
    from conforma.oci.registry import Registry

_Result = TypeVar("_Result")
LoadRoot = Callable[[], TrustRoot]
NOTHING_TRUSTED: Final = TrustRoot()


class Verifier:
    """Verifies what is attached to images. Safe to share between threads."""

    def __init__(
        self,
        registry: Registry | EvidenceReader,
        policy: TrustPolicy,
        root: TrustRoot | LoadRoot = NOTHING_TRUSTED,
        *,
        search: SearchLog | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """``root`` may be a function, called when first needed; ``search`` asks a log online."""
        self.policy = policy
        self.evidence = (
            registry if isinstance(registry, EvidenceReader) else EvidenceReader(registry, environ)
        )
        self._root = root
        self._lock = threading.Lock()
        self._search = search

    @property
    def root(self) -> TrustRoot:
        """The trusted material, loaded once. What loading raises passes through."""
        if not self.policy.needs_root:
            return NOTHING_TRUSTED
        with self._lock:
            if not isinstance(self._root, TrustRoot):
                self._root = self._root()
            return self._root

    def image_signatures(self, image: Reference) -> tuple[Signature, ...]:
        """The verified signatures of ``image`` itself; at least one.

        Raises ``NoSignature`` if none is attached, ``NoMatchingSignature`` if
        none of those attached verifies, and other ``TrustError`` for
        evidence that cannot be read. Attestations never count.
        """
        digest = digest_of(image)
        reasons: list[str] = []
        verified = [
            signature
            for layer in self._verified(
                self.evidence.signatures(image), self._layer_check(digest), reasons
            )
            for signature in layer_signatures(layer, self.policy)
        ]
        for found in self._bundles(image, digest, True, reasons):
            verified.extend(bundle_signatures(found, self.policy))
        if not verified:
            bare = self.evidence.bare(image, SIMPLE_SIGNING)
            for layer in self._verified(bare, self._layer_check(digest), reasons):
                verified.extend(layer_signatures(layer, self.policy))
        if verified:
            return tuple(verified)
        if not reasons:
            raise NoSignature("no signatures found", hint="nothing at all signs this image")
        raise NoMatchingSignature(f"no matching signatures: {_joined(reasons)}")

    def attestations(self, image: Reference) -> tuple[Attestation, ...]:
        """The verified attestations about ``image``, signatures left out; at least one.

        Raises ``NoMatchingSignature`` if there is none, and ``BadEvidence`` for
        one that verifies but cannot be read.
        """
        digest = digest_of(image)
        reasons: list[str] = []
        layers = self.evidence.attestations(image)
        found = [
            _from_layer(layer, self.policy)
            for layer in self._verified(layers, self._layer_check(digest), reasons)
        ]
        found += [
            _from_bundle(item, self.policy) for item in self._bundles(image, digest, False, reasons)
        ]
        if not found:
            bare = self.evidence.bare(image, DSSE_ENVELOPE)
            found = [
                _from_layer(layer, self.policy)
                for layer in self._verified(bare, self._layer_check(digest), reasons)
            ]
        if not found:
            raise NoMatchingSignature(
                f"no matching attestations: {_joined(reasons)}",
                hint=None if reasons else "no attestation is attached to the image",
            )
        return tuple(found)

    def unverified_attestations(self, image: Reference) -> tuple[Attestation, ...]:
        """The attestations about ``image`` in all layouts, their signatures not looked at.

        Those about other images are left out. Raises ``BadEvidence`` for one
        that cannot be read; empty if there is none.
        """
        digest = digest_of(image)
        found = []
        for layer in self.evidence.attestations(image):
            envelope, statement = read_envelope(layer)
            found.append(_attestation(statement, unverified(envelope, "tag"), verified=False))
        for item in self.evidence.bundles(image):
            bundle = _parse_bundle(item)
            claim = None if bundle.is_image_signature() else bundle.statement()
            if claim is not None and bundle.envelope is not None:
                signatures = unverified(bundle.envelope, "bundle")
                found.append(Attestation(claim, signatures, None, verified=False, layout="bundle"))
        return tuple(item for item in found if item.statement.is_about(digest))

    def _layer_check(self, digest: Digest) -> Callable[[Attached], VerifiedLayer]:
        # The root is loaded only when there is something to verify: "unsigned"
        # can be said without it.
        return lambda layer: verify_layer(layer, digest, self.policy, self.root, self._search)

    def _bundles(
        self, image: Reference, digest: Digest, signatures: bool, reasons: list[str]
    ) -> list[VerifiedBundle]:
        def check(item: Attached) -> VerifiedBundle | None:
            bundle = _parse_bundle(item)
            if bundle.is_image_signature() != signatures:
                return None
            return verify_bundle(bundle, digest, self.policy, self.root)

        found = self._verified(self.evidence.bundles(image), check, reasons)
        return [item for item in found if item is not None]

    @staticmethod
    def _verified(
        items: Iterable[Attached], check: Callable[[Attached], _Result], reasons: list[str]
    ) -> list[_Result]:
        results = []
        for item in items:
            try:
                results.append(check(item))
            except TrustError as cause:
                reasons.append(cause.message)
        return results


def _joined(reasons: list[str]) -> str:
    return "\n ".join(dict.fromkeys(reasons))


def _parse_bundle(item: Attached) -> Bundle:
    if item.fault:
        raise BadEvidence(item.fault)
    return Bundle.parse(item.content)


def _from_layer(layer: VerifiedLayer, policy: TrustPolicy) -> Attestation:
    assert layer.statement is not None
    return _attestation(layer.statement, layer_signatures(layer, policy), verified=True)


def _attestation(
    statement: Statement, signatures: tuple[Signature, ...], *, verified: bool
) -> Attestation:
    slsa.check_type(statement)
    return Attestation(statement, signatures, build_type_of(statement), verified)


def _from_bundle(item: VerifiedBundle, policy: TrustPolicy) -> Attestation:
    assert item.statement is not None
    if item.statement.type not in STATEMENT_TYPES:
        raise BadEvidence(
            "unable to parse bundle attestation: "
            f"unsupported attestation type: {item.statement.type}"
        )
    signatures = bundle_signatures(item, policy)
    return Attestation(item.statement, signatures, None, verified=True, layout="bundle")
