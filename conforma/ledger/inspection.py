"""What a ledger holds and whether all of it verifies, for its operators."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from conforma.errors import BadEvidence, LedgerError, LedgerUnverified, SignatureMismatch
from conforma.ledger.bins import Entry
from conforma.ledger.config import CLAIMS, target_name
from conforma.ledger.ledger import Ledger
from conforma.ledger.recovery import orphans
from conforma.ledger.statement import Summary
from conforma.oci.digest import Digest
from conforma.trust.keys import PublicKey


class Verified(Struct, frozen=True):
    """What was found sound."""

    version: int
    bins: int
    targets: int
    bytes: int


def status(ledger: Ledger, now: datetime | None = None) -> dict[str, Any]:
    """Versions, expiry, queue and leftovers, as JSON values. Raises ``LedgerError``."""
    moment = now or datetime.now(UTC)
    state = ledger.state
    head = state.refresh()
    expiries = {
        "root": state.root.expires,
        "targets": state.targets.expires,
        "snapshot": state.snapshot_expires,
        "timestamp": head.expires,
    }
    pending = ledger.inbox.pending()
    return {
        "version": head.version,
        "committed": f"{datetime.fromtimestamp(head.time, UTC):%Y-%m-%dT%H:%M:%SZ}",
        "expires": {role: f"{when:%Y-%m-%dT%H:%M:%SZ}" for role, when in expiries.items()},
        "expired": [role for role, when in expiries.items() if when <= moment],
        "bins": state.bins.number_of_bins,
        "pending": len(pending),
        "oldest": pending[0] if pending else "",
        "held": ledger.inbox.held(),
        "refused": ledger.inbox.refused(),
        "committing": bool(ledger.storage.names(CLAIMS)),
        "unpublished": len(orphans(ledger.storage, state)),
    }


def entries(ledger: Ledger, digest: Digest | None = None) -> Iterator[Entry]:
    """All targets, or those about one image. Raises ``LedgerUnverified``."""
    wanted = f"/{digest.algorithm}-{digest.hex}.json" if digest is not None else ""
    for role in ledger.state.bins.get_roles():
        for entry in ledger.state.bin(role).entries():
            if entry.path.endswith(wanted):
                yield entry


def content(ledger: Ledger, entry: Entry) -> bytes:
    """The content of a target. Raises ``LedgerUnverified`` unless it is what was published."""
    name = target_name(entry.path, entry.sha256)
    try:
        found = ledger.storage.read(name)
    except FileNotFoundError as cause:
        raise LedgerUnverified(f"{name}: is not there") from cause
    if len(found) != entry.length or hashlib.sha256(found).hexdigest() != entry.sha256:
        raise LedgerUnverified(f"{name}: is not what was published")
    return found


def verify(ledger: Ledger, key: PublicKey | None = None, now: datetime | None = None) -> Verified:
    """Check every signature, hash, address and date there is.

    With ``key`` also the signatures of the summaries. Raises one ``LedgerError``
    that names everything found wrong.
    """
    moment = now or datetime.now(UTC)
    state, problems = ledger.state, list[str]()
    dated = [("root", state.root), ("targets", state.targets)]
    expiries = [(role, payload.expires) for role, payload in dated]
    expiries += [("snapshot", state.snapshot_expires), ("timestamp", state.head.expires)]
    targets = size = 0
    for role in state.bins.get_roles():
        try:
            payload = state.bin(role)
        except LedgerError as error:
            problems.append(error.message)
            continue
        expiries.append((role, payload.expires))
        for entry in payload.entries():
            targets, size = targets + 1, size + entry.length
            if state.bins.get_role_for_target(entry.path) != role:
                problems.append(f"{entry.path}: is in {role}, where clients do not look for it")
            try:
                _check(entry, content(ledger, entry), key)
            except LedgerError as error:
                problems.append(error.message)
    problems += [
        f"{role}: expired at {when:%Y-%m-%dT%H:%M:%SZ}, the clock of this machine says "
        f"{moment:%Y-%m-%dT%H:%M:%SZ}"
        for role, when in expiries
        if when <= moment
    ]
    if problems:
        raise LedgerUnverified("\n".join(problems))
    return Verified(state.head.version, state.bins.number_of_bins, targets, size)


def _check(entry: Entry, found: bytes, key: PublicKey | None) -> None:
    try:
        summary = Summary.parse(found)
    except BadEvidence as cause:
        raise LedgerUnverified(f"{entry.path}: no summary: {cause.message}") from cause
    if summary.path != entry.path:
        raise LedgerUnverified(f"{entry.path}: is a summary that belongs to {summary.path}")
    if key is None:
        return
    if summary.envelope is None:
        raise LedgerUnverified(f"{entry.path}: the summary is not signed")
    for signature in summary.envelope.signatures:
        try:
            key.verify(signature.value, summary.envelope.signed_bytes)
        except SignatureMismatch:
            continue
        return
    raise LedgerUnverified(f"{entry.path}: no signature by the given key")
