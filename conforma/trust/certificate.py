"""Signing certificates: what they say, whether the authorities we trust issued them.

Source: signatures.md 5.2 (chain, at the time of issue) and 8.3 (metadata).
Path building and signature checks are those of ``cryptography``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeVar

from conforma.errors import BadEvidence, IdentityMismatch, InputError
from conforma.gotext import rfc3339
from conforma.trust.keys import PublicKey, spki_pem
from conforma.trust.root import Authority, TrustRoot

if TYPE_CHECKING:
    from cryptography import x509

_Kind = TypeVar("_Kind", bound="x509.ExtensionType")
_FULCIO: Final = "1.3.6.1.4.1.57264.1"
_OTHER_NAME: Final = f"{_FULCIO}.7"
_RAW: Final = {
    1: "Fulcio Issuer",
    2: "Fulcio GitHub Workflow Trigger",
    3: "Fulcio GitHub Workflow SHA",
    4: "Fulcio GitHub Workflow Name",
    5: "Fulcio GitHub Workflow Repository",
    6: "Fulcio GitHub Workflow Ref",
}
_DER: Final = {
    8: "Fulcio Issuer (V2)",
    9: "Fulcio Build Signer URI",
    10: "Fulcio Build Signer Digest",
    11: "Fulcio Runner Environment",
    12: "Fulcio Source Repository URI",
    13: "Fulcio Source Repository Digest",
    14: "Fulcio Source Repository Ref",
    15: "Fulcio Source Repository Identifier",
    16: "Fulcio Source Repository Owner URI",
    17: "Fulcio Source Repository Owner Identifier",
    18: "Fulcio Build Config URI",
    19: "Fulcio Build Config Digest",
    20: "Fulcio Build Trigger",
    21: "Fulcio Run Invocation URI",
}
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_MAX_CHAIN: Final = 20


# Some private authorities write country names of other lengths than two
# letters. That is no reason to talk to the user's terminal.
warnings.filterwarnings("ignore", "Attribute's length must be", UserWarning)


class SigningCertificate:
    """A leaf certificate with the parts that matter for trust and for the report."""

    __slots__ = ("certificate", "issuer", "pem", "public_key", "subject_key_id", "subjects")

    def __init__(self, certificate: x509.Certificate) -> None:
        """Raises ``BadEvidence`` for a certificate whose names cannot be read."""
        from cryptography import x509
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import Encoding

        self.certificate = certificate
        self.pem = certificate.public_bytes(Encoding.PEM).decode("ascii")
        try:
            self.public_key = PublicKey(spki_pem(certificate.public_key()))
            keys = _extension(certificate, x509.SubjectKeyIdentifier)
            self.subject_key_id = "" if keys is None else keys.digest.hex()
            self.subjects = tuple(name for _, names in _names(certificate) for name in names)
            self.issuer = _fulcio(certificate, 8) or _fulcio(certificate, 1)
        except (
            ValueError,
            UnsupportedAlgorithm,
            InputError,
            x509.UnsupportedGeneralNameType,
            x509.DuplicateExtension,
        ) as cause:
            raise BadEvidence(f"malformed certificate: {cause}") from cause

    @classmethod
    def parse(cls, data: str | bytes) -> SigningCertificate:
        """Read one certificate, PEM text or DER. Raises ``BadEvidence``."""
        if isinstance(data, str):
            certificates = parse_chain(data)
            if _PEM.sub("", data).strip():
                raise BadEvidence("malformed certificate: text beside the PEM block")
            if len(certificates) != 1:
                raise BadEvidence(f"expected one certificate, found {len(certificates)}")
            return cls(certificates[0])
        return cls(load_certificate(data))

    @property
    def not_before(self) -> datetime:
        """Start of validity, in UTC."""
        return self.certificate.not_valid_before_utc

    @property
    def not_after(self) -> datetime:
        """End of validity, in UTC."""
        return self.certificate.not_valid_after_utc

    def metadata(self) -> dict[str, str]:
        """The members of signatures.md 8.3 that are not empty, sorted by name.

        Raises ``BadEvidence`` for one that cannot be read.
        """
        try:
            found = {
                "Subject": _rdn(self.certificate.subject),
                "Issuer": _rdn(self.certificate.issuer),
                "Serial Number": f"{self.certificate.serial_number:x}",
                "Not Before": rfc3339(self.not_before),
                "Not After": rfc3339(self.not_after),
                "Subject Alternative Name": "; ".join(
                    f"{group}:{', '.join(names)}" for group, names in _names(self.certificate)
                ),
            }
            for number, name in (*_RAW.items(), *_DER.items()):
                found[name] = _fulcio(self.certificate, number)
        except ValueError as cause:
            raise BadEvidence(f"malformed certificate: {cause}") from cause
        return {name: value for name, value in sorted(found.items()) if value}


def load_certificate(der: bytes) -> x509.Certificate:
    """A certificate from DER. Raises ``BadEvidence``."""
    from cryptography.x509 import load_der_x509_certificate

    try:
        return load_der_x509_certificate(der)
    except ValueError as cause:
        raise BadEvidence(f"malformed certificate: {cause}") from cause


def parse_chain(text: str) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM text, in their order. Raises ``BadEvidence``."""
    from cryptography.x509 import load_pem_x509_certificate

    blocks = _PEM.findall(text)
    if len(blocks) > _MAX_CHAIN:
        raise BadEvidence(f"a chain of {len(blocks)} certificates is longer than {_MAX_CHAIN}")
    try:
        return tuple(load_pem_x509_certificate(block.encode()) for block in blocks)
    except ValueError as cause:
        raise BadEvidence(f"malformed certificate: {cause}") from cause


