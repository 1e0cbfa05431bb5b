"""Transparency-log entries as values: what was logged, and what the log promised.

Pure parsing of Rekor entry bodies (hashedrekord, rekord, dsse and intoto of
Rekor v1; hashedrekord and dsse of v2) and of the two envelopes they come in:
cosign's annotation and the ``tlogEntries`` of a Sigstore bundle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct

from conforma.errors import BadEvidence
from conforma.trust.fields import a_text, an_integer, an_object, from_base64, from_hex
from conforma.trust.strict_json import encode_base64, load_json

MAX_PROOF_HASHES: Final = 64


class InclusionProof(Struct, frozen=True):
    """A Merkle path (RFC 6962) to a root, and the log's signed note about that root."""

    log_index: int
    tree_size: int
    root_hash: bytes
    hashes: tuple[bytes, ...]
    checkpoint: str


class LogEntry(Struct, frozen=True):
    """One entry and the log's evidence for it; ``integrated_time`` in Unix seconds.

    ``promise`` is the signed entry timestamp (SET). ``claimed`` is the kind and
    version a bundle states beside the body, to be compared with the body's own.
    """

    body: bytes
    log_id: bytes
    log_index: int
    integrated_time: int
    promise: bytes = b""
    proof: InclusionProof | None = None
    claimed: tuple[str, str] | None = None

    @classmethod
    def from_annotation(cls, text: str) -> LogEntry:
        """Read ``dev.sigstore.cosign/bundle`` (signatures.md 2.2). Raises ``BadEvidence``."""
        what = "malformed Rekor bundle annotation"
        document = an_object(load_json(text.encode("utf-8", "surrogatepass"), what), what)
        payload = an_object(document.get("Payload"), what)
        log_id = from_hex(payload.get("logID"), what)
        if not log_id:
            raise BadEvidence(f"{what}: logID is empty")
        return cls(
            from_base64(payload.get("body"), what),
            log_id,
            an_integer(payload.get("logIndex"), what),
            an_integer(payload.get("integratedTime"), what),
            from_base64(document.get("SignedEntryTimestamp"), what),
        )

    @classmethod
    def from_bundle(cls, document: object) -> LogEntry:
        """Read a ``TransparencyLogEntry`` of the Sigstore protocol. Raises ``BadEvidence``."""
        what = "malformed transparency log entry"
        entry = an_object(document, what)
        kind = an_object(entry.get("kindVersion", {}), what)
        promise = an_object(entry.get("inclusionPromise") or {}, what)
        proof = entry.get("inclusionProof")
        return cls(
            from_base64(entry.get("canonicalizedBody"), what),
            from_base64(an_object(entry.get("logId"), what).get("keyId"), what),
            an_integer(entry.get("logIndex", 0), what),
            an_integer(entry.get("integratedTime", 0), what),
            from_base64(promise.get("signedEntryTimestamp", ""), what),
            None if proof is None else _proof(an_object(proof, what), what),
            (a_text(kind.get("kind", ""), what), a_text(kind.get("version", ""), what)),
        )

    @property
    def promised_bytes(self) -> bytes:
        """What the SET signs: the RFC 8785 form of body, time, log and index."""
        text = (
            f'{{"body":"{encode_base64(self.body)}","integratedTime":{self.integrated_time},'
            f'"logID":"{self.log_id.hex()}","logIndex":{self.log_index}}}'
        )
        return text.encode("ascii")


class LoggedHash(Struct, frozen=True):
    """A hash in an entry body: lower-case algorithm and hex value."""

    algorithm: str
    value: str

    def is_of(self, data: bytes) -> bool:
        """Whether this is the SHA-256 of ``data``."""
        return self.algorithm == "sha256" and self.value == hashlib.sha256(data).hexdigest()


class EntryBody(Struct, frozen=True):
    """What an entry says was signed, by whom and with which signature.

    Of the three hashes those are set that the kind records: of the signed
    bytes, of a DSSE payload, of a whole DSSE envelope. ``keys`` holds each key
    or certificate as it was logged: PEM for Rekor v1, DER for v2.
    """

    kind: str
    version: str
    signatures: tuple[bytes, ...]
    keys: tuple[bytes, ...]
    artifact: LoggedHash | None = None
    payload: LoggedHash | None = None
    envelope: LoggedHash | None = None

    @classmethod
    def parse(cls, body: bytes) -> EntryBody:
        """Read a canonicalized body. Raises ``BadEvidence`` for unknown kinds too."""
        what = "malformed log entry body"
        document = an_object(load_json(body, what), what)
        kind, version = (a_text(document.get(key), what) for key in ("kind", "apiVersion"))
        parse = _KINDS.get((kind, version))
        if parse is None:
            raise BadEvidence(f"unexpected log entry type: {kind} {version}")
        return parse(kind, version, an_object(document.get("spec"), what), what)


