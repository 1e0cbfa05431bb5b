"""The Verifier: everything attached to an image, held against one policy.

Each of its answers is either verified or a ``TrustError``; a registry that
could not be read raises its own error and is never taken for "not signed".
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, cast

from msgspec import Struct

from conforma.errors import BadEvidence, NoMatchingSignature, NoSignature, TrustError
from conforma.oci.digest import Digest
from conforma.oci.memory import Memory
from conforma.oci.reference import Reference
from conforma.trust import slsa
from conforma.trust.envelope import STATEMENT_TYPES, Statement
from conforma.trust.evidence import (
    DSSE_ENVELOPE,
    SIMPLE_SIGNING,
    Attached,
    EvidenceReader,
    digest_of,
)
from conforma.trust.legacy_verify import VerifiedLayer, read_envelope, verify_layer
from conforma.trust.root import TrustRoot
from conforma.trust.signature import Attestation, Signature, build_type_of
from conforma.trust.signature_objects import bundle_signatures, layer_signatures, unverified
from conforma.trust.trust_policy import TrustPolicy

if TYPE_CHECKING:
    from conforma.oci.registry import Registry
    from conforma.trust.bundle import Bundle
    from conforma.trust.bundle_verify import VerifiedBundle

_Result = TypeVar("_Result")
LoadRoot = Callable[[TrustPolicy], TrustRoot]
#: Asks the log at a URL about an image's signature (``rekor_client``).
AskLogAt = Callable[[str, Reference, bytes], bytes | None]
NOTHING_TRUSTED: Final = TrustRoot()
# Parsed statements take several times the room of their bytes.
_SIZE_IN_MEMORY: Final = 8
_REMEMBERED: Final = 16 << 20


class Verifier:
    """Verifies what is attached to images. Safe to share between threads.

    Each item is verified once: verdicts are remembered by the bytes they are
    about, the digest of the image among them, and never by a name.
    """

    def __init__(
        self,
        registry: Registry | EvidenceReader,
        policy: TrustPolicy,
        root: TrustRoot | LoadRoot = NOTHING_TRUSTED,
        *,
        ask_log: AskLogAt | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """``root`` may be a function, called when first needed; ``ask_log`` asks a log online."""
        self.policy = policy
        self.evidence = (
            registry if isinstance(registry, EvidenceReader) else EvidenceReader(registry, environ)
        )
        self._load_root = root
        self._root = root if isinstance(root, TrustRoot) else None
        self._lock = threading.Lock()
        self._ask_log = ask_log
        self._verdicts: Memory[object] = Memory(_REMEMBERED)

    @property
    def root(self) -> TrustRoot:
        """The trusted material, loaded once. What loading raises passes through."""
        if not self.policy.needs_root:
            return NOTHING_TRUSTED
        with self._lock:
            if self._root is None:
                self._root = self._material(self.policy)
            return self._root

    def for_policy(
        self, policy: TrustPolicy, adapt: Callable[[TrustRoot], TrustRoot] | None = None
    ) -> Verifier:
        """A verifier for another policy that shares evidence and trusted material.

        ``adapt`` changes the trusted material.
        """
        change = adapt or (lambda root: root)
        return Verifier(
            self.evidence,
            policy,
            lambda wanted: change(self._material(wanted)),
            ask_log=self._ask_log,
        )

    def _material(self, policy: TrustPolicy) -> TrustRoot:
        if isinstance(self._load_root, TrustRoot):
            return self._load_root
        return self._load_root(policy)

    def image_signatures(self, image: Reference) -> tuple[Signature, ...]:
        """The verified signatures of ``image`` itself; at least one.

        Raises ``NoSignature`` if none is attached, ``NoMatchingSignature`` if
        none of those attached verifies, and other ``TrustError`` for
        evidence that cannot be read. Attestations never count.
        """
        reasons: list[str] = []
        verified = [
            signature
            for layer in self._layers(self.evidence.signatures(image), image, reasons)
            for signature in layer_signatures(layer)
        ]
        for found in self._bundles(image, True, reasons):
            verified.extend(bundle_signatures(found, self.policy))
        if not verified:
            bare = self.evidence.bare(image, SIMPLE_SIGNING)
            for layer in self._layers(bare, image, reasons):
                verified.extend(layer_signatures(layer))
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
        reasons: list[str] = []
        layers = self.evidence.attestations(image)
        found = [_from_layer(layer) for layer in self._layers(layers, image, reasons)]
        found += [_from_bundle(item, self.policy) for item in self._bundles(image, False, reasons)]
        if not found:
            bare = self.evidence.bare(image, DSSE_ENVELOPE)
            found = [_from_layer(layer) for layer in self._layers(bare, image, reasons)]
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

    def _layers(
        self, items: Iterable[Attached], image: Reference, reasons: list[str]
    ) -> list[VerifiedLayer]:
        digest, ask = digest_of(image), None
        if self._ask_log is not None and self.policy.rekor_url:
            ask = partial(self._ask_log, self.policy.rekor_url, image)

        # The root is loaded only when there is something to verify: "unsigned"
        # can be said without it.
        def check(item: Attached) -> VerifiedLayer:
            return verify_layer(item, digest, self.policy, self.root, ask)

        found = (self._verdict(item, digest, check) for item in items)
        return _kept(found, reasons)

    def _bundles(
        self, image: Reference, signatures: bool, reasons: list[str]
    ) -> list[VerifiedBundle]:
        digest = digest_of(image)
        found: list[VerifiedBundle | _Refusal] = []
        for item in self.evidence.bundles(image):
            try:
                bundle = _parse_bundle(item)
                if bundle.is_image_signature() != signatures:
                    continue
            except TrustError as cause:
                found.append(_Refusal(cause.message))
                continue
            check = partial(self._verify_bundle, bundle, digest)
            found.append(self._verdict(item, digest, check))
        return _kept(found, reasons)

    def _verify_bundle(self, bundle: Bundle, digest: Digest, _item: Attached) -> VerifiedBundle:
        from conforma.trust.bundle_verify import verify_bundle

        return verify_bundle(bundle, digest, self.policy, self.root)

    def _verdict(
        self, item: Attached, digest: Digest, check: Callable[[Attached], _Result]
    ) -> _Result | _Refusal:
        """What ``check`` says about ``item``, which is verified once in a run."""
        key = (item.kind, item.bare, item.fault, item.digest, item.media_type)
        whole = (key, frozenset(item.annotations.items()), digest)
        found = None if self.policy.asks_the_clock else self._verdicts.get(whole)
        if found is None:
            try:
                found = check(item)
            except TrustError as cause:
                found = _Refusal(cause.message)
            self._verdicts.put(whole, found, 1 + _SIZE_IN_MEMORY * len(item.content))
        return cast("_Result | _Refusal", found)


class _Refusal(Struct, frozen=True):
    reason: str


def _kept(found: Iterable[_Result | _Refusal], reasons: list[str]) -> list[_Result]:
    """What holds; the reasons of what does not are added to ``reasons``."""
    kept: list[_Result] = []
    for item in found:
        if isinstance(item, _Refusal):
            reasons.append(item.reason)
        else:
            kept.append(item)
    return kept


def _joined(reasons: list[str]) -> str:
    return "\n ".join(dict.fromkeys(reasons))


def _parse_bundle(item: Attached) -> Bundle:
    if item.fault:
        raise BadEvidence(item.fault)
    from conforma.trust.bundle import Bundle

    return Bundle.parse(item.content)


def _from_layer(layer: VerifiedLayer) -> Attestation:
    assert layer.statement is not None
    return _attestation(layer.statement, layer_signatures(layer), verified=True)


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
