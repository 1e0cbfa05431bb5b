"""One commit: everything that waits becomes one snapshot and one timestamp, switched last.

::

    claim     a file with a fencing number; claims of the dead are removed
    base      what the timestamp names now; orphans of the dead are removed
    apply     pending operations in order of arrival; a bad one is refused alone
    sign      each touched bin once, then the snapshot, then the timestamp
    create    bins, snapshot and record: new files, durable together
    switch    the claim becomes timestamp.json, at once and durable
    done      operations leave the queue; those who wait are rung

A kill before the switch leaves files that nothing names and operations that
are still queued; a kill after it leaves operations in the queue whose record
says that they are done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct, field
from securesystemslib.signer import Signer

from conforma.errors import LedgerError, OperationRefused, StaleRight
from conforma.ledger import rendering
from conforma.ledger.bins import Bin, Entry
from conforma.ledger.config import CLAIMS, METADATA, Config, metadata_name
from conforma.ledger.history import PUBLISHED, History, Record
from conforma.ledger.inbox import Inbox
from conforma.ledger.operation import NewerOperation, Numbering, Operation, dropped
from conforma.ledger.recovery import discard_orphans
from conforma.ledger.rotation import Rotation
from conforma.ledger.state import Head, State, timestamp_body
from conforma.ledger.storage import LocalDirectory

#: A bump renews bins when less than this share of their life is left.
_DUE: Final = 1 / 3


class Batch(Struct):
    """What one commit does: outcomes, new bins and everything that was read for it."""

    outcomes: dict[str, str] = field(default_factory=dict)
    changes: dict[str, dict[str, Entry]] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    rotation: Rotation | None = None
    bump: bool = False
    everything: bool = False


class Committer:
    """Makes commits; to be called by whoever holds the commit right, one at a time."""

    def __init__(
        self,
        storage: LocalDirectory,
        state: State,
        history: History,
        inbox: Inbox,
        signer: Signer,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._storage = storage
        self._state = state
        self._history = history
        self._inbox = inbox
        self._signer = signer
        self._clock = clock

    def commit(self, rotation: Rotation | None = None) -> Record | None:
        """Publish what is pending, and a rotation; ``None`` if there is nothing.

        Raises ``LedgerError``; then nothing was published and what was pending
        still is.
        """
        started = time.perf_counter()
        config = self._state.reload_config()
        claim, died = self._storage.claim(self._state.refresh().fence)
        keep = False
        try:
            # Read again: whoever held a claim may have switched until it was removed.
            head = self._state.refresh()
            self._check_clock(claim, head, config)
            self._check_signer(rotation)
            if died:
                discard_orphans(self._storage, self._state)
            batch = self._batch(config)
            if rotation is not None:
                self._include(rotation, batch)
            if batch.outcomes:
                # Should this fail, the claim stays behind and tells the next holder to clean up.
                keep = True
                record = self._publish(claim, head, batch, config, started)
                self._finish(record)
                return record
            return None
        finally:
            if not keep:
                self._storage.remove(f"{CLAIMS}/{claim}")

    def _batch(self, config: Config) -> Batch:
        """The operations to commit now, in order; those that are done already leave the queue."""
        batch = Batch()
        pending = self._inbox.pending()
        if pending:
            self._history.learn(self._state.head)
            self._history.reach(min(map(dropped, pending)) - 2 * config.skew)
        for operation_id in pending:
            if len(batch.outcomes) >= config.max_batch:
                break
            if self._history.get(operation_id) is not None:
                self._inbox.done(operation_id)
                continue
            try:
                operation = self._inbox.read(operation_id)
            except NewerOperation:
                continue
            except OperationRefused as error:
                batch.outcomes[operation_id] = error.message
                continue
            if operation is not None:
                self._add(batch, operation)
        return batch

    def _add(self, batch: Batch, operation: Operation) -> None:
        batch.outcomes[operation.id] = PUBLISHED
        if operation.kind == "bump":
            batch.bump = True
            batch.everything |= operation.everything
            return
        role = self._state.bins.get_role_for_target(operation.path)
        custom = {**operation.custom, "operation": operation.id}
        batch.changes.setdefault(role, {})[operation.path] = Entry(
            operation.path, operation.length, operation.sha256, custom
        )
        batch.directories.add(_directory(operation.path))

    def _include(self, rotation: Rotation, batch: Batch) -> None:
        batch.outcomes[Numbering(self._clock).next()] = PUBLISHED
        batch.rotation = rotation
        batch.bump = True
        batch.everything |= self._signer.public_key.keyid not in self._state.bins.keyids

    def _publish(
        self, claim: str, head: Head, batch: Batch, config: Config, started: float
    ) -> Record:
        moment = self._clock()
        now = datetime.fromtimestamp(int(moment), UTC)
        bins = dict(
            self._storage.map(
                lambda role: self._new_bin(role, batch.changes.get(role, {}), now, config),
                self._touched(batch, now, config),
            )
        )
        version = head.version + 1
        versions = {role: made.version for role, (made, _) in bins.items()}
        files = {metadata_name(role, made.version): raw for role, (made, raw) in bins.items()}
        rotation = batch.rotation
        also = rotation.also if rotation is not None else ()
        if rotation is not None and (targets := rotation.staged.targets) is not None:
            versions["targets"] = targets.signed.version
            files[metadata_name("targets", targets.signed.version)] = targets.to_bytes(
                rendering.Compact()
            )
        snapshot = self._state.snapshot.changed(versions)
        snapshot_expires = now + config.lifetime("snapshot")
        snapshot_raw = self._signed(snapshot.render(version, snapshot_expires), also)
        expires = now + config.lifetime("timestamp")
        timestamp = self._signed(
            timestamp_body(version, expires, snapshot_raw, {"claim": claim, "time": int(moment)}),
            also,
        )
        record = Record(
            version, claim, head.claim, moment, time.perf_counter() - started, batch.outcomes
        )
        files[metadata_name("snapshot", version)] = snapshot_raw
        files[record.name] = record.render()
        self._create(files, batch.directories)
        self._switch(claim, timestamp, rotation)
        self._state.advance(
            timestamp,
            Head(version, claim, float(int(moment)), expires),
            snapshot,
            snapshot_expires,
            {role: made for role, (made, _) in bins.items()},
        )
        return record

    def _switch(self, claim: str, timestamp: bytes, rotation: Rotation | None) -> None:
        root = rotation.staged.root if rotation is not None else None
        if rotation is None or root is None:
            self._storage.switch(claim, timestamp)
            return
        afterwards = rotation.leaves_no_gap(self._state, self._signer)
        if afterwards:
            self._storage.switch(claim, timestamp)
        # At once, as clients look for the next root by its name alone.
        self._storage.put(
            metadata_name("root", root.signed.version), root.to_bytes(rendering.Compact())
        )
        self._storage.sync([METADATA])
        if not afterwards:
            self._storage.switch(claim, timestamp)

    def _create(self, files: Mapping[str, bytes], directories: Iterable[str]) -> None:
        self._storage.sync(directories)
        try:
            self._storage.create_all(files)
        except FileExistsError as cause:
            # Left by a holder whose claim a loss of power took away, or made by one that has
            # taken over. Our claim stays behind: whoever claims next looks for orphans.
            raise StaleRight(
                f"{cause.filename}: is there already, made by a commit that was not published",
                hint="nothing was published; the operations are still queued",
            ) from cause

    def _finish(self, record: Record) -> None:
        self._history.add(record)
        for operation_id, reason in record.outcomes.items():
            if reason == PUBLISHED:
                self._inbox.done(operation_id)
            else:
                self._inbox.refuse(operation_id)

    def _touched(self, batch: Batch, now: datetime, config: Config) -> list[str]:
        """The bins that this commit writes, each once."""
        if not batch.bump:
            return sorted(batch.changes)
        roles = list(self._state.bins.get_roles())
        if batch.everything:
            return roles
        due = now + config.lifetime("bins") * _DUE
        expiring = self._storage.map(lambda role: (role, self._state.bin(role).expires), roles)
        return sorted({role for role, expires in expiring if expires < due} | set(batch.changes))

    def _new_bin(
        self, role: str, changes: Mapping[str, Entry], now: datetime, config: Config
    ) -> tuple[str, tuple[Bin, bytes]]:
        made = self._state.bin(role).changed(changes, now + config.lifetime("bins"))
        return role, (made, self._signed(made.render()))

    def _signed(self, body: bytes, also: Iterable[Signer] = ()) -> bytes:
        signers = (self._signer, *also)
        return rendering.with_signatures(body, [rendering.sign(one, body) for one in signers])

    def _check_signer(self, rotation: Rotation | None) -> None:
        """Raise ``LedgerError`` if readers would not believe what we sign."""
        root = self._state.root
        if rotation is not None:
            root = rotation.staged.next_root(self._state)
        keyid = self._signer.public_key.keyid
        if keyid not in root.roles["timestamp"].keyids:
            raise LedgerError(
                f"{keyid[:16]}: this is not the online key of the ledger (any more), which is "
                f"{', '.join(one[:16] for one in root.roles['timestamp'].keyids)}",
                hint="nothing was published, what is queued stays queued; give the new key",
            )

    def _check_clock(self, claim: str, head: Head, config: Config) -> None:
        """Raise ``LedgerError`` if what we sign would be dated wrongly."""
        now = self._clock()
        here = datetime.fromtimestamp(now, UTC)
        if now < head.time - config.skew:
            raise LedgerError(
                f"the clock of this machine says {here:%Y-%m-%dT%H:%M:%SZ}, but the last commit "
                f"was made at {datetime.fromtimestamp(head.time, UTC):%Y-%m-%dT%H:%M:%SZ}",
                hint="set the clock; nothing was published, what is queued stays queued",
            )
        difference = self._storage.age(f"{CLAIMS}/{claim}", now)
        if config.skew < abs(difference) < float("inf"):
            raise LedgerError(
                f"the clock of this machine says {here:%Y-%m-%dT%H:%M:%SZ}, that of the file "
                f"system differs by {abs(difference):.0f} s",
                hint="set the clocks; nothing was published, what is queued stays queued",
            )


def _directory(path: str) -> str:
    return f"targets/{path.rpartition('/')[0]}"
