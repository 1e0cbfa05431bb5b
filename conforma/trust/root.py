"""What we trust without being told by the image: logs, certificate and timestamp authorities.

Values only, read from a Sigstore trusted root document or from single keys
and certificates (signatures.md 4.3). Reading is tolerant, use is strict: a
log without a start of validity is kept and then trusted for nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from conforma.errors import BadEvidence, InputError
from conforma.trust.strict_json import decode_base64, load_json

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.trustedroot"


@dataclass(frozen=True, slots=True)
class Validity:
    """A period; ``None`` leaves that side open."""

    start: datetime | None = None
    end: datetime | None = None

    def covers(self, moment: datetime) -> bool:
        """Whether ``moment`` lies within the period, ends included."""
        return (self.start is None or self.start <= moment) and (
            self.end is None or moment <= self.end
        )


@dataclass(frozen=True, slots=True)
class LogKey:
    """The public key of a transparency log; ``dated`` if its validity must be looked at."""

    key: object
    log_id: bytes
    validity: Validity = Validity()
    dated: bool = False


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate or timestamp authority: its chain, issuing certificate first, root last."""

    certificates: tuple[Certificate, ...]
    validity: Validity = Validity()


@dataclass(frozen=True, slots=True)
class TrustRoot:
    """All trusted material of a run.

    ``individual`` tells that it came as single files, which changes how strict
    SCTs are checked and how errors are worded.
    """

    logs: Mapping[bytes, LogKey] = field(default_factory=dict)
    ct_logs: Mapping[bytes, LogKey] = field(default_factory=dict)
    authorities: tuple[Authority, ...] = ()
    timestamp_authorities: tuple[Authority, ...] = ()
    individual: bool = False

    @classmethod
    def parse(cls, data: bytes, source: str) -> TrustRoot:
        """Read a ``trusted_root.json``. Raises ``InputError`` naming ``source``."""
        try:
            document = load_json(data, source)
        except BadEvidence as cause:
            raise InputError(cause.message) from cause
        try:
            return _from_document(document)
        except (AttributeError, KeyError, TypeError, ValueError) as cause:
            raise InputError(
                f"{source}: not a Sigstore trusted root: {cause or type(cause).__name__}",
                hint="it is the target trusted_root.json of a Sigstore TUF repository",
            ) from cause


def log_key(key: object) -> LogKey:
    """An undated log key with the identifier that RFC 6962 derives from it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    encoded = key.public_bytes(  # type: ignore[attr-defined]
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    return LogKey(key, hashlib.sha256(encoded).digest())


def by_id(keys: Iterable[LogKey]) -> Mapping[bytes, LogKey]:
    """Log keys by their identifier."""
    return MappingProxyType({key.log_id: key for key in keys})


def _from_document(document: Any) -> TrustRoot:
    if not str(document["mediaType"]).startswith(MEDIA_TYPE):
        raise ValueError(f"unexpected media type {str(document['mediaType'])[:100]!r}")
    return TrustRoot(
        by_id(_log(entry) for entry in document.get("tlogs", ())),
        by_id(_log(entry) for entry in document.get("ctlogs", ())),
        tuple(_authority(entry) for entry in document.get("certificateAuthorities", ())),
        tuple(_authority(entry) for entry in document.get("timestampAuthorities", ())),
    )


def _log(entry: Any) -> LogKey:
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    public = entry["publicKey"]
    key = load_der_public_key(decode_base64(public["rawBytes"]))
    named = entry.get("checkpointKeyId") or entry.get("logId") or {}
    log_id = decode_base64(named.get("keyId", "")) or log_key(key).log_id
    return LogKey(key, log_id, _validity(public.get("validFor")), dated=True)


def _authority(entry: Any) -> Authority:
    from cryptography.x509 import load_der_x509_certificate

    chain = tuple(
        load_der_x509_certificate(decode_base64(certificate["rawBytes"]))
        for certificate in entry["certChain"]["certificates"]
    )
    if not chain:
        raise ValueError("an authority without a certificate")
    return Authority(chain, _validity(entry.get("validFor")))


def _validity(period: Any) -> Validity:
    period = period or {}
    return Validity(
        *(_moment(period[key]) if period.get(key) else None for key in ("start", "end"))
    )


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text[:40]!r} has no time zone")
    return moment
