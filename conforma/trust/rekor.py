"""Offline checks of Rekor entries: whose promise is it, and about which signature.

Source: signatures.md 5.1 (entries in annotations) and 7.1 (entries in
bundles). Every check here works on bytes that came with the signature; no
request is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

from conforma.errors import BadEvidence, NotInLog, SignatureMismatch
from conforma.oci.digest import Digest
from conforma.trust.merkle import check_checkpoint, check_inclusion
from conforma.trust.rekor_entry import EntryBody, LogEntry
from conforma.trust.root import LogKey, TrustRoot
from conforma.trust.strict_json import decode_base64

_PEM: Final = re.compile(
    r"\s*-----BEGIN (?P<kind>[A-Z0-9 ]+)-----\r?\n(?P<body>[^-]*)-----END (?P=kind)-----\s*"
)


class Signer(Struct, frozen=True):
    """The key material that an entry must name: the PEM texts that are acceptable."""

    pems: tuple[str, ...]


class Witness(Struct, frozen=True):
    """What a verified entry proves: this log saw the signature, at ``time`` if promised."""

    log_id: str
    log_index: int
    time: datetime | None


def check_annotation(
    entry: LogEntry, *, signature: bytes | None, signer: Signer, signed: bytes, root: TrustRoot
) -> Witness:
    """Check the entry of a signature in cosign's tag layout.

    ``signature`` is ``None`` for attestations, whose signatures are within
    ``signed``, the bytes of the layer. Raises ``NotInLog`` or ``BadEvidence``
    with the texts of signatures.md 5.1.
    """
    try:
        check_body(entry, signature=signature, signer=signer, signed=signed)
        return _promise(entry, root)
    except (NotInLog, BadEvidence) as cause:
        raise type(cause)(f"error verifying bundle: {cause.message}") from cause


def check_body(entry: LogEntry, *, signature: bytes | None, signer: Signer, signed: bytes) -> None:
    """Return if the entry is about this signature, by this signer, over ``signed``.

    ``signature`` is ``None`` as in ``check_annotation``. Raises ``NotInLog`` or
    ``BadEvidence``.
    """
    body = EntryBody.parse(entry.body)
    if signature is not None and signature not in body.signatures:
        raise NotInLog("signature in bundle does not match signature being verified")
    _check_signer(body, signer)
    logged = body.artifact if signature is not None else body.envelope
    if logged is None:
        raise NotInLog(f"unexpected log entry type: {body.kind} {body.version}")
    if logged.algorithm != "sha256":
        raise NotInLog(f'unexpected algorithm: "{logged.algorithm}"')
    if not logged.is_of(signed):
        raise NotInLog(
            f'matching bundle to payload: bundle="{logged.value}", '
            f'payload="{Digest.of(signed).hex}"'
        )


def _promise(entry: LogEntry, root: TrustRoot) -> Witness:
    prefix = "verifying bundle" if root.individual else "verifying bundle with trusted root"
    try:
        return check_promise(entry, root.logs)
    except NotInLog as cause:
        raise NotInLog(f"{prefix}: {cause.message}") from cause


def check_promise(entry: LogEntry, logs: Mapping[bytes, LogKey]) -> Witness:
    """Check the signed entry timestamp. Raises ``NotInLog``."""
    key = _log_of(entry, logs)
    moment = datetime.fromtimestamp(entry.integrated_time, UTC)
    if not key.validity.covers(moment):
        raise NotInLog("rekor log public key not valid at payload integrated time")
    try:
        key.verify(entry.promise, entry.promised_bytes)
    except SignatureMismatch as cause:
        raise NotInLog("unable to verify SET") from cause
    return Witness(entry.log_id.hex(), entry.log_index, moment)


def check_proof(entry: LogEntry, logs: Mapping[bytes, LogKey]) -> Witness:
    """Check inclusion proof and checkpoint. Raises ``NotInLog``."""
    key = _log_of(entry, logs)
    if entry.proof is None:
        raise NotInLog("inclusion proof is missing")
    check_inclusion(entry.body, entry.proof)
    check_checkpoint(entry.proof, entry.log_id, key.verify)
    return Witness(entry.log_id.hex(), entry.log_index, None)


def check_active(log_id: bytes, times: Iterable[datetime], logs: Mapping[bytes, LogKey]) -> None:
    """Return if a log that promises no time was in use at one of ``times``. Raises ``NotInLog``."""
    key = logs[log_id]
    if not any(key.validity.covers(moment) for moment in times):
        raise NotInLog("rekor log public key not valid at payload integrated time")


def same_key(logged: bytes, pem: str) -> bool:
    """Whether a logged key or certificate (PEM or DER) is the one in ``pem``."""
    return _der(logged) == _der(pem.encode())


def _log_of(entry: LogEntry, logs: Mapping[bytes, LogKey]) -> LogKey:
    key = logs.get(entry.log_id)
    if key is None:
        raise NotInLog("rekor log public key not found for payload")
    if key.dated and key.validity.start is None:
        raise NotInLog("rekor validity period start time not set")
    return key


def _check_signer(body: EntryBody, signer: Signer) -> None:
    for logged in body.keys:
        if not any(same_key(logged, pem) for pem in signer.pems):
            got = logged.decode("utf-8", "replace")
            raise NotInLog(f"comparing public key PEMs, expected {''.join(signer.pems)}, got {got}")
    if not body.keys:
        raise NotInLog("the log entry names no key")


def _der(key: bytes) -> bytes:
    """DER of the one PEM block in ``key``, or the bytes themselves."""
    block = _PEM.fullmatch(key.decode("latin-1"))
    if block is None:
        return key
    try:
        return decode_base64(block["body"])
    except ValueError:
        return key
