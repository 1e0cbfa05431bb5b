"""Who must have signed: the identity a policy names, held against a certificate.

Source: signatures.md 6. Where that page lists two readings the stricter one
is taken: an exact value and a pattern must both match when both are given,
and the issuer is that of the newer extension where a certificate has both.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from conforma.errors import IdentityMismatch, InputError
from conforma.trust.re2 import compile_re2


class Identity(Struct, frozen=True):
    """Issuer and subject, each exact, as a pattern (RE2, unanchored), or both."""

    issuer: str = ""
    subject: str = ""
    issuer_regexp: str = ""
    subject_regexp: str = ""

    def check_usable(self) -> None:
        """Raise ``InputError`` unless issuer and subject are both constrained by valid patterns."""
        missing = []
        if not (self.issuer or self.issuer_regexp):
            missing.append("certificate OIDC issuer must be provided for keyless workflow")
        if not (self.subject or self.subject_regexp):
            missing.append("certificate identity must be provided for keyless workflow")
        if missing:
            raise InputError("\n".join(missing))
        for what, pattern in (("issuer", self.issuer_regexp), ("subject", self.subject_regexp)):
            try:
                compile_re2(pattern)
            except ValueError as cause:
                raise InputError(f"malformed {what} in identity: {pattern} : {cause}") from cause

    @property
    def unanchored(self) -> tuple[str, ...]:
        """Patterns that also match in the middle of a text, which is rarely meant."""
        return tuple(
            pattern
            for pattern in (self.issuer_regexp, self.subject_regexp)
            if pattern and not (pattern.startswith(("^", r"\A")) and pattern.endswith(("$", r"\z")))
        )

    def check(self, subjects: Sequence[str], issuer: str) -> None:
        """Return if the certificate's names fit, as in cosign's tag layout.

        Raises ``IdentityMismatch`` worded as signatures.md 6.1.
        """
        if self._issuer_fault(issuer) or not any(not self._subject_fault(s) for s in subjects):
            raise IdentityMismatch(
                "none of the expected identities matched what was in the certificate, "
                f"got subjects [{', '.join(subjects)}] with issuer {issuer}"
            )

    def check_bundle(self, subjects: Sequence[str], issuer: str) -> None:
        """The same with the words of signatures.md 6.2, as used for bundles."""
        faults = [self._subject_fault(subject) for subject in subjects or ("",)]
        fault = (faults[0] if all(faults) else "") or self._issuer_fault(issuer)
        if fault:
            raise IdentityMismatch(
                "failed to verify certificate identity: no matching CertificateIdentity found, "
                f"last error: {fault}"
            )

    def _subject_fault(self, subject: str) -> str:
        return _fault("SAN", self.subject, self.subject_regexp, subject)

    def _issuer_fault(self, issuer: str) -> str:
        return _fault("issuer", self.issuer, self.issuer_regexp, issuer)


def _fault(what: str, exact: str, pattern: str, got: str) -> str:
    if exact and exact != got:
        return f'expected {what} value "{exact}", got "{got}"'
    if pattern and not compile_re2(pattern).search(got):
        return f'expected {what} value to match regex "{pattern}", got "{got}"'
    return "" if exact or pattern else f"no {what} was named"
