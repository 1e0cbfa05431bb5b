"""The payload that `cosign sign` signs: "this digest is the image I mean".

Source: signatures.md 3.1. The repository it names is not checked, so that a
signature stays valid when image and signature move to another registry.
"""

from __future__ import annotations

from conforma.errors import BadEvidence, SignatureMismatch
from conforma.oci.digest import Digest
from conforma.trust.strict_json import load_json


def check_claim(payload: bytes, digest: Digest) -> None:
    """Return if ``payload`` claims ``digest``.

    Raises ``SignatureMismatch`` for a claim about other content and
    ``BadEvidence`` for a payload that is no claim at all.
    """
    document = load_json(payload, "malformed signature payload")
    found: object = document
    for key in ("critical", "image", "docker-manifest-digest"):
        found = found.get(key, "") if isinstance(found, dict) else ""
    if not isinstance(found, str):
        raise BadEvidence("malformed signature payload: the digest is not a string")
    if found != str(digest):
        raise SignatureMismatch(f"invalid or missing digest in claim: {found}")
