"""DSSE envelopes and in-toto statements, from bytes only.

Sources: the DSSE protocol (v1.0.2) and the in-toto attestation framework
(Statement v0.1 and v1). What parses here is well formed; whether anybody
signed it is the business of ``verify``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from conforma.errors import BadEvidence
from conforma.oci.digest import Digest
from conforma.trust.strict_json import decode_base64, load_json

IN_TOTO: Final = "application/vnd.in-toto+json"
STATEMENT_V01: Final = "https://in-toto.io/Statement/v0.1"
STATEMENT_V1: Final = "https://in-toto.io/Statement/v1"
STATEMENT_TYPES: Final = (STATEMENT_V01, STATEMENT_V1)
# sigstore-go's limits; nothing honest comes near them.
MAX_SUBJECTS: Final = 1024
MAX_SUBJECT_DIGESTS: Final = 32
MAX_SIGNATURES: Final = 100


class EnvelopeSignature(Struct, frozen=True):
    """One signature of an envelope; ``encoded`` is its base64 as written."""

    keyid: str
    value: bytes
    encoded: str


class Envelope(Struct, frozen=True):
    """A payload with its type and the signatures over both."""

    payload_type: str
    payload: bytes
    signatures: tuple[EnvelopeSignature, ...]

    @classmethod
    def parse(cls, data: bytes, *, what: str = "malformed attestation data") -> Envelope:
        """Read an envelope. Raises ``BadEvidence`` worded as signatures.md 9.1 has it."""
        return cls.from_document(load_json(data, what), what=what)

    @classmethod
    def from_document(
        cls, document: Any, *, what: str = "malformed attestation data", where: str = ""
    ) -> Envelope:
        """The same for an envelope that is part of a larger document; ``where`` says of which."""
        if not isinstance(document, dict):
            raise BadEvidence(f"{what}: the envelope is not an object")
        payload = document.get("payload", "")
        if not isinstance(payload, str):
            raise BadEvidence(f"{what}: payload is not a string")
        if not payload:
            raise BadEvidence(f"no `payload` data found{where}")
        payload_type = document.get("payloadType", "")
        if not isinstance(payload_type, str):
            raise BadEvidence(f"{what}: payloadType is not a string")
        try:
            content = decode_base64(payload)
        except ValueError as cause:
            raise BadEvidence(f"{what}: {cause}") from cause
        return cls(payload_type, content, _signatures(document.get("signatures"), what))

    @property
    def signed_bytes(self) -> bytes:
        """The pre-authentication encoding: what the signatures are over."""
        return pre_authentication_encoding(self.payload_type, self.payload)


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """DSSE's PAE, lengths in bytes and decimal."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _signatures(listed: Any, what: str) -> tuple[EnvelopeSignature, ...]:
    if listed is None:
        return ()
    if not isinstance(listed, list) or len(listed) > MAX_SIGNATURES:
        raise BadEvidence(f"{what}: signatures is not a list of at most {MAX_SIGNATURES}")
    signatures = []
    for entry in listed:
        keyid = entry.get("keyid") if isinstance(entry, dict) else 0
        encoded = entry.get("sig") if isinstance(entry, dict) else 0
        if not isinstance(encoded, str) or not isinstance(keyid, str | None):
            raise BadEvidence("cannot create signed entity: a signature lacks its sig")
        try:
            value = decode_base64(encoded)
        except ValueError as cause:
            raise BadEvidence(f"cannot create signed entity: {cause}") from cause
        signatures.append(EnvelopeSignature(keyid or "", value, encoded))
    return tuple(signatures)


class Subject(Struct, frozen=True):
    """What a statement is about: a name nobody checks, and digests by algorithm."""

    name: str
    digests: Mapping[str, str]


class Statement(Struct, frozen=True):
    """An in-toto statement; ``raw`` are the bytes that were signed."""

    raw: bytes
    document: Mapping[str, Any]
    type: str
    predicate_type: str
    subjects: tuple[Subject, ...]

    @classmethod
    def parse(cls, raw: bytes, *, what: str = "malformed attestation data") -> Statement:
        """Read a statement. Raises ``BadEvidence`` if it is none.

        The predicate may have any type and shape; subjects that do not look
        like subjects simply match no image.
        """
        document = load_json(raw, what)
        if not isinstance(document, dict):
            raise BadEvidence(f"{what}: the statement is not an object")
        texts = [document.get("_type", ""), document.get("predicateType", "")]
        if not all(isinstance(text, str) for text in texts):
            raise BadEvidence(f"{what}: _type and predicateType must be strings")
        return cls(raw, document, texts[0], texts[1], _subjects(document.get("subject"), what))

    def is_about(self, digest: Digest) -> bool:
        """Whether one of the subjects is the content with this digest."""
        return any(subject.digests.get(digest.algorithm) == digest.hex for subject in self.subjects)


def _subjects(listed: Any, what: str) -> tuple[Subject, ...]:
    if not isinstance(listed, list):
        return ()
    if len(listed) > MAX_SUBJECTS:
        raise BadEvidence(f"{what}: {len(listed)} subjects, more than {MAX_SUBJECTS}")
    subjects = []
    for entry in listed:
        digests = entry.get("digest") if isinstance(entry, dict) else None
        if not isinstance(digests, dict):
            continue
        if len(digests) > MAX_SUBJECT_DIGESTS:
            raise BadEvidence(
                f"{what}: {len(digests)} digests of a subject, more than {MAX_SUBJECT_DIGESTS}"
            )
        name = entry.get("name")
        subjects.append(
            Subject(
                name if isinstance(name, str) else "",
                {key: value for key, value in digests.items() if isinstance(value, str)},
            )
        )
    return tuple(subjects)
