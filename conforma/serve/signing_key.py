"""New private keys of every kind that cosign's key mode verifies."""

from __future__ import annotations

from typing import Literal, Self

from conforma.trust.private_key import PrivateKey

Kind = Literal["p256", "p384", "rsa", "ed25519"]


class SigningKey(PrivateKey):
    """A key that can be made and passed around (signatures.md 4.2)."""

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
