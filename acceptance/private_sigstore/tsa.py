"""A timestamp authority (RFC 3161): the CMS message is written by hand, the keys are real."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from acceptance.private_sigstore.der import integer, octets, oid, sequence, set_of, tlv

SHA256 = "2.16.840.1.101.3.4.2.1"
ECDSA_SHA256 = "1.2.840.10045.4.3.2"
SIGNED_DATA = "1.2.840.113549.1.7.2"
TST_INFO = "1.2.840.113549.1.9.16.1.4"
CONTENT_TYPE = "1.2.840.113549.1.9.3"
MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.47"


class TimestampAuthority:
    """A root and a signing certificate; stamps whatever it is given."""

    def __init__(self) -> None:
        started = datetime.now(UTC) - timedelta(days=30)
        self.root_key = ec.generate_private_key(ec.SECP256R1())
        self.key = ec.generate_private_key(ec.SECP256R1())
        root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "private TSA root")])
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "private TSA")])
        self.root = (
            self._builder(root_name, root_name, self.root_key, started)
            .add_extension(x509.BasicConstraints(True, None), critical=True)
            .sign(self.root_key, hashes.SHA256())
        )
        self.certificate = (
            self._builder(name, root_name, self.key, started)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), True)
            .sign(self.root_key, hashes.SHA256())
        )

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """Signing certificate and root."""
        return (self.certificate, self.root)

    @staticmethod
    def _builder(
        subject: x509.Name, issuer: x509.Name, key: Any, started: datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(started)
            .not_valid_after(started + timedelta(days=3650))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        )

    def stamp(self, data: bytes, at: datetime | None = None) -> bytes:
        """A granted response about the SHA-256 of ``data``."""
        moment = (at or datetime.now(UTC)).astimezone(UTC)
        algorithm = sequence(oid(SHA256))
        info = sequence(
            integer(1),
            oid("1.3.6.1.4.1.57264.2"),
            sequence(sequence(oid(SHA256), b"\x05\x00"), octets(hashlib.sha256(data).digest())),
            integer(x509.random_serial_number()),
            tlv(0x18, moment.strftime("%Y%m%d%H%M%SZ").encode()),
        )
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        attributes = (
            sequence(oid(CONTENT_TYPE), set_of(oid(TST_INFO))),
            sequence(oid(MESSAGE_DIGEST), set_of(octets(hashlib.sha256(info).digest()))),
            sequence(
                oid(SIGNING_CERTIFICATE_V2),
                set_of(sequence(sequence(sequence(octets(hashlib.sha256(der).digest()))))),
            ),
        )
        signed = set_of(*attributes)
        signature = self.key.sign(signed, ec.ECDSA(hashes.SHA256()))
        signer = sequence(
            integer(1),
            sequence(
                self.certificate.issuer.public_bytes(), integer(self.certificate.serial_number)
            ),
            algorithm,
            b"\xa0" + signed[1:],
            sequence(oid(ECDSA_SHA256)),
            octets(signature),
        )
        content = sequence(
            integer(3),
            set_of(algorithm),
            sequence(oid(TST_INFO), tlv(0xA0, octets(info))),
            tlv(0xA0, der),
            set_of(signer),
        )
        return sequence(sequence(integer(0)), sequence(oid(SIGNED_DATA), tlv(0xA0, content)))
