"""One bundle against one policy: witnesses, time, signer, signature, subject, identity.

Source: signatures.md 7.1 and 7.3, whose order and texts are kept. Signed
timestamps count as time too, which lets bundles of Rekor v2 pass.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from conforma.errors import BadEvidence, NotInLog, SignatureMismatch, TrustError
from conforma.oci.digest import Digest
from conforma.trust.bundle import MAX_ENTRIES, MAX_TIMESTAMPS, Bundle
from conforma.trust.certificate import SigningCertificate, check_issued, load_certificate
from conforma.trust.envelope import Statement
from conforma.trust.keys import PublicKey
from conforma.trust.rekor import Witness, check_active, check_promise, check_proof, same_key
from conforma.trust.rekor_entry import EntryBody, LogEntry
from conforma.trust.root import TrustRoot
from conforma.trust.sct import check_scts
from conforma.trust.timestamp import verified_time
from conforma.trust.trust_policy import TrustPolicy

if TYPE_CHECKING:
    from cryptography import x509

_LOG: Final = "failed to verify log inclusion: "
_TIME: Final = "failed to verify timestamps: "
_SIGNATURE: Final = "failed to verify signature: "


class VerifiedBundle(Struct, frozen=True):
    """What a verified bundle says, and who vouches for it; ``key`` is the signer's PEM."""

    bundle: Bundle
    statement: Statement | None
    key: str
    leaf: SigningCertificate | None
    chain: tuple[x509.Certificate, ...]
    witness: Witness | None
    times: tuple[datetime, ...]


def verify_bundle(
    bundle: Bundle, digest: Digest, policy: TrustPolicy, root: TrustRoot
) -> VerifiedBundle:
    """Check everything ``policy`` asks of ``bundle``, for the image with ``digest``.

    Raises a ``TrustError`` with the text of the first check that fails.
    """
    leaf = _signer(bundle, policy)
    signer_pems = policy.public_key.pems if policy.public_key is not None else ()
    pems = (leaf.pem,) if leaf is not None else signer_pems
    witnesses: list[Witness] = []
    if not policy.ignore_rekor:
        witnesses = _check_entries(bundle, pems, leaf, digest, root)
    times = _times(bundle, leaf, witnesses, policy, root)
    chain: tuple[x509.Certificate, ...] = ()
    if leaf is not None:
        chain = _check_leaf(leaf, bundle, times, root)
    key = _check_signature(bundle, leaf, policy.public_key, digest)
    statement = bundle.statement()
    if statement is not None:
        _check_subject(statement, digest)
    if leaf is not None and policy.identity is not None:
        policy.identity.check_bundle(leaf.subjects, leaf.issuer)
    return VerifiedBundle(
        bundle, statement, key, leaf, chain, witnesses[0] if witnesses else None, times
    )


def _signer(bundle: Bundle, policy: TrustPolicy) -> SigningCertificate | None:
    if policy.public_key is not None:
        if bundle.certificates:
            raise SignatureMismatch("expected key signature, not certificate")
        return None
    if not bundle.certificates:
        raise SignatureMismatch(
            "SCTs required but bundle is signed with a public key, which cannot contain SCTs"
        )
    if policy.identity is None:
        raise SignatureMismatch("neither a public key nor an identity was given to verify with")
    return SigningCertificate.parse(bundle.certificates[0])


def _check_entries(
    bundle: Bundle,
    pems: tuple[str, ...],
    leaf: SigningCertificate | None,
    digest: Digest,
    root: TrustRoot,
) -> list[Witness]:
    """The verified entries; an entry of an unknown log does not count, a wrong one is fatal."""
    if len(bundle.entries) > MAX_ENTRIES:
        raise NotInLog(f"{_LOG}too many tlog entries: {len(bundle.entries)} > {MAX_ENTRIES}")
    if len({(entry.log_id, entry.log_index) for entry in bundle.entries}) != len(bundle.entries):
        raise NotInLog(f"{_LOG}duplicate tlog entries found")
    witnesses = []
    for entry in bundle.entries:
        if entry.log_id not in root.logs:
            continue
        try:
            witness = _witness(entry, bundle.version, root)
            _check_binding(entry, bundle, pems, digest)
        except (NotInLog, BadEvidence) as cause:
            raise NotInLog(f"{_LOG}{cause.message}") from cause
        if witness.time is not None and leaf is not None and not _within(leaf, witness.time):
            raise NotInLog(f"{_LOG}integrated time outside certificate validity")
        witnesses.append(witness)
    if not witnesses:
        raise NotInLog(f"{_LOG}not enough verified log entries from transparency log: 0 < 1")
    return witnesses


def _witness(entry: LogEntry, version: str, root: TrustRoot) -> Witness:
    if not entry.promise and entry.proof is None:
        raise NotInLog("entry has neither an inclusion promise nor an inclusion proof")
    if entry.proof is None and version != "0.1":
        raise NotInLog("inclusion proof is missing")
    witness = check_proof(entry, root.logs) if entry.proof is not None else None
    if entry.promise:
        # An integrated time counts only if the log signed it.
        return check_promise(entry, root.logs)
    # Rekor v2 has one index for each entry; nothing but the proof vouches for it.
    if witness is None or entry.proof is None or entry.log_index != entry.proof.log_index:
        raise NotInLog("inclusion proof is for another entry")
    return witness


