"""What cosign attaches to images: signature layers, attestation layers, bundles."""

from __future__ import annotations

import json
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from acceptance.private_sigstore.rekor import b64

IN_TOTO = "application/vnd.in-toto+json"
SLSA_V02 = "https://slsa.dev/provenance/v0.2"
COSIGN_SIGN = "https://sigstore.dev/cosign/sign/v1"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def sign(key: Any, data: bytes) -> bytes:
    """A signature with SHA-256, in the way of the key's kind."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(hashes.SHA256()))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    return key.sign(data)


def simple_signing(digest: str, name: str = "registry.test/app") -> bytes:
    """The payload of ``cosign sign``."""
    claim = {
        "critical": {
            "identity": {"docker-reference": name},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": None,
    }
    return json.dumps(claim, separators=(",", ":")).encode()


def provenance(digest: str, **changes: Any) -> dict[str, Any]:
    """A small valid SLSA v0.2 statement."""
    return {
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": SLSA_V02,
        "subject": [{"name": "registry.test/app", "digest": {"sha256": digest.split(":")[1]}}],
        "predicate": {
            "builder": {"id": "https://tekton.dev/chains/v2"},
            "buildType": "tekton.dev/v1/PipelineRun",
        },
        **changes,
    }


def image_statement(digest: str) -> dict[str, Any]:
    """What cosign v3 signs to sign an image."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": COSIGN_SIGN,
        "subject": [{"digest": {"sha256": digest.split(":")[1]}}],
        "predicate": {},
    }


def pae(payload: bytes, payload_type: str = IN_TOTO) -> bytes:
    """DSSE's pre-authentication encoding."""
    kind = payload_type.encode()
    return b" ".join(
        [b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload]
    )


def envelope(key: Any, statement: dict[str, Any]) -> dict[str, Any]:
    """A signed DSSE envelope."""
    payload = json.dumps(statement, separators=(",", ":")).encode()
    return {
        "payloadType": IN_TOTO,
        "payload": b64(payload),
        "signatures": [{"keyid": "", "sig": b64(sign(key, pae(payload)))}],
    }


def bundle(
    material: dict[str, Any], content: dict[str, Any], *, media_type: str = BUNDLE_TYPE
) -> dict[str, Any]:
    """A Sigstore bundle around an envelope."""
    return {
        "mediaType": media_type,
        "verificationMaterial": material,
        "dsseEnvelope": content,
    }