def check_issued(
    leaf: SigningCertificate, root: TrustRoot, offered: Iterable[x509.Certificate] = ()
) -> tuple[x509.Certificate, ...]:
    """The verified chain above ``leaf``, issuer first.

    Verified for the moment at which ``leaf`` became valid, once for each
    certificate and root. ``offered`` intermediates are used only if the trust
    material has none. Raises ``IdentityMismatch`` if no trusted authority
    issued the certificate.
    """
    # Where they are of no use, the same certificate must not be looked at twice.
    roots_only = (all(map(_is_root, found.certificates)) for found in root.authorities)
    between = tuple(offered) if any(roots_only) else ()
    return root.issued.chain((leaf.certificate, between), lambda: _built(leaf, root, between))


def _is_root(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer


def _built(
    leaf: SigningCertificate, root: TrustRoot, offered: tuple[x509.Certificate, ...]
) -> tuple[x509.Certificate, ...]:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID
    from cryptography.x509.verification import VerificationError

    try:
        usage = _extension(leaf.certificate, x509.ExtendedKeyUsage)
        purpose = _extension(leaf.certificate, x509.KeyUsage)
    except ValueError as cause:
        raise BadEvidence(f"malformed certificate: {cause}") from cause
    reason = "no certificate authority is trusted"
    if usage is None or ExtendedKeyUsageOID.CODE_SIGNING not in usage:
        reason = "not for code signing"
    elif purpose is None or not purpose.digital_signature:
        reason = "not for digital signatures"
    else:
        for authority in root.authorities:
            if not authority.validity.covers(leaf.not_before):
                reason = "no certificate authority was valid when it was issued"
                continue
            try:
                return _chain(leaf.certificate, authority, offered, leaf.not_before)
            except (VerificationError, x509.UnsupportedGeneralNameType, ValueError) as cause:
                reason = str(cause)
    if root.individual:
        raise IdentityMismatch(
            f"cert verification failed: {reason}. Check your TUF root (see cosign initialize) "
            "or set a custom root with env var SIGSTORE_ROOT_FILE"
        )
    raise IdentityMismatch("leaf certificate verification failed", hint=reason)


def _chain(
    leaf: x509.Certificate,
    authority: Authority,
    offered: tuple[x509.Certificate, ...],
    moment: datetime,
) -> tuple[x509.Certificate, ...]:
    from cryptography import x509
    from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store

    roots = [c for c in authority.certificates if _is_root(c)]
    between = [c for c in authority.certificates if not _is_root(c)]
    if not roots:
        # An authority without its root: the last certificate is the anchor.
        roots = between[-1:]
    # The verifier's defaults ask for a client-authentication EKU; ours is code
    # signing, which the caller has looked at.
    any_usage = (x509.ExtendedKeyUsage, Criticality.AGNOSTIC, None)
    verifier = (
        PolicyBuilder()
        .store(Store(roots))
        .time(moment)
        .extension_policies(
            ca_policy=ExtensionPolicy.webpki_defaults_ca().may_be_present(*any_usage),
            ee_policy=ExtensionPolicy.webpki_defaults_ee().may_be_present(*any_usage),
        )
        .build_client_verifier()
    )
    return tuple(verifier.verify(leaf, between or list(offered)).chain[1:])


def _extension(certificate: x509.Certificate, kind: type[_Kind]) -> _Kind | None:
    from cryptography.x509 import ExtensionNotFound

    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except ExtensionNotFound:
        return None


def _names(certificate: x509.Certificate) -> Iterator[tuple[str, list[str]]]:
    from cryptography import x509

    names = _extension(certificate, x509.SubjectAlternativeName)
    if names is None:
        return
    groups = {
        "DNS Names": names.get_values_for_type(x509.DNSName),
        "Email Addresses": names.get_values_for_type(x509.RFC822Name),
        "IP addresses": [str(ip) for ip in names.get_values_for_type(x509.IPAddress)],
        "URIs": names.get_values_for_type(x509.UniformResourceIdentifier),
        "OtherName": [
            _der_text(other.value)
            for other in names.get_values_for_type(x509.OtherName)
            if other.type_id.dotted_string == _OTHER_NAME
        ],
    }
    yield from ((group, list(values)) for group, values in groups.items() if values)


def _fulcio(certificate: x509.Certificate, number: int) -> str:
    from cryptography import x509

    oid = x509.ObjectIdentifier(f"{_FULCIO}.{number}")
    try:
        value = certificate.extensions.get_extension_for_oid(oid).value
    except x509.ExtensionNotFound:
        return ""
    if not isinstance(value, x509.UnrecognizedExtension):
        return ""
    return value.value.decode("utf-8") if number in _RAW else _der_text(value.value)


def _der_text(der: bytes) -> str:
    """The text of a DER UTF8String, PrintableString or IA5String of up to 64 KiB."""
    if len(der) < 2 or der[0] not in (0x0C, 0x13, 0x16):
        raise ValueError("a DER string is missing")
    length, start = der[1], 2
    if length & 0x80:
        width = length & 0x7F
        if width not in (1, 2):
            raise ValueError("a DER string of unusual length")
        length, start = int.from_bytes(der[2 : 2 + width], "big"), 2 + width
    if len(der) != start + length:
        raise ValueError("a DER string of the wrong length")
    return der[start:].decode("utf-8")


def _rdn(name: x509.Name) -> str:
    from cryptography.x509.oid import NameOID

    return name.rfc4514_string(
        {NameOID.SERIAL_NUMBER: "SERIALNUMBER", NameOID.POSTAL_CODE: "POSTALCODE"}
    )
