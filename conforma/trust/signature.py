"""Signatures and attestations that have been looked at, as the report shows them.

Source: validate-image.md 5.6, signatures.md 8.2 to 8.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from msgspec import Struct, field

from conforma.oci.digest import Digest
from conforma.trust.envelope import Statement

SLSA_V02: Final = "https://slsa.dev/provenance/v0.2"
SLSA_V1: Final = "https://slsa.dev/provenance/v1"

#: How a signature is attached: cosign's tags, a Sigstore bundle, or a bare referrer.
Layout = Literal["tag", "bundle", "referrer"]


class Voucher(Struct, frozen=True):
    """Who vouched, and which log entry witnessed it; the ``provenance`` output shows this."""

    key: str = ""
    identity: str = ""
    issuer: str = ""
    log_id: str = ""
    log_index: int | None = None
    signed_at: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The members that are known, in a fixed order."""
        members = {
            "key": self.key,
            "identity": self.identity,
            "issuer": self.issuer,
            "logID": self.log_id,
            "logIndex": self.log_index,
            "signedAt": self.signed_at,
        }
        return {name: value for name, value in members.items() if value not in ("", None)}


class Signature(Struct, frozen=True):
    """One signature; certificate data is there only for keyless ones."""

    keyid: str
    sig: str
    certificate: str = ""
    chain: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    layout: Layout = "tag"
    voucher: Voucher | None = None

    def as_dict(self) -> dict[str, Any]:
        """As in reports and in the policy input: empty certificate data left out."""
        members: dict[str, Any] = {"keyid": self.keyid, "sig": self.sig}
        if self.certificate:
            members["certificate"] = self.certificate
        if self.chain:
            members["chain"] = list(self.chain)
        if self.metadata:
            members["metadata"] = dict(self.metadata)
        return members

    def as_builtin_result(self) -> dict[str, Any]:
        """As ``ec.sigstore.*`` returns it: every key present (rego-builtins.md 2.5)."""
        return {
            "keyid": self.keyid,
            "signature": self.sig,
            "certificate": self.certificate,
            "chain": list(self.chain),
            "metadata": dict(self.metadata),
        }

    def provenance(self) -> dict[str, Any]:
        """How it is attached and who vouched; nobody if that was not checked."""
        return {
            "layout": self.layout,
            "sig": self.sig,
            "voucher": None if self.voucher is None else self.voucher.as_dict(),
        }


def reported(signatures: Iterable[Signature]) -> list[dict[str, Any]]:
    """The ``signatures`` list of a component.

    A signature attached as a bare referrer counts for the check but, as in
    the reference, is not listed.
    """
    return [signature.as_dict() for signature in signatures if signature.layout != "referrer"]


class Attestation(Struct, frozen=True):
    """A statement and who signed it; ``verified`` tells whether that was checked."""

    statement: Statement
    signatures: tuple[Signature, ...]
    build_type: str | None
    verified: bool
    layout: Layout = "tag"

    @property
    def type(self) -> str:
        """The statement's own type."""
        return self.statement.type

    @property
    def predicate_type(self) -> str:
        """What kind of claim the statement makes."""
        return self.statement.predicate_type

    def as_dict(self) -> dict[str, Any]:
        """As in the ``attestations`` list of a component (signatures.md 8.4)."""
        named = {
            "type": self.type,
            "predicateType": self.predicate_type,
            "predicateBuildType": self.build_type,
        }
        members: dict[str, Any] = {name: text for name, text in named.items() if text}
        if self.signatures:
            members["signatures"] = [signature.as_dict() for signature in self.signatures]
        return members

    def provenance(self) -> dict[str, Any]:
        """What is claimed, by which statement, and who vouched for it."""
        return {
            "predicateType": self.predicate_type,
            "statement": str(Digest.of(self.statement.raw)),
            "verified": self.verified,
            "signatures": [signature.provenance() for signature in self.signatures],
        }


def build_type_of(statement: Statement) -> str | None:
    """The build type a SLSA provenance names; ``None`` for other predicates."""
    predicate = statement.document.get("predicate")
    if not isinstance(predicate, Mapping):
        return None
    if statement.predicate_type == SLSA_V1:
        predicate = predicate.get("buildDefinition")
    elif statement.predicate_type != SLSA_V02:
        return None
    value = predicate.get("buildType") if isinstance(predicate, Mapping) else None
    return value if isinstance(value, str) else None
