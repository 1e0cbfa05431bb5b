"""A transparency log as small as can be: entries that verify offline with the log's key.

Every entry is the only leaf of its own tree, as in a log that was sharded
after each entry, so inclusion proofs are short and still real.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from typing import Any

from msgspec import Struct

from conforma import gojson
from conforma.serve.signing_key import SigningKey

ORIGIN = "log.example.com"


class LogEntry(Struct, frozen=True):
    """One entry with everything needed to verify it."""

    kind: str
    body: bytes
    integrated_time: int
    index: int
    log_id: str
    signed_entry_timestamp: bytes
    checkpoint: str

    @property
    def annotation(self) -> str:
        """The text of cosign's bundle annotation (signatures.md 2.2)."""
        payload = _payload(self.body, self.integrated_time, self.index, self.log_id)
        bundle = {"SignedEntryTimestamp": _b64(self.signed_entry_timestamp), "Payload": payload}
        return gojson.dumps(bundle)

    @property
    def bundle_entry(self) -> dict[str, Any]:
        """The element of a Sigstore bundle's ``tlogEntries``."""
        return {
            "logIndex": str(self.index),
            "logId": {"keyId": _b64(bytes.fromhex(self.log_id))},
            "kindVersion": {"kind": self.kind, "version": "0.0.1"},
            "integratedTime": str(self.integrated_time),
            "inclusionPromise": {"signedEntryTimestamp": _b64(self.signed_entry_timestamp)},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": _b64(_leaf_hash(self.body)),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": self.checkpoint},
            },
            "canonicalizedBody": _b64(self.body),
        }


class TransparencyLog:
    """Makes entries signed with ``key``; ``time`` is when all of them were integrated."""

    def __init__(self, key: SigningKey | None = None, *, time: int = 1_767_607_651) -> None:
        self.key = key or SigningKey.generate()
        self.log_id = hashlib.sha256(self.key.public_der).hexdigest()
        self._time = time
        self._indexes = itertools.count(1)

    def record_signature(self, payload: bytes, signature: bytes, public_pem: str) -> LogEntry:
        """An entry of kind hashedrekord for a detached signature."""
        digest = hashlib.sha256(payload).hexdigest()
        spec = {
            "data": {"hash": {"algorithm": "sha256", "value": digest}},
            "signature": {
                "content": _b64(signature),
                "publicKey": {"content": _b64(public_pem.encode())},
            },
        }
        return self._entry("hashedrekord", spec)

    def record_envelope(self, envelope: bytes, public_pem: str) -> LogEntry:
        """An entry of kind dsse for a DSSE envelope."""
        document = json.loads(envelope)
        payload = base64.b64decode(document["payload"])
        spec = {
            "envelopeHash": {"algorithm": "sha256", "value": hashlib.sha256(envelope).hexdigest()},
            "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
            "signatures": [
                {"signature": s["sig"], "verifier": _b64(public_pem.encode())}
                for s in document["signatures"]
            ],
        }
        return self._entry("dsse", spec)

    def _entry(self, kind: str, spec: dict[str, Any]) -> LogEntry:
        body = _canonical({"apiVersion": "0.0.1", "kind": kind, "spec": spec})
        index = next(self._indexes)
        promise = self.key.sign(_canonical(_payload(body, self._time, index, self.log_id)))
        note = f"{ORIGIN}\n1\n{_b64(_leaf_hash(body))}\n"
        proof = bytes.fromhex(self.log_id)[:4] + self.key.sign(note.encode())
        checkpoint = f"{note}\n\N{EM DASH} {ORIGIN} {_b64(proof)}\n"
        return LogEntry(kind, body, self._time, index, self.log_id, promise, checkpoint)


def _payload(body: bytes, time: int, index: int, log_id: str) -> dict[str, Any]:
    return {"body": _b64(body), "integratedTime": time, "logIndex": index, "logID": log_id}


def _canonical(value: Any) -> bytes:
    # RFC 8785 for what occurs here: ASCII text and small integers.
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def _leaf_hash(body: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + body).digest()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
