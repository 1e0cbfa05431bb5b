"""The trusted root document of a private Sigstore."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from acceptance.private_sigstore.fulcio import Fulcio, spki
from acceptance.private_sigstore.log_signer import LogSigner
from acceptance.private_sigstore.rekor import Rekor, b64
from acceptance.private_sigstore.tsa import TimestampAuthority


def trusted_root(
    fulcio: Fulcio, log: Rekor, timestamps: Sequence[TimestampAuthority] = ()
) -> bytes:
    """``trusted_root.json``, everything valid from the authority's first day."""
    since = {"start": _text(fulcio.started)}
    document = {
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": [_log(log.signer, since, f"https://{log.origin}")],
        "certificateAuthorities": [_authority(fulcio.chain, since)],
        "ctlogs": [_log(fulcio.ct_log, since, "https://ct.private.test")],
        "timestampAuthorities": [_authority(tsa.chain, since) for tsa in timestamps],
    }
    return json.dumps(document).encode()


def _log(signer: LogSigner, since: dict[str, str], url: str) -> dict[str, Any]:
    return {
        "baseUrl": url,
        "hashAlgorithm": "SHA2_256",
        "publicKey": {
            "rawBytes": b64(spki(signer.key)),
            "keyDetails": signer.details,
            "validFor": since,
        },
        "logId": {"keyId": b64(signer.log_id)},
    }


def _authority(chain: Sequence[x509.Certificate], since: dict[str, str]) -> dict[str, Any]:
    return {
        "subject": {"organization": "private.test", "commonName": "private-sigstore"},
        "uri": "https://private.test",
        "certChain": {
            "certificates": [{"rawBytes": b64(item.public_bytes(Encoding.DER))} for item in chain]
        },
        "validFor": since,
    }


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
