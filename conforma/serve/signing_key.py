"""A private key of any kind that cosign's key mode verifies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    AnyPrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

Kind = Literal["p256", "p384", "rsa", "ed25519"]


class SigningKey:
    """Signs with SHA-256, whatever the key (signatures.md 4.2)."""

    def __init__(self, private: AnyPrivateKey) -> None:
        self._private = private

    @classmethod
    def generate(cls, kind: Kind = "p256") -> Self:
        """A new key."""
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

        if kind == "rsa":
            return cls(rsa.generate_private_key(65537, 2048))
        if kind == "ed25519":
            return cls(ed25519.Ed25519PrivateKey.generate())
        return cls(ec.generate_private_key(ec.SECP256R1() if kind == "p256" else ec.SECP384R1()))

    @property
    def public_pem(self) -> str:
        """The public key as people pass it around."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        form = PublicFormat.SubjectPublicKeyInfo
        return self._private.public_key().public_bytes(Encoding.PEM, form).decode()

    @property
    def public_der(self) -> bytes:
        """The SubjectPublicKeyInfo, whose hash names a log."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        form = PublicFormat.SubjectPublicKeyInfo
        return self._private.public_key().public_bytes(Encoding.DER, form)

    @property
    def private_pem(self) -> str:
        """The private key, not encrypted."""
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        form = PrivateFormat.PKCS8
        return self._private.private_bytes(Encoding.PEM, form, NoEncryption()).decode()

    def sign(self, data: bytes) -> bytes:
        """A signature over ``data``: ASN.1 for ECDSA, PKCS #1 v1.5 for RSA, raw for Ed25519."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

        if isinstance(self._private, ec.EllipticCurvePrivateKey):
            return self._private.sign(data, ec.ECDSA(hashes.SHA256()))
        if isinstance(self._private, rsa.RSAPrivateKey):
            return self._private.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return self._private.sign(data)
