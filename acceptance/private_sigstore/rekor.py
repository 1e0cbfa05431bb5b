"""A transparency log with a real, growing Merkle tree: Rekor v1 promises, v2 checkpoints."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import Any

from acceptance.private_sigstore.log_signer import LogSigner


def b64(data: bytes) -> str:
    """Standard base64."""
    return base64.b64encode(data).decode()


def canonical(document: Any) -> bytes:
    """RFC 8785 for documents of strings and small integers."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def tree_root(leaves: list[bytes]) -> bytes:
    """The Merkle tree hash of RFC 6962 2.1."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = _split(len(leaves))
    return hashlib.sha256(b"\1" + tree_root(leaves[:split]) + tree_root(leaves[split:])).digest()


def tree_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """The audit path of RFC 6962 2.1.1."""
    if len(leaves) == 1:
        return []
    split = _split(len(leaves))
    if index < split:
        return [*tree_path(index, leaves[:split]), tree_root(leaves[split:])]
    return [*tree_path(index - split, leaves[split:]), tree_root(leaves[:split])]


def _split(count: int) -> int:
    return 1 << ((count - 1).bit_length() - 1)


@dataclass
class Rekor:
    """The log. ``shift`` is the difference of global and tree index, as after sharding.

    The tree's number in checkpoints marks them as those of Rekor v1.
    """

    origin: str = "rekor.private.test"
    tree: str = " - 42"
    shift: int = 1000
    leaves: list[bytes] = field(default_factory=lambda: [b"first", b"second", b"third"])

    signer: LogSigner = field(default_factory=LogSigner)
    entries: list[Entry] = field(default_factory=list)

    @property
    def key(self) -> Any:
        """The log's private key."""
        return self.signer.key

    @property
    def log_id(self) -> bytes:
        """SHA-256 of the log's key."""
        return self.signer.log_id

    def add(self, body: dict[str, Any], *, at: int | None = None) -> Entry:
        """Append an entry; the tree grows by it and one more."""
        raw = canonical(body)
        self.leaves.append(raw)
        index = len(self.leaves) - 1
        self.leaves.append(b"a later entry")
        entry = Entry(self, raw, index, int(time.time()) if at is None else at)
        self.entries.append(entry)
        return entry

    def sign(self, data: bytes) -> bytes:
        """The log's signature."""
        return self.signer.sign(data)

    def checkpoint(self, leaves: list[bytes]) -> str:
        """A signed note about the tree of ``leaves``."""
        note = f"{self.origin}{self.tree}\n{len(leaves)}\n{b64(tree_root(leaves))}\n"
        signature = self.log_id[:4] + self.sign(note.encode())
        return f"{note}\n\u2014 {self.origin} {b64(signature)}\n"


