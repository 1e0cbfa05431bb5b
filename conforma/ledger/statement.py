"""Verification summaries as in-toto statements: made, signed, addressed and compared.

A summary is filed under the policy and conditions it was reached with and the
digest of the image. Both are computed from the signed statement itself, so
nobody can file it where it does not belong.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from conforma import gojson
from conforma.errors import BadEvidence, InputError
from conforma.oci.digest import Digest
from conforma.policy.timestamps import parse_rfc3339
from conforma.trust.envelope import (
    IN_TOTO,
    STATEMENT_TYPES,
    STATEMENT_V01,
    Envelope,
    Statement,
    pre_authentication_encoding,
)
from conforma.trust.private_key import PrivateKey

PREDICATE_TYPE: Final = "https://conforma.dev/verification_summary/v1"
_ALGORITHMS: Final = ("sha256", "sha384", "sha512")


class Summary(Struct, frozen=True):
    """A verification summary that was read; ``digest`` is what it is about."""

    statement: Statement
    envelope: Envelope | None
    digest: Digest
    name: str

    @classmethod
    def parse(cls, content: bytes) -> Summary:
        """Read an envelope around a statement, or a bare statement. Raises ``BadEvidence``."""
        envelope = Envelope.parse(content) if _is_envelope(content) else None
        if envelope is not None and envelope.payload_type != IN_TOTO:
            raise BadEvidence(f"the payload is {envelope.payload_type!r}, not an in-toto statement")
        statement = Statement.parse(envelope.payload if envelope is not None else content)
        if statement.type not in STATEMENT_TYPES or statement.predicate_type != PREDICATE_TYPE:
            raise BadEvidence(
                f"{statement.predicate_type or 'this'} is not a verification summary "
                f"({PREDICATE_TYPE})"
            )
        if len(statement.subjects) != 1 or not isinstance(
            statement.document.get("predicate"), dict
        ):
            raise BadEvidence("a verification summary has one subject and a predicate")
        (subject,) = statement.subjects
        algorithm = next((a for a in _ALGORITHMS if a in subject.digests), "")
        try:
            digest = Digest.parse(f"{algorithm}:{subject.digests.get(algorithm, '')}")
        except InputError as cause:
            raise BadEvidence(f"the subject has no usable digest: {cause.message}") from cause
        return cls(statement, envelope, digest, subject.name)

    @property
    def predicate(self) -> Mapping[str, Any]:
        """What the verifier says."""
        found: Mapping[str, Any] = self.statement.document["predicate"]
        return found

    @property
    def passed(self) -> bool:
        """Whether the image was found fit for release."""
        return self.predicate.get("status") == "passed"

    @property
    def moment(self) -> datetime | None:
        """When it was made; ``None`` if it does not say so."""
        text = self.predicate.get("timestamp")
        return parse_rfc3339(text) if isinstance(text, str) else None

    @property
    def policy(self) -> str:
        """The fingerprint of policy and conditions."""
        predicate = self.predicate
        return fingerprint(
            predicate.get("policy"), predicate.get("publicKey"), predicate.get("conditions")
        )

    @property
    def path(self) -> str:
        """Where a ledger has it."""
        return path_of(self.digest, self.policy)


def fingerprint(policy: object, key: object, conditions: object) -> str:
    """SHA-256 over everything that a verdict depends on besides the image.

    ``policy`` has pinned URLs. Absent and empty values are the same.
    """
    document = {"policy": policy or {}, "publicKey": key or "", "conditions": conditions or {}}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def path_of(digest: Digest, policy: str) -> str:
    """The path of the target for an image and the fingerprint of a policy."""
    return f"{policy}/{digest.algorithm}-{digest.hex}.json"


def statement(name: str, digest: Digest, predicate: Mapping[str, Any]) -> bytes:
    """An in-toto statement: compact, keys sorted (commands.md 9.3)."""
    return gojson.encode(
        {
            "_type": STATEMENT_V01,
            "predicateType": PREDICATE_TYPE,
            "subject": [{"name": name, "digest": {digest.algorithm: digest.hex}}],
            "predicate": predicate,
        },
        sort_keys=True,
    )


def envelope(payload: bytes, key: PrivateKey) -> bytes:
    """A DSSE envelope with one signature, as one JSON document."""
    signature = key.sign(pre_authentication_encoding(IN_TOTO, payload))
    return gojson.encode(
        {
            "payloadType": IN_TOTO,
            "payload": base64.b64encode(payload).decode(),
            "signatures": [{"keyid": "", "sig": base64.b64encode(signature).decode()}],
        }
    )


def _is_envelope(content: bytes) -> bool:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "payloadType" in document
