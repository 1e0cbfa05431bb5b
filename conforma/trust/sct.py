"""Signed certificate timestamps: a CT log has seen the certificate.

Source: RFC 6962 3.2 and 3.3; signatures.md 5.2c. sigstore-python has this
check as a private function that takes exactly one timestamp and ignores the
log's validity, hence this module.
"""

from __future__ import annotations

import hashlib
import struct
from datetime import UTC
from typing import TYPE_CHECKING

from conforma.errors import NotInLog, SignatureMismatch
from conforma.trust.root import TrustRoot

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from cryptography.x509.certificate_transparency import SignedCertificateTimestamp


def check_scts(leaf: Certificate, issuer: Certificate, root: TrustRoot) -> None:
    """Return if the embedded timestamps suffice. Raises ``NotInLog``.

    One verified timestamp suffices with a trusted root; with individual keys
    every one must verify.
    """
    from cryptography import x509

    try:
        found = leaf.extensions.get_extension_for_class(
            x509.PrecertificateSignedCertificateTimestamps
        )
        timestamps = list(found.value)
    except (x509.ExtensionNotFound, ValueError) as cause:
        raise NotInLog(
            "certificate does not include required embedded SCT and no detached SCT was set"
        ) from cause
    verified = 0
    for timestamp in timestamps:
        try:
            _check(timestamp, leaf, issuer, root)
            verified += 1
        except NotInLog:
            if root.individual:
                raise
    if verified == 0:
        raise NotInLog("only able to verify 0 SCT entries; unable to meet threshold of 1")


def _check(
    timestamp: SignedCertificateTimestamp, leaf: Certificate, issuer: Certificate, root: TrustRoot
) -> None:
    log = root.ct_logs.get(timestamp.log_id)
    if log is None:
        raise NotInLog(
            "ctfe public key not found for payload. Check your TUF root (see cosign initialize) "
            "or set a custom key with env var SIGSTORE_CT_LOG_PUBLIC_KEY_FILE"
        )
    moment = timestamp.timestamp.replace(tzinfo=UTC)
    if log.dated and (log.validity.start is None or not log.validity.covers(moment)):
        raise NotInLog("error verifying embedded SCT: the CT log was not valid at that time")
    try:
        log.verify(timestamp.signature, signed_bytes(timestamp, leaf, issuer))
    except SignatureMismatch as cause:
        raise NotInLog(f"error verifying embedded SCT: {cause.message}") from cause


def signed_bytes(
    timestamp: SignedCertificateTimestamp, leaf: Certificate, issuer: Certificate
) -> bytes:
    """What the log signed: a precertificate entry (RFC 6962 3.2)."""
    tbs = leaf.tbs_precertificate_bytes
    milliseconds = round(timestamp.timestamp.replace(tzinfo=UTC).timestamp() * 1000)
    return b"".join(
        (
            struct.pack("!BBQH", 0, 0, milliseconds, 1),
            issuer_key_hash(issuer),
            len(tbs).to_bytes(3, "big"),
            tbs,
            struct.pack("!H", len(timestamp.extension_bytes)),
            timestamp.extension_bytes,
        )
    )


def issuer_key_hash(issuer: Certificate) -> bytes:
    """SHA-256 of the issuer's SubjectPublicKeyInfo."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = issuer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(key).digest()
