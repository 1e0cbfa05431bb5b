"""What a signing certificate says about itself, and what is made of one that says nonsense."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from conforma.errors import BadEvidence
from conforma.trust.certificate import SigningCertificate

BUILD_SIGNER = "1.3.6.1.4.1.57264.1.9"


def certificate(extension: bytes) -> SigningCertificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "me")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(255)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=1))
        .add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(BUILD_SIGNER), extension),
            critical=False,
        )
    )
    return SigningCertificate(builder.sign(key, hashes.SHA256()))


def test_the_members_of_a_certificate_are_those_that_it_has() -> None:
    assert certificate(b"\x0c\x04home").metadata() == {
        "Fulcio Build Signer URI": "home",
        "Issuer": "CN=me",
        "Not After": "2026-01-02T00:00:00Z",
        "Not Before": "2026-01-01T00:00:00Z",
        "Serial Number": "ff",
        "Subject": "CN=me",
    }


@pytest.mark.parametrize(
    "extension", [b"", b"\x0c\x05home", b"\x0c\x04\xff\xff\xff\xff", b"\x04\x00"]
)
def test_an_extension_that_is_no_text_is_bad_evidence(extension: bytes) -> None:
    with pytest.raises(BadEvidence, match="malformed certificate: "):
        certificate(extension).metadata()
