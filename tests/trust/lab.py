"""Signed things to attack, each made once, and the calls that must refuse them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from acceptance.private_sigstore import cosign, rekor
from acceptance.private_sigstore.fulcio import Fulcio, Leaf, public_pem
from acceptance.private_sigstore.log_signer import LogSigner
from acceptance.private_sigstore.rekor import Rekor
from conforma.oci.digest import Digest
from conforma.trust.bundle import Bundle
from conforma.trust.bundle_verify import VerifiedBundle, verify_bundle
from conforma.trust.evidence import (
    CERTIFICATE,
    CHAIN,
    DSSE_ENVELOPE,
    REKOR_BUNDLE,
    SIGNATURE,
    SIMPLE_SIGNING,
    Attached,
    Kind,
)
from conforma.trust.identity import Identity
from conforma.trust.keys import PublicKey
from conforma.trust.legacy_verify import VerifiedLayer, verify_layer
from conforma.trust.root import Authority, LogKey, TrustRoot, Validity, by_id
from conforma.trust.trust_policy import TrustPolicy

DIGEST = Digest.of(b"the image")
OTHER = Digest.of(b"another image")
ME = Identity(issuer="https://issuer.test", subject="https://id.test/me")
P256 = ec.generate_private_key(ec.SECP256R1())


@dataclass
class Lab:
    """One private Sigstore, one key, one identity."""

    key: Any = P256
    log: Rekor = field(default_factory=Rekor)
    fulcio: Fulcio = field(default_factory=Fulcio)

    @property
    def pem(self) -> str:
        return public_pem(self.key)

    def root(self, **changes: Any) -> TrustRoot:
        """Everything trusted, from the day the authority was made."""
        validity = Validity(self.fulcio.started)
        parts: dict[str, Any] = {
            "logs": by_id([trusted(self.log.signer, validity)]),
            "ct_logs": by_id([trusted(self.fulcio.ct_log, validity)]),
            "authorities": (Authority(self.fulcio.chain, validity),),
        }
        return TrustRoot(**{**parts, **changes})

    def by_key(self, **changes: Any) -> TrustPolicy:
        return TrustPolicy(**{"public_key": PublicKey(self.pem), **changes})

    def keyless(self, **changes: Any) -> TrustPolicy:
        return TrustPolicy(**{"identity": ME, **changes})

    def signature(self, digest: Digest = DIGEST, leaf: Leaf | None = None) -> Attached:
        """A ``.sig`` layer with its log entry."""
        payload = cosign.simple_signing(str(digest))
        key, pem = (self.key, self.pem) if leaf is None else (leaf.key, leaf.pem)
        value = cosign.sign(key, payload)
        entry = self.log.add(rekor.hashedrekord(payload, value, pem))
        annotations = {
            SIGNATURE: rekor.b64(value),
            REKOR_BUNDLE: json.dumps(entry.annotation()),
            **_certificates(leaf),
        }
        return attached("signature", SIMPLE_SIGNING, payload, annotations)

    def attestation(
        self,
        statement: dict[str, Any] | None = None,
        leaf: Leaf | None = None,
        kind: str = "intoto",
    ) -> Attached:
        """A ``.att`` layer with its log entry."""
        key, pem = (self.key, self.pem) if leaf is None else (leaf.key, leaf.pem)
        envelope = cosign.envelope(key, statement or cosign.provenance(str(DIGEST)))
        content = json.dumps(envelope).encode()
        entry = self.log.add(self._body(kind, envelope, content, pem))
        annotations = {
            SIGNATURE: "",
            REKOR_BUNDLE: json.dumps(entry.annotation()),
            **_certificates(leaf),
        }
        return attached("attestation", DSSE_ENVELOPE, content, annotations)

    def bundle(
        self,
        statement: dict[str, Any] | None = None,
        leaf: Leaf | None = None,
        *,
        entry: Mapping[str, bool] | None = None,
        kind: str = "dsse",
    ) -> dict[str, Any]:
        """A v0.3 bundle; ``entry`` says what the log entry comes with."""
        key, pem = (self.key, self.pem) if leaf is None else (leaf.key, leaf.pem)
        envelope = cosign.envelope(key, statement or cosign.image_statement(str(DIGEST)))
        logged = self.log.add(self._body(kind, envelope, json.dumps(envelope).encode(), pem, leaf))
        material: dict[str, Any] = {"tlogEntries": [logged.bundled(**(entry or {}))]}
        if leaf is None:
            material["publicKey"] = {"hint": "any"}
        else:
            material["certificate"] = {"rawBytes": rekor.b64(leaf.der)}
        return cosign.bundle(material, envelope)

    @staticmethod
    def _body(
        kind: str, envelope: dict[str, Any], content: bytes, pem: str, leaf: Leaf | None = None
    ) -> dict[str, Any]:
        from base64 import b64decode

        value = b64decode(envelope["signatures"][0]["sig"])
        payload = b64decode(envelope["payload"])
        if kind == "intoto":
            return rekor.intoto(content, value, pem)
        if kind == "v2":
            assert leaf is not None
            return rekor.hashedrekord_v2(cosign.pae(payload), value, leaf.der)
        return rekor.dsse(content, payload, value, pem)


def trusted(signer: LogSigner, validity: Validity) -> LogKey:
    """A log as a trusted root has it."""
    key = signer.key.public_key()
    return LogKey(key, signer.log_id, validity, dated=True, digests=(signer.digest,))


def attached(
    kind: Kind, media_type: str, content: bytes, annotations: Mapping[str, str]
) -> Attached:
    return Attached(kind, Digest.of(content), media_type, content, annotations)


def check_layer(lab: Lab, layer: Attached, policy: TrustPolicy, **root: Any) -> VerifiedLayer:
    return verify_layer(layer, DIGEST, policy, lab.root(**root))


def check_bundle(
    lab: Lab, document: dict[str, Any], policy: TrustPolicy, **root: Any
) -> VerifiedBundle:
    parsed = Bundle.parse(json.dumps(document).encode())
    return verify_bundle(parsed, DIGEST, policy, lab.root(**root))


def _certificates(leaf: Leaf | None) -> dict[str, str]:
    return {} if leaf is None else {CERTIFICATE: leaf.pem, CHAIN: leaf.chain_pem}
