"""Fulcio's signing interface, v1 and v2, on a loopback port, for the authority of ``fulcio``.

Whoever presents a token gets a certificate for the token's subject. As the real
one it issues only to who proves possession of the key.
"""

from __future__ import annotations

import json
import threading
from base64 import b64decode, urlsafe_b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from acceptance.private_sigstore.fulcio import Fulcio, Leaf


class FulcioServer:
    """Issues certificates; ``issued`` are those so far."""

    def __init__(self, fulcio: Fulcio) -> None:
        self.fulcio = fulcio
        self.issued: list[Leaf] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
                kind, body = owner.answer(self.path, json.loads(content), bearer)
                self.send_response(200 if "/v2/" in self.path else 201)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the authority is served."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FulcioServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str, request: dict[str, Any], bearer: str) -> tuple[str, bytes]:
        """Content type and body for one request."""
        token = request.get("credentials", {}).get("oidcIdentityToken") or bearer
        claims = json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))
        leaf = self.fulcio.issue(
            names=[x509.UniformResourceIdentifier(claims["sub"])],
            issuer=claims["iss"],
            key=_Public(_requested_key(request, claims["sub"])),
        )
        self.issued.append(leaf)
        if "/v2/" not in path:
            return "application/pem-certificate-chain", (leaf.pem + leaf.chain_pem).encode()
        chain = [leaf.pem, *(_pem(certificate) for certificate in leaf.chain)]
        answer = {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}
        return "application/json", json.dumps(answer).encode()


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
