"""Collecting what nobody needs any more: superseded versions, unnamed content, old records.

A reader that began before a commit still asks for the versions it was told,
so everything is kept for a while after it was superseded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from msgspec import Struct

from conforma.errors import LedgerError, OperationRefused
from conforma.ledger.config import (
    ASIDE,
    CLAIMS,
    COMMITS,
    HELD,
    INBOX,
    METADATA,
    REFUSED,
    TARGETS,
    target_name,
    version_and_role,
)
from conforma.ledger.ledger import Ledger
from conforma.ledger.operation import NewerOperation, Operation
from conforma.ledger.recovery import discard_orphans


class Collected(Struct, frozen=True):
    """How many files were removed."""

    metadata: int
    targets: int
    records: int
    leftovers: int


def collect(ledger: Ledger, clock: Callable[[], float] = time.time) -> Collected:
    """Remove what is superseded for longer than the grace period. Raises ``LedgerError``.

    It holds the commit right meanwhile, since a commit of the same moment
    might name what is about to be removed.
    """
    ledger.right.acquire()
    try:
        config = ledger.state.reload_config()
        claim, _ = ledger.storage.claim(ledger.state.refresh().fence)
        try:
            ledger.state.refresh()
            leftovers = len(discard_orphans(ledger.storage, ledger.state))
            now = clock()
            return Collected(
                metadata=_remove(ledger, _superseded(ledger, now), config.grace, now),
                targets=_remove(ledger, _unnamed(ledger), config.grace, now),
                records=_remove(ledger, _records(ledger), config.remember, now),
                leftovers=leftovers + _remove(ledger, _aside(ledger), config.grace, now),
            )
        finally:
            ledger.storage.remove(f"{CLAIMS}/{claim}")
    finally:
        ledger.right.release()


def _remove(ledger: Ledger, names: Iterable[str], age: float, now: float) -> int:
    removed = 0
    for name in names:
        if age < ledger.storage.age(name, now) < float("inf"):
            removed += ledger.storage.remove(name)
    return removed


def _superseded(ledger: Ledger, now: float) -> list[str]:
    """Metadata older than the current version, but for root, which clients walk through.

    The age that counts began when the successor was written, which for the
    version just before the current one is the successor's own age.
    """
    current = {**ledger.state.snapshot.versions, "snapshot": ledger.state.head.version}
    names = []
    for name in ledger.storage.names(METADATA):
        found = version_and_role(name)
        if found is None:
            continue
        version, role = found
        if role != "root" and version < current.get(role, 0):
            names.append((role, version))
    grace = ledger.state.config.grace
    return [
        f"{METADATA}/{version}.{role}.json"
        for role, version in names
        if ledger.storage.age(f"{METADATA}/{version + 1}.{role}.json", now) > grace
    ]


def _unnamed(ledger: Ledger) -> list[str]:
    """Content that neither a bin nor a queued operation names."""
    named = set()
    for role in ledger.state.bins.get_roles():
        for entry in ledger.state.bin(role).entries():
            named.add(target_name(entry.path, entry.sha256))
    for directory in (INBOX, HELD):
        for name in ledger.storage.names(directory):
            try:
                operation = Operation.parse(ledger.storage.read(f"{directory}/{name}"))
            except OperationRefused:
                continue
            except (NewerOperation, FileNotFoundError) as cause:
                raise LedgerError(
                    f"{directory}/{name}: a queued operation cannot be read, so what it names "
                    "is not known; nothing more was removed",
                    hint="commit it with the version of conforma that made it",
                ) from cause
            named.add(target_name(operation.path, operation.sha256))
    return [name for name in ledger.storage.files_below(TARGETS) if name not in named]


def _records(ledger: Ledger) -> list[str]:
    newest = f"{ledger.state.head.version:010d}."
    return [
        f"{COMMITS}/{name}" for name in ledger.storage.names(COMMITS) if not name.startswith(newest)
    ]


def _aside(ledger: Ledger) -> list[str]:
    return [
        f"{directory}/{name}"
        for directory in (ASIDE, REFUSED)
        for name in ledger.storage.names(directory)
    ]
