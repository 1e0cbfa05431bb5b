"""A Fulcio-like authority: root, intermediate, short-lived leaves, and a CT log."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from acceptance.private_sigstore.der import octets, text
from acceptance.private_sigstore.log_signer import LogSigner

FULCIO = "1.3.6.1.4.1.57264.1"
SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")


def spki(key: Any) -> bytes:
    """The public part of a private or public key as DER."""
    public = key.public_key() if hasattr(key, "public_key") else key
    return public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def public_pem(key: Any) -> str:
    """The public part of a private key as PEM."""
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


class CTLog(LogSigner):
    """A certificate transparency log that signs timestamps for precertificates."""

    def timestamp(self, tbs: bytes, issuer: x509.Certificate, moment: datetime) -> bytes:
        """A version 1 SCT (RFC 6962 3.2)."""
        milliseconds = int(moment.timestamp() * 1000)
        head = struct.pack("!BBQH", 0, 0, milliseconds, 1)
        issuer_hash = hashlib.sha256(spki(issuer.public_key())).digest()
        signed = head + issuer_hash + len(tbs).to_bytes(3, "big") + tbs + b"\0\0"
        signature = self.sign(signed)
        return (
            b"\0"
            + self.log_id
            + struct.pack("!QH", milliseconds, 0)
            + self.tls_algorithm
            + struct.pack("!H", len(signature))
            + signature
        )


@dataclass
class Leaf:
    """A signing certificate with its key and the chain above it."""

    key: Any
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]

    @property
    def pem(self) -> str:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def der(self) -> bytes:
        """The certificate as DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def chain_pem(self) -> str:
        """Issuer first, root last."""
        return "".join(
            item.public_bytes(serialization.Encoding.PEM).decode() for item in self.chain
        )


@dataclass
class Fulcio:
    """Root, intermediate and CT logs; issues leaves that are valid for ten minutes."""

    started: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(days=30))
    ct_log: CTLog = field(default_factory=CTLog)

    def __post_init__(self) -> None:
        self.root_key = ec.generate_private_key(ec.SECP384R1())
        self.key = ec.generate_private_key(ec.SECP384R1())
        self.root = self._authority("private-sigstore", self.root_key, None, None)
        self.intermediate = self._authority(
            "private-intermediate", self.key, self.root, self.root_key
        )

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """Intermediate and root."""
        return (self.intermediate, self.root)

    def _authority(
        self, name: str, key: Any, issuer: x509.Certificate | None, issuer_key: Any
    ) -> x509.Certificate:
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "private.test"),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.started)
            .not_valid_after(self.started + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(True, 0 if issuer else 1), critical=True)
            .add_extension(_usage(signing=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        )
        if issuer is not None:
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), False
            ).add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)
        return builder.sign(issuer_key or key, hashes.SHA384())

    def issue(
        self,
        *,
        names: Sequence[x509.GeneralName] = (x509.UniformResourceIdentifier("https://id.test/me"),),
        issuer: str = "https://issuer.test",
        extensions: Mapping[int, bytes] | None = None,
        at: datetime | None = None,
        minutes: int = 10,
        usage: Sequence[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.CODE_SIGNING,),
        logs: Sequence[CTLog] | None = None,
        key: Any = None,
    ) -> Leaf:
        """A leaf certificate; ``extensions`` replaces both issuer extensions."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        at = (at or datetime.now(UTC) - timedelta(minutes=1)).replace(microsecond=0)
        if extensions is None:
            extensions = {1: issuer.encode(), 8: text(issuer)}
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.intermediate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(at)
            .not_valid_after(at + timedelta(minutes=minutes))
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(_usage(signing=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False
            )
        )
        for number, value in extensions.items():
            oid = x509.ObjectIdentifier(f"{FULCIO}.{number}")
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), False)
        pre = builder.sign(self.key, hashes.SHA384())
        stamps = [
            log.timestamp(pre.tbs_certificate_bytes, self.intermediate, at)
            for log in ((self.ct_log,) if logs is None else logs)
        ]
        if stamps:
            listed = b"".join(struct.pack("!H", len(stamp)) + stamp for stamp in stamps)
            listed = struct.pack("!H", len(listed)) + listed
            builder = builder.add_extension(
                x509.UnrecognizedExtension(SCT_LIST, octets(listed)), False
            )
        return Leaf(key, builder.sign(self.key, hashes.SHA384()), self.chain)


def _usage(*, signing: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signing,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not signing,
        crl_sign=not signing,
        encipher_only=False,
        decipher_only=False,
    )
