"""How a transparency log signs: any key that Sigstore knows, with any hash function."""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding

_HASHES: dict[str, Any] = {
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}


class LogSigner:
    """A log's key. ECDSA P-256 with SHA-256 unless told otherwise."""

    def __init__(self, key: Any = None, digest: str = "sha256") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1()) if key is None else key
        self.digest = digest

    @property
    def log_id(self) -> bytes:
        """SHA-256 of the log's key."""
        encoded = self.key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return hashlib.sha256(encoded).digest()

    @property
    def details(self) -> str:
        """``keyDetails`` of a trusted root."""
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return "PKIX_ED25519"
        bits = self.digest.removeprefix("sha")
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            return f"PKIX_ECDSA_P{self.key.curve.key_size}_SHA_{bits}"
        return f"PKIX_RSA_PKCS1V15_{self.key.key_size}_SHA_{bits}"

    @property
    def tls_algorithm(self) -> bytes:
        """Hash and signature algorithm as an SCT states them (RFC 5246 7.4.1.4.1, RFC 8422 5.1.3)."""
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return bytes([8, 7])
        number = {"sha256": 4, "sha384": 5, "sha512": 6}[self.digest]
        return bytes([number, 3 if isinstance(self.key, ec.EllipticCurvePrivateKey) else 1])

    def sign(self, data: bytes) -> bytes:
        """A signature over ``data``."""
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(data)
        hashed = _HASHES[self.digest]()
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            return self.key.sign(data, ec.ECDSA(hashed))
        signature: bytes = self.key.sign(data, padding.PKCS1v15(), hashed)
        return signature