@dataclass
class Entry:
    """One entry in its three spellings."""

    log: Rekor
    body: bytes
    index: int
    time: int

    def payload(self) -> dict[str, Any]:
        """What the signed entry timestamp signs."""
        return {
            "body": b64(self.body),
            "integratedTime": self.time,
            "logIndex": self.index + self.log.shift,
            "logID": self.log.log_id.hex(),
        }

    def promise(self) -> bytes:
        """The signed entry timestamp."""
        return self.log.sign(canonical(self.payload()))

    def annotation(self) -> dict[str, Any]:
        """The ``dev.sigstore.cosign/bundle`` annotation."""
        return {"SignedEntryTimestamp": b64(self.promise()), "Payload": self.payload()}

    def bundled(self, *, promise: bool = True, proof: bool = True) -> dict[str, Any]:
        """A ``TransparencyLogEntry`` of a Sigstore bundle; without promise as Rekor v2 has it."""
        parsed = json.loads(self.body)
        shift = self.log.shift if promise else 0
        entry: dict[str, Any] = {
            "logIndex": str(self.index + shift),
            "logId": {"keyId": b64(self.log.log_id)},
            "kindVersion": {"kind": parsed["kind"], "version": parsed["apiVersion"]},
            "canonicalizedBody": b64(self.body),
        }
        if promise:
            entry["integratedTime"] = str(self.time)
            entry["inclusionPromise"] = {"signedEntryTimestamp": b64(self.promise())}
        if proof:
            leaves = self.log.leaves
            entry["inclusionProof"] = {
                "logIndex": str(self.index),
                "treeSize": str(len(leaves)),
                "rootHash": b64(tree_root(leaves)),
                "hashes": [b64(item) for item in tree_path(self.index, leaves)],
                "checkpoint": {"envelope": self.log.checkpoint(leaves)},
            }
        return entry

    @property
    def uuid(self) -> str:
        """The name under which Rekor v1 retrieves the entry: tree and leaf hash."""
        return f"{42:016x}{hashlib.sha256(bytes(1) + self.body).hexdigest()}"

    def retrieved(self) -> dict[str, Any]:
        """The entry as Rekor v1 returns it."""
        leaves = self.log.leaves
        return {
            **self.payload(),
            "verification": {
                "signedEntryTimestamp": b64(self.promise()),
                "inclusionProof": {
                    "checkpoint": self.log.checkpoint(leaves),
                    "hashes": [item.hex() for item in tree_path(self.index, leaves)],
                    "logIndex": self.index,
                    "rootHash": tree_root(leaves).hex(),
                    "treeSize": len(leaves),
                },
            },
        }


def hashedrekord(data: bytes, signature: bytes, pem: str) -> dict[str, Any]:
    """The body for a signature over ``data``."""
    return {
        "apiVersion": "0.0.1",
        "kind": "hashedrekord",
        "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}},
            "signature": {"content": b64(signature), "publicKey": {"content": b64(pem.encode())}},
        },
    }


def dsse(envelope: bytes, payload: bytes, signature: bytes, pem: str) -> dict[str, Any]:
    """The body for a DSSE envelope."""

    def digest(data: bytes) -> dict[str, str]:
        return {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}

    return {
        "apiVersion": "0.0.1",
        "kind": "dsse",
        "spec": {
            "envelopeHash": digest(envelope),
            "payloadHash": digest(payload),
            "signatures": [{"signature": b64(signature), "verifier": b64(pem.encode())}],
        },
    }


def intoto_1(envelope: bytes, payload: bytes, pem: str) -> dict[str, Any]:
    """The body of an attestation as cosign proposes it (intoto 0.0.1)."""

    def digest(data: bytes) -> dict[str, str]:
        return {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}

    return {
        "apiVersion": "0.0.1",
        "kind": "intoto",
        "spec": {
            "content": {"hash": digest(envelope), "payloadHash": digest(payload)},
            "publicKey": b64(pem.encode()),
        },
    }


def intoto(envelope: bytes, signature: bytes, pem: str) -> dict[str, Any]:
    """The body that cosign v2 logs for an attestation (intoto 0.0.2)."""
    digest = {"algorithm": "sha256", "value": hashlib.sha256(envelope).hexdigest()}
    signed = {"publicKey": b64(pem.encode()), "sig": b64(b64(signature).encode())}
    return {
        "apiVersion": "0.0.2",
        "kind": "intoto",
        "spec": {
            "content": {
                "envelope": {
                    "payloadType": "application/vnd.in-toto+json",
                    "signatures": [signed],
                },
                "hash": digest,
                "payloadHash": digest,
            }
        },
    }


def hashedrekord_v2(data: bytes, signature: bytes, certificate: bytes) -> dict[str, Any]:
    """The body of Rekor v2; for DSSE ``data`` is the pre-authentication encoding."""
    return {
        "apiVersion": "0.0.2",
        "kind": "hashedrekord",
        "spec": {
            "hashedRekordV002": {
                "data": {"algorithm": "SHA2_256", "digest": b64(hashlib.sha256(data).digest())},
                "signature": {
                    "content": b64(signature),
                    "verifier": {
                        "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                        "x509Certificate": {"rawBytes": b64(certificate)},
                    },
                },
            }
        },
    }
