"""Summaries in a Rekor log: uploaded as intoto 0.0.2 entries, found by the digest of the image.

Sources: commands.md 9.4 and 11.1, and Rekor's intoto type, version 0.0.2,
which holds payload and signatures in base64 twice. What the log answers is
only a candidate: the signature of the summary decides.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from conforma.cancellation import Cancellation
from conforma.errors import ConformaError, Interrupted, LedgerError
from conforma.ledger.shelves import Backend
from conforma.oci.digest import Digest
from conforma.oci.options import Patience, RegistryOptions
from conforma.oci.reference import Reference
from conforma.oci.retry import RetryPolicy
from conforma.policy.source_url import without_secrets
from conforma.trust.envelope import Envelope
from conforma.trust.private_key import PrivateKey

if TYPE_CHECKING:
    from conforma.oci.exchange import Exchange

_JSON: Final = {"Content-Type": "application/json", "Accept": "application/json"}
_LARGEST: Final = 32 << 20
_MOST_ENTRIES: Final = 50
_SECONDS: Final = 30.0
_RETRIES: Final = 3
_ENTRIES: Final = "/api/v1/log/entries"
_RETRIEVE: Final = "failed to retrieve VSA envelope"


class RekorShelf:
    """A transparency log. Thread safe; ``stack`` closes its connections."""

    keeps = "in-toto 0.0.2 entry"

    def __init__(
        self,
        backend: Backend,
        stack: ExitStack,
        cancellation: Cancellation,
        signer: PrivateKey | None = None,
    ) -> None:
        from conforma.oci.exchange import Exchange
        from conforma.oci.meter import Meter

        self.name = backend.name
        self._url = backend.target.rstrip("/")
        self._signer = signer
        seconds = backend.seconds(_SECONDS)
        options = RegistryOptions(
            retry=RetryPolicy(max_retry=backend.retries(_RETRIES)),
            patience=Patience(head=seconds, read=seconds),
            user_agent="conforma-cli",
        )
        self._exchange: Exchange = Exchange(options, cancellation, Meter())
        stack.callback(self._exchange.close)
        # Names the log in errors; the exchange asks about an image everywhere else.
        self._subject = Reference.parse("rekor.invalid/verification-summary")

    def summaries(self, digest: Digest, policy: str) -> Sequence[bytes]:  # noqa: ARG002 - of all policies
        """All intoto 0.0.2 entries about the image. Raises ``LedgerError`` and ``Interrupted``."""
        query = json.dumps({"hash": str(digest)}).encode()
        uuids = self._ask("POST", "/api/v1/index/retrieve", query)
        found: list[bytes] = []
        if not isinstance(uuids, list) or not uuids:
            raise LedgerError(f"{_RETRIEVE}: no entries found in Rekor for image digest: {digest}")
        for uuid in uuids[:_MOST_ENTRIES]:
            if isinstance(uuid, str) and uuid.isalnum():
                try:
                    entries = self._ask("GET", f"{_ENTRIES}/{uuid}", None)
                except LedgerError:
                    continue  # the others may do
                found += envelopes_of(entries)
        if not found:
            raise LedgerError(
                f"{_RETRIEVE}: no in-toto 0.0.2 entry found for image digest: {digest}"
            )
        return found

    def upload(self, envelopes: Sequence[bytes]) -> None:
        """Make a log entry of each envelope. Raises the first ``LedgerError`` after all were tried.

        ``Interrupted`` at once.
        """
        errors: list[ConformaError] = []
        for content in envelopes:
            try:
                assert self._signer is not None
                entry = json.dumps(proposed(content, self._signer.public_pem)).encode()
                self._ask("POST", _ENTRIES, entry, frozenset({200, 201, 409}))
            except Interrupted:
                raise
            except ConformaError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _ask(
        self,
        method: str,
        path: str,
        content: bytes | None,
        expected: frozenset[int] = frozenset({200}),
    ) -> Any:
        from conforma.oci.sender import Ask

        ask = Ask(
            method, self._subject, self._url + path, _JSON, content, expected=expected, actions=None
        )
        try:
            return json.loads(self._exchange.fetch(ask, _LARGEST).body)
        except Interrupted:
            raise
        except (ConformaError, ValueError, RecursionError) as cause:
            step = "failed to upload VSA envelope" if path == _ENTRIES else _RETRIEVE
            hint = cause.hint if isinstance(cause, ConformaError) else None
            raise LedgerError(
                f"{step}: {without_secrets(self._url)}: {cause}", hint=hint
            ) from cause


def proposed(content: bytes, public_pem: str) -> dict[str, Any]:
    """The entry to propose for an envelope."""
    document = json.loads(content)
    envelope = Envelope.parse(content)
    return {
        "apiVersion": "0.0.2",
        "kind": "intoto",
        "spec": {
            "content": {
                "envelope": {
                    "payloadType": document["payloadType"],
                    "payload": _b64(document["payload"].encode()),
                    "signatures": [
                        {"sig": _b64(entry["sig"].encode()), "publicKey": _b64(public_pem.encode())}
                        for entry in document["signatures"]
                    ],
                },
                "hash": {"algorithm": "sha256", "value": hashlib.sha256(content).hexdigest()},
                "payloadHash": {
                    "algorithm": "sha256",
                    "value": hashlib.sha256(envelope.payload).hexdigest(),
                },
            }
        },
    }


def envelopes_of(entries: Any) -> Iterable[bytes]:
    """The envelopes in a log's answer; what has another shape is left out."""
    for entry in entries.values() if isinstance(entries, dict) else ():
        try:
            body = json.loads(base64.b64decode(entry["body"], validate=True))
            if (body["kind"], body["apiVersion"]) != ("intoto", "0.0.2"):
                continue
            envelope = body["spec"]["content"]["envelope"]
            attested = (entry.get("attestation") or {}).get("data")
            payload = attested or base64.b64decode(envelope["payload"], validate=True).decode()
            signatures = [
                {"keyid": "default", "sig": _once(signature["sig"])}
                for signature in envelope["signatures"]
            ]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        yield json.dumps(
            {
                "payloadType": envelope.get("payloadType"),
                "payload": payload,
                "signatures": signatures,
            }
        ).encode()


def _once(text: str) -> str:
    """Base64 of a signature, whether the log holds it in base64 once or twice."""
    decoded = base64.b64decode(text, validate=True)
    try:
        base64.b64decode(decoded, validate=True)
    except ValueError:
        return text
    return decoded.decode("ascii")


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
