"""RFC 3161 timestamps: an authority we trust saw the signature at a time.

The cryptography is rfc3161-client's, as in sigstore-python.
"""

from __future__ import annotations

from datetime import UTC, datetime

from conforma.errors import BadEvidence
from conforma.trust.root import Authority


def verified_time(
    response: bytes, signature: bytes, authorities: tuple[Authority, ...]
) -> datetime | None:
    """When the timestamp was made; ``None`` if no authority in ``authorities`` made it.

    Raises ``BadEvidence`` for bytes that are no timestamp response.
    """
    from rfc3161_client import VerifierBuilder, decode_timestamp_response

    try:
        stamp = decode_timestamp_response(response)
        moment = stamp.tst_info.gen_time
    except Exception as cause:
        raise BadEvidence(f"malformed signed timestamp: {cause}") from cause
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    for authority in authorities:
        if len(authority.certificates) < 2 or not authority.validity.covers(moment):
            continue
        first, *between, last = authority.certificates
        builder = VerifierBuilder().tsa_certificate(first).add_root_certificate(last)
        for certificate in between:
            builder = builder.add_intermediate_certificate(certificate)
        try:
            builder.build().verify_message(stamp, signature)
        except Exception:  # noqa: S112
            # Errors of the library about hostile bytes have no common class.
            continue
        return moment
    return None
