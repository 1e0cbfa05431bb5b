"""From verified evidence to the signature objects of the report.

Source: validate-image.md 5.6, signatures.md 8.2. Unlike the reference,
signatures of keyless bundles carry certificate, chain and metadata too.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from conforma.trust.evidence import SIGNATURE
from conforma.trust.keys import fingerprint
from conforma.trust.signature import Layout, Signature, Voucher
from conforma.trust.strict_json import encode_base64

if TYPE_CHECKING:
    from cryptography import x509

    from conforma.trust.bundle_verify import VerifiedBundle
    from conforma.trust.certificate import SigningCertificate
    from conforma.trust.envelope import Envelope
    from conforma.trust.legacy_verify import VerifiedLayer
    from conforma.trust.rekor import Witness
    from conforma.trust.trust_policy import TrustPolicy


def layer_signatures(found: VerifiedLayer) -> tuple[Signature, ...]:
    """One object for a ``.sig`` layer, one for each verified signature of a ``.att`` layer."""
    pairs = [(signature.keyid, signature.encoded) for signature in found.signatures]
    if found.statement is None:
        pairs = [("", found.layer.annotations[SIGNATURE])]
    leaf = found.leaf
    layout: Layout = "referrer" if found.layer.bare else "tag"
    moment = None if found.witness is None else found.witness.time
    return tuple(
        _signature(
            keyid if leaf is None else leaf.subject_key_id,
            encoded,
            leaf,
            found.chain,
            _voucher(leaf, key, found.witness, moment),
            layout,
        )
        for (keyid, encoded), key in zip(pairs, found.keys, strict=True)
    )


def unverified(envelope: Envelope, layout: Layout) -> tuple[Signature, ...]:
    """The signatures of an envelope as they are written."""
    return tuple(Signature(s.keyid, s.encoded, layout=layout) for s in envelope.signatures)


def bundle_signatures(found: VerifiedBundle, policy: TrustPolicy) -> tuple[Signature, ...]:
    """One object for a verified bundle."""
    keyid, encoded = "", encode_base64(found.bundle.signature)
    if found.bundle.envelope is not None:
        keyid = found.bundle.envelope.signatures[0].keyid
        encoded = found.bundle.envelope.signatures[0].encoded
    if found.leaf is not None:
        keyid = found.leaf.subject_key_id
    moment = found.times[0] if found.times and not policy.asks_the_clock else None
    voucher = _voucher(found.leaf, found.key, found.witness, moment)
    return (_signature(keyid, encoded, found.leaf, found.chain, voucher, "bundle"),)


def _signature(
    keyid: str,
    encoded: str,
    leaf: SigningCertificate | None,
    chain: tuple[x509.Certificate, ...],
    voucher: Voucher,
    layout: Layout,
) -> Signature:
    if leaf is None:
        return Signature(keyid, encoded, layout=layout, voucher=voucher)
    from cryptography.hazmat.primitives.serialization import Encoding

    return Signature(
        keyid,
        encoded,
        leaf.pem,
        tuple(item.public_bytes(Encoding.PEM).decode("ascii") for item in chain),
        leaf.metadata(),
        layout,
        voucher,
    )


def _voucher(
    leaf: SigningCertificate | None, key: str, witness: Witness | None, moment: datetime | None
) -> Voucher:
    return Voucher(
        key=fingerprint(key) if leaf is None else "",
        identity="" if leaf is None else ", ".join(leaf.subjects),
        issuer="" if leaf is None else leaf.issuer,
        log_id="" if witness is None else witness.log_id,
        log_index=None if witness is None else witness.log_index,
        signed_at="" if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
