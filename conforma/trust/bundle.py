"""Sigstore bundles v0.1 to v0.3 as values.

A reader of our own because sigstore-python's refuses bundles with a public
key, without a log entry or without an inclusion proof, all of which cosign
writes. Parsing is strict about what it uses and about anything it could
misunderstand, such as two kinds of content in one bundle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from conforma.errors import BadEvidence
from conforma.trust.envelope import IN_TOTO, Envelope, Statement
from conforma.trust.evidence import BUNDLE
from conforma.trust.fields import a_list, a_text, an_object, from_base64
from conforma.trust.rekor_entry import LogEntry
from conforma.trust.strict_json import load_json

COSIGN_SIGN: Final = "https://sigstore.dev/cosign/sign/v1"
MAX_ENTRIES: Final = 32
MAX_TIMESTAMPS: Final = 32
_VERSION: Final = re.compile(
    rf"{re.escape(BUNDLE)}(?:\+json;version=(?P<old>0\.[123])|\.v(?P<new>0\.3)\+json)"
)
_WHAT: Final = "malformed bundle"


class MessageSignature(Struct, frozen=True):
    """A signature over the artifact itself: the digest it states, and its bytes."""

    algorithm: str
    digest: bytes
    signature: bytes


class Bundle(Struct, frozen=True):
    """Content, key material and witnesses; ``certificates`` are DER, leaf first.

    Exactly one of ``envelope`` and ``message`` is set; with a key instead of
    a certificate ``certificates`` is empty and ``key_hint`` is not ``None``.
    """

    version: str
    envelope: Envelope | None
    message: MessageSignature | None
    certificates: tuple[bytes, ...]
    key_hint: str | None
    entries: tuple[LogEntry, ...]
    timestamps: tuple[bytes, ...]

    @classmethod
    def parse(cls, data: bytes) -> Bundle:
        """Read a bundle. Raises ``BadEvidence``."""
        document = an_object(load_json(data, _WHAT), _WHAT)
        media_type = a_text(document.get("mediaType", ""), _WHAT)
        version = _VERSION.fullmatch(media_type)
        if version is None:
            raise BadEvidence(f"{_WHAT}: unsupported media type {media_type[:100]!r}")
        material = an_object(document.get("verificationMaterial"), _WHAT)
        envelope, message = document.get("dsseEnvelope"), document.get("messageSignature")
        if (envelope is None) == (message is None):
            raise BadEvidence(f"{_WHAT}: needs either an envelope or a message signature")
        hint, certificates = _key_material(material)
        times = an_object(material.get("timestampVerificationData") or {}, _WHAT)
        return cls(
            version["old"] or version["new"],
            None
            if envelope is None
            else Envelope.from_document(envelope, what=_WHAT, where=" in bundle attestation"),
            None if message is None else _message(an_object(message, _WHAT)),
            certificates,
            hint,
            tuple(
                LogEntry.from_bundle(entry) for entry in a_list(material.get("tlogEntries"), _WHAT)
            ),
            tuple(
                from_base64(an_object(stamp, _WHAT).get("signedTimestamp"), _WHAT)
                for stamp in a_list(times.get("rfc3161Timestamps"), _WHAT)
            ),
        )

    @property
    def signature(self) -> bytes:
        """The bytes of the one signature. Raises ``BadEvidence`` if there are others."""
        if self.message is not None:
            return self.message.signature
        if self.envelope is None or len(self.envelope.signatures) != 1:
            raise BadEvidence("exactly one signature is required")
        return self.envelope.signatures[0].value

    def statement(self) -> Statement | None:
        """The in-toto statement in the envelope; ``None`` for a message signature.

        Raises ``BadEvidence`` for another payload type or a malformed statement.
        """
        if self.envelope is None:
            return None
        if self.envelope.payload_type != IN_TOTO:
            raise BadEvidence(
                f"invalid payloadType {self.envelope.payload_type} on envelope. Expected {IN_TOTO}"
            )
        return Statement.parse(self.envelope.payload, what="malformed bundle attestation")

    def is_image_signature(self) -> bool:
        """Whether this claims to sign the image rather than to say something about it.

        Raises ``BadEvidence`` as ``statement`` does.
        """
        statement = self.statement()
        return statement is None or statement.predicate_type == COSIGN_SIGN


def _key_material(material: Mapping[str, Any]) -> tuple[str | None, tuple[bytes, ...]]:
    names = ("publicKey", "certificate", "x509CertificateChain")
    given = [name for name in names if material.get(name) is not None]
    if len(given) != 1:
        raise BadEvidence(f"{_WHAT}: needs exactly one of {', '.join(names)}")
    held = an_object(material[given[0]], _WHAT)
    if given[0] == "publicKey":
        return a_text(held.get("hint", ""), _WHAT), ()
    if given[0] == "certificate":
        return None, (from_base64(held.get("rawBytes"), _WHAT),)
    chain = tuple(
        from_base64(an_object(item, _WHAT).get("rawBytes"), _WHAT)
        for item in a_list(held.get("certificates"), _WHAT)
    )
    if not 1 <= len(chain) <= MAX_ENTRIES:
        raise BadEvidence(f"{_WHAT}: a chain of {len(chain)} certificates")
    return None, chain


def _message(message: Mapping[str, Any]) -> MessageSignature:
    stated = an_object(message.get("messageDigest") or {}, _WHAT)
    return MessageSignature(
        a_text(stated.get("algorithm", ""), _WHAT),
        from_base64(stated.get("digest", ""), _WHAT),
        from_base64(message.get("signature"), _WHAT),
    )
