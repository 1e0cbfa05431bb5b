"""What we trust without being told by the image: logs, certificate and timestamp authorities.

Values only, read from a Sigstore trusted root document or from single keys
and certificates (signatures.md 4.3). Reading is tolerant, use is strict: a
log without a start of validity is kept and then trusted for nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from conforma.errors import BadEvidence, InputError, SignatureMismatch
from conforma.oci.memory import Memory
from conforma.trust.keys import verify_with
from conforma.trust.strict_json import decode_base64, load_json

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.trustedroot"
_DETAILS: Final = re.compile(r"(?:PKIX|PKCS1)_.*_SHA_(?P<bits>256|384|512)")
_REMEMBERED: Final = 10_000


class Validity(Struct, frozen=True):
    """A period; ``None`` leaves that side open."""

    start: datetime | None = None
    end: datetime | None = None

    def covers(self, moment: datetime) -> bool:
        """Whether ``moment`` lies within the period, ends included."""
        return (self.start is None or self.start <= moment) and (
            self.end is None or moment <= self.end
        )


class LogKey(Struct, frozen=True):
    """The public key of a transparency log; ``dated`` if its validity must be looked at.

    ``digests`` are the hash functions the log may have signed with.
    """

    key: object
    log_id: bytes
    validity: Validity = Validity()
    dated: bool = False
    digests: tuple[str, ...] = ("sha256",)

    def verify(self, signature: bytes, data: bytes) -> None:
        """Return if the log made ``signature`` over ``data``. Raises ``SignatureMismatch``."""
        for digest in self.digests[:-1]:
            with contextlib.suppress(SignatureMismatch):
                return verify_with(self.key, signature, data, digest)
        return verify_with(self.key, signature, data, self.digests[-1])


class Authority(Struct, frozen=True):
    """A certificate or timestamp authority: its chain, issuing certificate first, root last."""

    certificates: tuple[Certificate, ...]
    validity: Validity = Validity()


class Issued:
    """The chains this root has vouched for, by the certificates that lead to it. Thread safe.

    Belongs to one root: a root with other material starts with none.
    """

    def __init__(self, most: int) -> None:
        self._chains: Memory[tuple[Certificate, ...]] = Memory(most)
        self._lock = threading.Lock()

    def chain(
        self, key: Hashable, build: Callable[[], tuple[Certificate, ...]]
    ) -> tuple[Certificate, ...]:
        """The chain for ``key``, built now unless it was before. What ``build`` raises is not kept."""
        with self._lock:
            found = self._chains.get(key)
            if found is None:
                found = build()
                self._chains.put(key, found, 1)
            return found


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
    issued: Issued = field(
        init=False, repr=False, compare=False, default_factory=lambda: Issued(_REMEMBERED)
    )

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
    return LogKey(key, hashlib.sha256(encoded).digest(), digests=_digests(key))


def by_id(keys: Iterable[LogKey]) -> Mapping[bytes, LogKey]:
    """Log keys by their identifier."""
    return MappingProxyType({key.log_id: key for key in keys})


def _from_document(document: Any) -> TrustRoot:
    if not str(document["mediaType"]).startswith(MEDIA_TYPE):
        raise ValueError(f"unexpected media type {str(document['mediaType'])[:100]!r}")
    return TrustRoot(
        _logs(document.get("tlogs")),
        _logs(document.get("ctlogs")),
        tuple(_authority(entry) for entry in document.get("certificateAuthorities", ())),
        tuple(_authority(entry) for entry in document.get("timestampAuthorities", ())),
    )


def _logs(entries: Any) -> Mapping[bytes, LogKey]:
    return by_id(log for log in map(_log, entries or ()) if log is not None)


def _log(entry: Any) -> LogKey | None:
    """One log; ``None`` if its key is of a kind not known here, which makes it no log of ours."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    public = entry["publicKey"]
    raw = decode_base64(public["rawBytes"])
    try:
        key = load_der_public_key(raw)
    except (UnsupportedAlgorithm, ValueError) as cause:
        log.info("trusted root: leaving out log %s: %s", entry.get("baseUrl", ""), cause)
        return None
    named = entry.get("checkpointKeyId") or entry.get("logId") or {}
    log_id = decode_base64(named.get("keyId", "")) or log_key(key).log_id
    stated = _DETAILS.fullmatch(public.get("keyDetails") or "")
    digests = (f"sha{stated['bits']}",) if stated else _digests(key)
    return LogKey(key, log_id, _validity(public.get("validFor")), dated=True, digests=digests)


def _digests(key: object) -> tuple[str, ...]:
    """The hash functions a log with this key may use: SHA-256, or that of the curve's strength."""
    size = getattr(getattr(key, "curve", None), "key_size", 0)
    return ("sha256", *{384: ("sha384",), 521: ("sha512",)}.get(size, ()))


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
