"""One signature or attestation of cosign's tag layout against one policy.

Source: signatures.md 5, whose order of checks and texts are kept: log, key
or certificate, signature, claim, expiry.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from conforma.errors import BadEvidence, IdentityMismatch, NotInLog, SignatureMismatch
from conforma.gotext import rfc3339
from conforma.oci.digest import Digest
from conforma.trust.envelope import IN_TOTO, Envelope, EnvelopeSignature, Statement
from conforma.trust.evidence import (
    CERTIFICATE,
    CHAIN,
    DSSE_ENVELOPE,
    REKOR_BUNDLE,
    SIGNATURE,
    Attached,
)
from conforma.trust.simple_signing import check_claim
from conforma.trust.strict_json import decode_base64

if TYPE_CHECKING:
    from cryptography import x509

    from conforma.trust.certificate import SigningCertificate
    from conforma.trust.keys import PublicKey
    from conforma.trust.rekor import Witness
    from conforma.trust.rekor_search import AskLog
    from conforma.trust.root import TrustRoot
    from conforma.trust.trust_policy import TrustPolicy


class VerifiedLayer(Struct, frozen=True):
    """A layer that holds, and who vouches for it.

    ``statement`` is set for attestations; ``signatures`` are then those of
    the envelope that verify. ``keys`` are the PEMs of who made them, in turn.
    """

    layer: Attached
    statement: Statement | None
    signatures: tuple[EnvelopeSignature, ...]
    keys: tuple[str, ...]
    leaf: SigningCertificate | None
    chain: tuple[x509.Certificate, ...]
    witness: Witness | None


def verify_layer(
    layer: Attached,
    digest: Digest,
    policy: TrustPolicy,
    root: TrustRoot,
    ask: AskLog | None = None,
) -> VerifiedLayer:
    """Check everything ``policy`` asks of ``layer``, for the image with ``digest``.

    ``ask`` asks a log for the entry, if none is attached. Raises a
    ``TrustError`` with the text of the first check that fails, and
    ``LogUnavailable`` if the log did not answer.
    """
    if layer.fault:
        raise BadEvidence(layer.fault)
    encoded = layer.annotations.get(SIGNATURE)
    if encoded is None:
        raise BadEvidence(f'signature layer {layer.digest} is missing "{SIGNATURE}" annotation')
    try:
        signature = decode_base64(encoded)
    except ValueError as cause:
        raise BadEvidence(f"signature layer {layer.digest}: {cause}") from cause
    leaf = _leaf(layer)
    witness = None
    if not policy.ignore_rekor:
        witness = _check_log(layer, signature, leaf, policy, root, ask)
    key, chain = _key(layer, leaf, policy, root)
    if policy.public_key is not None:
        leaf = None  # Nobody has verified it, so nobody may see it.
    if layer.kind == "signature":
        keys: tuple[str, ...] = (key.verify(signature, layer.content),)
        check_claim(layer.content, digest)
        result = VerifiedLayer(layer, None, (), keys, leaf, chain, witness)
    else:
        statement, signatures, keys = _check_envelope(layer, key)
        if not statement.is_about(digest):
            raise SignatureMismatch("no matching subject digest found")
        result = VerifiedLayer(layer, statement, signatures, keys, leaf, chain, witness)
    if leaf is not None:
        _check_expiry(leaf, witness)
    return result


def read_envelope(layer: Attached) -> tuple[Envelope, Statement]:
    """The envelope and statement in a layer. Raises ``BadEvidence`` (signatures.md 9.1)."""
    if layer.fault:
        raise BadEvidence(layer.fault)
    if layer.media_type != DSSE_ENVELOPE:
        raise BadEvidence(
            "malformed attestation data: expecting media type of "
            f"`{DSSE_ENVELOPE}`, received: `{layer.media_type}`"
        )
    envelope = Envelope.parse(layer.content)
    if envelope.payload_type != IN_TOTO:
        raise BadEvidence(
            f"invalid payloadType {envelope.payload_type} on envelope. Expected {IN_TOTO}"
        )
    return envelope, Statement.parse(envelope.payload)


def _leaf(layer: Attached) -> SigningCertificate | None:
    text = layer.annotations.get(CERTIFICATE, "")
    if not text:
        return None
    from conforma.trust.certificate import SigningCertificate

    return SigningCertificate.parse(text)


def _check_log(
    layer: Attached,
    signature: bytes,
    leaf: SigningCertificate | None,
    policy: TrustPolicy,
    root: TrustRoot,
    ask: AskLog | None,
) -> Witness:
    from conforma.trust.rekor import Signer, check_annotation
    from conforma.trust.rekor_entry import LogEntry
    from conforma.trust.rekor_search import find_witness

    signer = Signer(_acceptable(leaf, policy.public_key))
    text = layer.annotations.get(REKOR_BUNDLE)
    if text:
        return check_annotation(
            LogEntry.from_annotation(text),
            signature=signature if layer.kind == "signature" else None,
            signer=signer,
            signed=layer.content,
            root=root,
        )
    if ask is None:
        raise NotInLog("rekor client not provided for online verification")
    if not signer.pems:
        raise SignatureMismatch("no certificate found on signature")
    return find_witness(layer, signature, signer, root, ask)


def _acceptable(leaf: SigningCertificate | None, key: PublicKey | None) -> tuple[str, ...]:
    if leaf is None:
        return key.pems if key is not None else ()
    if key is not None and leaf.public_key.pem not in key.pems:
        raise NotInLog(
            "error verifying bundle: both public key and certificate were provided "
            "but did not match"
        )
    # With both, the log may have recorded either.
    return (leaf.pem, *(key.pems if key is not None else ()))


def _key(
    layer: Attached, leaf: SigningCertificate | None, policy: TrustPolicy, root: TrustRoot
) -> tuple[PublicKey, tuple[x509.Certificate, ...]]:
    if policy.public_key is not None:
        return policy.public_key, ()
    if leaf is None:
        raise SignatureMismatch("no certificate found on signature")
    if policy.identity is None:
        raise SignatureMismatch("neither a public key nor an identity was given to verify with")
    from conforma.trust.certificate import check_issued, parse_chain
    from conforma.trust.sct import check_scts

    offered = parse_chain(layer.annotations.get(CHAIN, ""))
    chain = check_issued(leaf, root, offered)
    policy.identity.check(leaf.subjects, leaf.issuer)
    check_scts(leaf.certificate, chain[0], root)
    return leaf.public_key, chain


def _check_envelope(
    layer: Attached, key: PublicKey
) -> tuple[Statement, tuple[EnvelopeSignature, ...], tuple[str, ...]]:
    envelope, statement = read_envelope(layer)
    signed = envelope.signed_bytes
    verified, keys = [], []
    for signature in envelope.signatures:
        try:
            keys.append(key.verify(signature.value, signed))
        except SignatureMismatch:
            continue
        verified.append(signature)
    if not verified:
        raise SignatureMismatch("accepted signatures do not match threshold, Found: 0, Expected 1")
    return statement, tuple(verified), tuple(keys)


def _check_expiry(leaf: SigningCertificate, witness: Witness | None) -> None:
    what = "checking expiry on certificate with bundle: certificate"
    if witness is None:
        now = datetime.now(UTC)
        if now > leaf.not_after:
            raise IdentityMismatch("expected a signed timestamp to verify an expired certificate")
        if now < leaf.not_before:
            raise IdentityMismatch(f"certificate is not valid before {rfc3339(leaf.not_before)}")
        return
    moment = witness.time
    if moment is None:
        raise NotInLog("the log entry has no integrated time")
    if moment > leaf.not_after:
        raise IdentityMismatch(
            f"{what} expired before signatures were entered in log: "
            f"{rfc3339(leaf.not_after)} is before {rfc3339(moment)}"
        )
    if moment < leaf.not_before:
        # The reference prints notAfter here.
        raise IdentityMismatch(
            f"{what} was issued after signatures were entered in log: "
            f"{rfc3339(leaf.not_before)} is after {rfc3339(moment)}"
        )