def _hashedrekord(kind: str, version: str, spec: Mapping[str, Any], what: str) -> EntryBody:
    signature = an_object(spec.get("signature"), what)
    return EntryBody(
        kind,
        version,
        (from_base64(signature.get("content"), what),),
        (from_base64(an_object(signature.get("publicKey"), what).get("content"), what),),
        artifact=_hash(an_object(spec.get("data"), what).get("hash"), what),
    )


def _dsse(kind: str, version: str, spec: Mapping[str, Any], what: str) -> EntryBody:
    signatures = _objects(spec.get("signatures"), what)
    return EntryBody(
        kind,
        version,
        tuple(from_base64(signature.get("signature"), what) for signature in signatures),
        tuple(from_base64(signature.get("verifier"), what) for signature in signatures),
        payload=_hash(spec.get("payloadHash"), what),
        envelope=_hash(spec.get("envelopeHash"), what),
    )


def _intoto_1(kind: str, version: str, spec: Mapping[str, Any], what: str) -> EntryBody:
    content = an_object(spec.get("content"), what)
    logged_payload = content.get("payloadHash")
    return EntryBody(
        kind,
        version,
        (),
        (from_base64(spec.get("publicKey"), what),),
        payload=None if logged_payload is None else _hash(logged_payload, what),
        envelope=_hash(content.get("hash"), what),
    )


def _intoto_2(kind: str, version: str, spec: Mapping[str, Any], what: str) -> EntryBody:
    content = an_object(spec.get("content"), what)
    signatures = _objects(an_object(content.get("envelope"), what).get("signatures"), what)
    return EntryBody(
        kind,
        version,
        # Rekor stores the envelope's base64 text in base64 once more.
        tuple(
            from_base64(from_base64(entry.get("sig"), what).decode("latin-1"), what)
            for entry in signatures
        ),
        tuple(from_base64(entry.get("publicKey"), what) for entry in signatures),
        envelope=_hash(content.get("hash"), what),
    )


def _hashedrekord_v2(kind: str, version: str, spec: Mapping[str, Any], what: str) -> EntryBody:
    record = an_object(spec.get("hashedRekordV002"), what)
    signature = an_object(record.get("signature"), what)
    return EntryBody(
        kind,
        version,
        (from_base64(signature.get("content"), what),),
        (_verifier_v2(signature, what),),
        artifact=_hash_v2(record.get("data"), what),
    )


def _dsse_v2(kind: str, version: str, spec: Mapping[str, Any], what: str) -> EntryBody:
    record = an_object(spec.get("dsseV002"), what)
    signatures = _objects(record.get("signatures"), what)
    return EntryBody(
        kind,
        version,
        tuple(from_base64(signature.get("content"), what) for signature in signatures),
        tuple(_verifier_v2(signature, what) for signature in signatures),
        payload=_hash_v2(record.get("payloadHash"), what),
    )


_Parser = Callable[[str, str, Mapping[str, Any], str], EntryBody]
_KINDS: Final[Mapping[tuple[str, str], _Parser]] = {
    ("hashedrekord", "0.0.1"): _hashedrekord,
    ("rekord", "0.0.1"): _hashedrekord,
    ("dsse", "0.0.1"): _dsse,
    ("intoto", "0.0.1"): _intoto_1,
    ("intoto", "0.0.2"): _intoto_2,
    ("hashedrekord", "0.0.2"): _hashedrekord_v2,
    ("dsse", "0.0.2"): _dsse_v2,
}


def _proof(proof: Mapping[str, Any], what: str) -> InclusionProof:
    hashes = proof.get("hashes", [])
    if not isinstance(hashes, list) or len(hashes) > MAX_PROOF_HASHES:
        raise BadEvidence(f"{what}: an inclusion proof has at most {MAX_PROOF_HASHES} hashes")
    return InclusionProof(
        an_integer(proof.get("logIndex", 0), what),
        an_integer(proof.get("treeSize", 0), what),
        from_base64(proof.get("rootHash", ""), what),
        tuple(from_base64(item, what) for item in hashes),
        a_text(an_object(proof.get("checkpoint") or {}, what).get("envelope", ""), what),
    )


def _verifier_v2(signature: Mapping[str, Any], what: str) -> bytes:
    verifier = an_object(signature.get("verifier"), what)
    held = [verifier[name] for name in ("publicKey", "x509Certificate") if verifier.get(name)]
    if len(held) != 1:
        raise BadEvidence(f"{what}: a verifier is either a public key or a certificate")
    return from_base64(an_object(held[0], what).get("rawBytes"), what)


def _hash(value: object, what: str) -> LoggedHash:
    members = an_object(value, what)
    return LoggedHash(a_text(members.get("algorithm"), what), a_text(members.get("value"), what))


def _hash_v2(value: object, what: str) -> LoggedHash:
    members = an_object(value, what)
    algorithm = a_text(members.get("algorithm"), what)
    known = "sha256" if algorithm == "SHA2_256" else algorithm
    return LoggedHash(known, from_base64(members.get("digest"), what).hex())


def _objects(value: object, what: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or len(value) != 1:
        raise BadEvidence(f"{what}: exactly one signature is expected")
    return [an_object(item, what) for item in value]
