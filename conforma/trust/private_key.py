"""Private keys that statements are signed with: PKCS #8 PEM, or as cosign encrypts them.

Source: commands.md 9.3. Always SHA-256, as ``keys`` verifies.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from conforma.errors import InputError
from conforma.trust.keys import spki_pem
from conforma.trust.secretbox import open_box

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

PASSWORD: Final = "COSIGN_PASSWORD"  # noqa: S105 - the name of a variable
_COSIGN: Final = ("ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY")
_LONGEST: Final = 1 << 20
#: scrypt may take this much memory; cosign's own parameters need 32 MiB.
_MOST_MEMORY: Final = 256 << 20


class PrivateKey:
    """A key that signs; ``public_pem`` is the other half."""

    def __init__(self, private: PrivateKeyTypes) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

        if not isinstance(
            private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
        ):
            raise InputError("unsupported private key type")
        self._private = private
        self.public_pem = spki_pem(private.public_key())

    @classmethod
    def load(cls, path: str, password: bytes = b"") -> PrivateKey:
        """The key in a file. Raises ``InputError``."""
        try:
            with Path(path).open("rb") as file:
                pem = file.read(_LONGEST)
        except (OSError, ValueError) as cause:
            reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
            raise InputError(
                f'resolve private key "{path}": read key from file "{path}": '
                f"open {path}: {reason.lower()}"
            ) from cause
        return cls.parse(pem, path, password)

    @classmethod
    def parse(cls, pem: bytes, where: str, password: bytes = b"") -> PrivateKey:
        """The key in PEM text. Raises ``InputError`` naming ``where``."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import (
            load_der_private_key,
            load_pem_private_key,
        )

        try:
            if (sealed := _cosign_body(pem)) is not None:
                return cls(load_der_private_key(_opened(sealed, password), None))
            encrypted = b"ENCRYPTED" in pem
            return cls(load_pem_private_key(pem, password if encrypted else None))
        except (ValueError, TypeError, KeyError, UnsupportedAlgorithm) as cause:
            raise InputError(
                f'load private key "{where}": {cause}',
                hint=f"the password of an encrypted key is taken from {PASSWORD}",
            ) from cause

    def sign(self, data: bytes) -> bytes:
        """A signature over ``data`` that ``PublicKey.verify`` accepts."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

        if isinstance(self._private, ec.EllipticCurvePrivateKey):
            return self._private.sign(data, ec.ECDSA(hashes.SHA256()))
        if isinstance(self._private, rsa.RSAPrivateKey):
            return self._private.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return self._private.sign(data)


def _cosign_body(pem: bytes) -> bytes | None:
    text = pem.decode("ascii", "replace")
    for kind in _COSIGN:
        _, begin, rest = text.partition(f"-----BEGIN {kind}-----")
        body, end, _ = rest.partition(f"-----END {kind}-----")
        if begin and end:
            return base64.b64decode("".join(body.split()), validate=True)
    return None


def _opened(sealed: bytes, password: bytes) -> bytes:
    document: Any = json.loads(sealed)
    derivation, cipher = document["kdf"], document["cipher"]
    if derivation["name"] != "scrypt" or cipher["name"] != "nacl/secretbox":
        raise ValueError("encrypted in a way that cosign does not use")
    parameters = derivation["params"]
    key = hashlib.scrypt(
        password,
        salt=base64.b64decode(derivation["salt"]),
        n=int(parameters["N"]),
        r=int(parameters["r"]),
        p=int(parameters["p"]),
        maxmem=_MOST_MEMORY,
        dklen=32,
    )
    return open_box(
        key, base64.b64decode(cipher["nonce"]), base64.b64decode(document["ciphertext"])
    )