def _check_binding(entry: LogEntry, bundle: Bundle, pems: tuple[str, ...], digest: Digest) -> None:
    """The entry must be about this signature by this key over this content (CVE-2022-36056)."""
    body = EntryBody.parse(entry.body)
    if entry.claimed is not None and entry.claimed != (body.kind, body.version):
        raise NotInLog("transparency log entry is of another kind than the bundle states")
    if any(logged != bundle.signature for logged in body.signatures):
        raise NotInLog("transparency log signature does not match")
    if not body.keys or not all(any(same_key(k, pem) for pem in pems) for k in body.keys):
        raise NotInLog("transparency log certificate does not match")
    if bundle.envelope is not None:
        signed, payload = bundle.envelope.signed_bytes, bundle.envelope.payload
        matches = (body.payload is None or body.payload.is_of(payload)) and (
            body.artifact is None or body.artifact.is_of(signed)
        )
    else:
        matches = body.artifact is not None and (
            (body.artifact.algorithm, body.artifact.value) == (digest.algorithm, digest.hex)
        )
    if not matches or not (body.signatures or body.payload):
        raise NotInLog("transparency log hash does not match")


def _times(
    bundle: Bundle,
    leaf: SigningCertificate | None,
    witnesses: list[Witness],
    policy: TrustPolicy,
    root: TrustRoot,
) -> tuple[datetime, ...]:
    if len(bundle.timestamps) > MAX_TIMESTAMPS:
        raise BadEvidence(f"{_TIME}too many signed timestamps: {len(bundle.timestamps)}")
    if len(set(bundle.timestamps)) != len(bundle.timestamps):
        raise BadEvidence(f"{_TIME}duplicate signed timestamps found")
    times = [witness.time for witness in witnesses if witness.time is not None]
    if leaf is None:
        return tuple(times)
    for stamp in bundle.timestamps:
        moment = verified_time(stamp, bundle.signature, root.timestamp_authorities)
        if moment is not None:
            times.append(moment)
    if not times and policy.ignore_rekor:
        times.append(datetime.now(UTC))
    if not times:
        raise NotInLog(
            f"{_TIME}threshold not met for verified log entry integrated timestamps: 0 < 1"
        )
    for witness in witnesses:
        if witness.time is None:
            check_active(bytes.fromhex(witness.log_id), times, root.logs)
    return tuple(times)


def _check_leaf(
    leaf: SigningCertificate, bundle: Bundle, times: tuple[datetime, ...], root: TrustRoot
) -> tuple[x509.Certificate, ...]:
    try:
        chain = check_issued(leaf, root, [load_certificate(der) for der in bundle.certificates[1:]])
        if not all(_within(leaf, moment) for moment in times):
            raise SignatureMismatch("leaf certificate verification failed")
    except TrustError as cause:
        raise type(cause)(
            f"failed to verify leaf certificate: {cause.message}", hint=cause.hint
        ) from cause
    try:
        check_scts(leaf.certificate, chain[0], root)
    except NotInLog as cause:
        raise NotInLog(f"failed to verify signed certificate timestamp: {cause.message}") from cause
    return chain


def _check_signature(
    bundle: Bundle, leaf: SigningCertificate | None, key: PublicKey | None, digest: Digest
) -> str:
    if leaf is not None:
        key = leaf.public_key
    assert key is not None  # _signer refuses bundles with neither
    if bundle.message is not None:
        stated = bundle.message.digest
        if stated and stated.hex() != digest.hex:
            raise SignatureMismatch(f"{_SIGNATURE}message digest is not that of the image")
        return _explained(lambda: key.verify_digest(bundle.signature, digest), "")
    assert bundle.envelope is not None
    signed = bundle.envelope.signed_bytes
    return _explained(
        lambda: key.verify(bundle.signature, signed),
        "could not verify envelope: "
        "accepted signatures do not match threshold, Found: 0, Expected 1",
    )


def _explained(check: Callable[[], str], text: str) -> str:
    try:
        return check()
    except SignatureMismatch as cause:
        raise SignatureMismatch(f"{_SIGNATURE}{text or cause.message}") from cause


def _check_subject(statement: Statement, digest: Digest) -> None:
    if not any(digest.algorithm in subject.digests for subject in statement.subjects):
        raise SignatureMismatch(
            f"{_SIGNATURE}provided artifact digests does not match digests in statement"
        )
    if not statement.is_about(digest):
        raise SignatureMismatch(
            f"{_SIGNATURE}provided artifact digest does not match any digest in statement"
        )


def _within(leaf: SigningCertificate, moment: datetime) -> bool:
    return leaf.not_before <= moment <= leaf.not_after
