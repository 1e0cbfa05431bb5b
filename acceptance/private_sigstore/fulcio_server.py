"""Fulcio's signing interface, v1 and v2, on a loopback port, for the authority of ``fulcio``.

Whoever presents a token gets a certificate for the token's subject. As the real
one it issues only to who proves possession of the key.
"""

from __future__ import annotations

import json
from base64 import b64decode, urlsafe_b64decode
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from acceptance.private_sigstore.fulcio import Fulcio, Leaf
from acceptance.private_sigstore.service import Answer, AnsweringService


class FulcioServer(AnsweringService):
    """Issues certificates; ``issued`` are those so far."""

    def __init__(self, fulcio: Fulcio) -> None:
        self.fulcio = fulcio
        self.issued: list[Leaf] = []
        super().__init__()

    def answer(self, path: str, headers: Mapping[str, str], content: bytes) -> Answer:
        """The certificate that is asked for, with its chain."""
        request = json.loads(content)
        bearer = headers.get("Authorization", "").removeprefix("Bearer ")
        token = request.get("credentials", {}).get("oidcIdentityToken") or bearer
        claims = json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))
        leaf = self.fulcio.issue(
            names=[x509.UniformResourceIdentifier(claims["sub"])],
            issuer=claims["iss"],
            key=_Public(_requested_key(request, claims["sub"])),
        )
        self.issued.append(leaf)
        if "/v2/" not in path:
            body = (leaf.pem + leaf.chain_pem).encode()
            return Answer(201, body, media_type="application/pem-certificate-chain")
        chain = [leaf.pem, *(_pem(certificate) for certificate in leaf.chain)]
        document = {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}
        return Answer(200, json.dumps(document).encode())


class _Public:
    """A key of which only the public half is known."""

    def __init__(self, key: Any) -> None:
        self._key = key

    def public_key(self) -> Any:
        return self._key


def _requested_key(request: dict[str, Any], subject: str) -> Any:
    if text := request.get("certificateSigningRequest"):
        asked = x509.load_pem_x509_csr(b64decode(text))
        assert asked.is_signature_valid
        return asked.public_key()
    wanted = request.get("publicKeyRequest", request)
    content = wanted["publicKey"]["content"]
    if content.startswith("-----BEGIN"):
        key: Any = serialization.load_pem_public_key(content.encode())
    else:
        key = serialization.load_der_public_key(b64decode(content))
    proof = b64decode(wanted.get("proofOfPossession") or request["signedEmailAddress"])
    key.verify(proof, subject.encode(), ec.ECDSA(hashes.SHA256()))
    return key


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
