"""TUF metadata as bytes, canonical and fast.

python-tuf writes canonical JSON in Python, which for a bin takes longer than
signing it. The encoder of the standard library gives the same bytes as long
as no string holds a control character; paths and custom fields of this
package are checked for that, and what was read is verified against the bytes
that python-tuf makes if the fast ones do not match.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from securesystemslib.exceptions import FormatError
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import Signature, Signer
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import (
    SPECIFICATION_VERSION,
    Metadata,
    Root,
    Signed,
    Snapshot,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError, MetadataSerializer

from conforma.errors import LedgerError, LedgerUnverified

_S = TypeVar("_S", Root, Targets, Snapshot, Timestamp)
SPEC_VERSION: Final = ".".join(SPECIFICATION_VERSION)
TEXT: Final = "%Y-%m-%dT%H:%M:%SZ"


def canonical(document: Mapping[str, Any]) -> bytes:
    """Canonical JSON of a document whose strings hold no control characters."""
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, check_circular=False
    ).encode()


class Compact(MetadataSerializer):
    """Metadata as it is written: no blanks, keys in order."""

    def serialize(self, metadata_obj: Metadata[Any]) -> bytes:
        """The bytes of the file."""
        return canonical(metadata_obj.to_dict())


def signed(payload: Signed, signers: list[Signer]) -> bytes:
    """The payload with one signature of each signer, as a file. Raises ``LedgerError``."""
    body = canonical(payload.to_dict())
    return with_signatures(body, [sign(signer, body) for signer in signers])


def with_signatures(body: bytes, signatures: list[Signature]) -> bytes:
    """A metadata file around a body that is already canonical JSON."""
    return b'{"signatures":%b,"signed":%b}' % (
        json.dumps([s.to_dict() for s in signatures], separators=(",", ":")).encode(),
        body,
    )


def sign(signer: Signer, body: bytes) -> Signature:
    """A signature over the bytes. Raises ``LedgerError`` if the key or its service fails."""
    try:
        return signer.sign(body)
    except Exception as cause:  # a key management service may fail in any way
        raise LedgerError(
            f"the online key cannot sign: {type(cause).__name__}: {cause}",
            hint="nothing was published; what is queued stays queued",
        ) from cause


def parsed(raw: bytes, kind: type[_S], delegator: Root | Targets, role: str, what: str) -> _S:
    """The payload of a metadata file that ``delegator`` trusts to be ``role``.

    Expiry is not looked at: a writer's job is to renew what has expired.
    Raises ``LedgerUnverified`` naming ``what``.
    """
    try:
        metadata = Metadata[Any].from_bytes(raw)
        payload = metadata.signed
        if not isinstance(payload, kind):
            raise LedgerUnverified(f"{what}: is {payload.type} metadata")
        try:
            delegator.verify_delegate(role, canonical(payload.to_dict()), metadata.signatures)
        except UnsignedMetadataError:
            delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (DeserializationError, RepositoryError, ValueError, KeyError) as cause:
        raise damaged(what, cause) from cause
    return payload


def verified(raw: bytes, delegator: Root | Targets, role: str, what: str) -> dict[str, Any]:
    """The signed part of a metadata file that ``delegator`` trusts to be ``role``.

    As JSON values: snapshots and bins have so many entries that an object for
    each takes several times as long as the signature. Raises
    ``LedgerUnverified`` naming ``what``.
    """
    try:
        document = json.loads(raw)
        body: dict[str, Any] = document["signed"]
        signatures = {
            signature.keyid: signature
            for signature in map(Signature.from_dict, document["signatures"])
        }
        try:
            delegator.verify_delegate(role, canonical(body), signatures)
        except UnsignedMetadataError:
            delegator.verify_delegate(role, (encode_canonical(body) or "").encode(), signatures)
    except (RepositoryError, FormatError, ValueError, KeyError, TypeError) as cause:
        raise damaged(what, cause) from cause
    return body


def damaged(what: str, cause: object) -> LedgerUnverified:
    """The error about metadata that cannot be used."""
    return LedgerUnverified(
        f"{what}: {cause}",
        hint="the file is damaged or was signed with another key; nothing was published. "
        "Restore it from a copy or a mirror of the ledger",
    )


def common(body: Mapping[str, Any], kind: str) -> tuple[int, datetime]:
    """Version and expiry of metadata that is of this kind. Raises ``ValueError``."""
    if body["_type"] != kind:
        raise ValueError(f"is {body['_type']} metadata")
    if type(body["version"]) is not int or body["version"] < 1:
        raise ValueError(f"has version {body['version']!r}")
    return body["version"], datetime.strptime(body["expires"], TEXT).replace(tzinfo=UTC)


def parsed_snapshot(raw: bytes, root: Root, what: str) -> tuple[datetime, dict[str, int]]:
    """When a snapshot expires and the version of each role in it.

    Raises ``LedgerUnverified`` naming ``what``.
    """
    body = verified(raw, root, "snapshot", what)
    try:
        _, expires = common(body, "snapshot")
        versions = {
            name.removesuffix(".json"): int(entry["version"])
            for name, entry in body["meta"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        raise damaged(what, cause) from cause
    return expires, versions


def now() -> datetime:
    """The clock of this machine, in UTC, without fractions as TUF wants it."""
    return datetime.now(UTC).replace(microsecond=0)
