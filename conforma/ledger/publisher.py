"""Publishing from many threads: prepare, drop, go on; the acknowledgement comes by itself.

Each process has one publisher with two threads. One takes the commit right
when its turn comes and commits whatever waits, whoever dropped it; the other
listens for the commits of others. A thread that publishes waits for nobody
unless it asks its ticket.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from msgspec import Struct
from securesystemslib.signer import Signer

from conforma.errors import (
    LedgerBusy,
    LedgerError,
    OperationRefused,
    StaleRight,
)
from conforma.ledger.commit import Committer
from conforma.ledger.doorbell import Doorbell, ring_all
from conforma.ledger.history import Record
from conforma.ledger.ledger import Ledger
from conforma.ledger.operation import Numbering, Operation

#: How often the right may be taken from us in a row before we say so.
_ATTEMPTS: Final = 5


class Stats(Struct):
    """What this publisher did as a committer; times in seconds."""

    commits: int = 0
    operations: int = 0
    held: float = 0.0


@dataclass(frozen=True, slots=True)
class Ticket:
    """The promise of an acknowledgement for one operation."""

    operation: Operation
    _future: Future[int] = field(repr=False)

    def result(self, timeout: float | None = None) -> int:
        """The version of the snapshot that holds the operation; it is durable.

        Raises ``OperationRefused``; ``LedgerError`` if committing failed, and
        ``LedgerBusy`` after ``timeout`` seconds: then it is still queued.
        """
        try:
            return self._future.result(timeout)
        except FutureTimeout:
            raise LedgerBusy(
                f"operation {self.operation.id} was not committed within {timeout:g} s",
                hint="it stays queued; the next publisher or bump commits it",
            ) from None

    def when_done(self, call: Callable[[Ticket], None]) -> None:
        """Have ``call`` called once the outcome is known, by the thread that learns it."""
        self._future.add_done_callback(lambda _: call(self))


class Publisher:
    """Drops operations of one process and sees to it that somebody commits them."""

    def __init__(
        self, ledger: Ledger, signer: Signer, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._ledger = ledger
        self._committer = Committer(
            ledger.storage, ledger.state, ledger.history, ledger.inbox, signer, clock
        )
        self._numbering = Numbering(clock)
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: dict[str, Future[int]] = {}
        self._resolving = 0
        self._closing = False
        self._broken: LedgerError | None = None
        self._idle_since = 0.0
        self._rest = 0.0
        self.stats = Stats()
        ledger.history.learn(ledger.state.refresh())
        self._bell = Doorbell(ledger.directory, self._numbering.publisher, self._look)
        self._bell.hang()
        self._thread = threading.Thread(target=self._run, name="conforma-committer", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(wait=kind is None)

    def publish(self, path: str, content: bytes, custom: Mapping[str, str] | None = None) -> Ticket:
        """Publish content under a path. Raises what ``submit`` raises."""
        operation = Operation("", path=path, custom=dict(custom or {}))
        operation = self._numbering.named(operation)
        # A path that cannot be one must not reach the file system.
        Operation(operation.id, path=path, sha256="0" * 64, custom=operation.custom).checked()
        length, sha256 = self._ledger.inbox.store(path, content)
        return self.submit(
            Operation(
                operation.id, path=path, length=length, sha256=sha256, custom=operation.custom
            )
        )

    def bump(self, *, everything: bool = False) -> Ticket:
        """Have snapshot, timestamp and expiring (or all) bins signed anew."""
        return self.submit(self._numbering.named(Operation("", kind="bump", everything=everything)))

    def submit(self, operation: Operation) -> Ticket:
        """Queue an operation; doing it again with the same one changes nothing.

        Raises ``LedgerBusy`` if the queue is full, ``OperationRefused`` and
        ``LedgerError``; then nothing was queued.
        """
        self._ledger.history.reach(operation.dropped - 2 * self._ledger.config.skew)
        with self._changed:
            if self._broken is not None:
                raise self._broken
            if (known := self._waiting.get(operation.id)) is not None:
                return Ticket(operation, known)
            future = self._waiting[operation.id] = Future()
        ticket = Ticket(operation, future)
        self._settle()
        if future.done():
            return ticket
        try:
            self._ledger.inbox.drop(operation)
        except BaseException as error:
            with self._changed:
                mine = self._waiting.pop(operation.id, None)
            if mine is not None:  # somebody may have submitted it again meanwhile
                mine.set_exception(error)
            raise
        with self._changed:
            self._changed.notify_all()
        return ticket

    def close(self, *, wait: bool = True) -> None:
        """Wait until everything is acknowledged or failed, unless told otherwise, and stop."""
        with self._changed:
            while wait and (self._waiting or self._resolving):
                self._changed.wait()
            self._closing = True
            self._changed.notify_all()
            idle = not self._waiting
        self._bell.take_down()
        if idle and wait:
            self._thread.join(timeout=1.0)

    def _run(self) -> None:
        failures = 0
        pause = 0.0
        while True:
            with self._changed:
                while not self._closing and (not self._waiting or (pause := self._pause()) > 0):
                    self._changed.wait(pause if self._waiting else None)
                if self._closing:
                    return
            try:
                self._turn()
                failures = 0
            except StaleRight as error:
                failures += 1
                if failures >= _ATTEMPTS:
                    self._fail(error)
                    failures = 0
            except LedgerError as error:
                self._fail(error)
            except Exception as error:
                # This thread ends here, so nobody may be left to wait for it.
                self._broken = LedgerError(
                    f"the commit failed: {type(error).__name__}: {error}",
                    hint="nothing was published; what is queued stays queued",
                )
                self._fail(self._broken)
                raise

    def _turn(self) -> None:
        """Take the right and commit, unless somebody did meanwhile."""
        self._ledger.right.acquire()
        taken = time.perf_counter()
        record: Record | None = None
        try:
            self._look()
            with self._changed:
                if not self._waiting or self._pause() > 0:
                    return
            record = self._committer.commit()
        finally:
            self.stats.held += time.perf_counter() - taken
            self._ledger.right.release()
        if record is not None:
            self.stats.commits += 1
            self.stats.operations += len(record.outcomes)
            self._noticed(record)
            ring_all(self._ledger.directory, but=self._numbering.publisher)
        self._settle()

    def _look(self) -> None:
        """Learn what others have committed."""
        with contextlib.suppress(LedgerError):
            record = self._ledger.history.learn(self._ledger.state.glance())
            if record is not None:
                self._noticed(record)
                self._settle()

    def _noticed(self, record: Record) -> None:
        """Let the right rest for a while, so that a batch can gather."""
        with self._changed:
            self._idle_since = time.monotonic()
            self._rest = self._ledger.state.config.rest * record.seconds
            self._changed.notify_all()

    def _pause(self) -> float:
        """How long the right still rests, in seconds; not if there is a full batch of ours."""
        if len(self._waiting) >= self._ledger.state.config.max_batch:
            return 0.0
        return max(0.0, self._idle_since + self._rest - time.monotonic())

    def _settle(self) -> None:
        """Resolve the tickets whose outcome is known."""
        with self._changed:
            known = {
                operation_id: outcome
                for operation_id in self._waiting
                if (outcome := self._ledger.history.get(operation_id)) is not None
            }
            futures = {operation_id: self._waiting.pop(operation_id) for operation_id in known}
            self._resolving += len(futures)
        for operation_id, future in futures.items():
            outcome = known[operation_id]
            if outcome.reason:
                future.set_exception(
                    OperationRefused(
                        outcome.reason, hint="the other operations of its batch were published"
                    )
                )
            else:
                future.set_result(outcome.version)
        self._resolved(len(futures))

    def _fail(self, error: LedgerError) -> None:
        with self._changed:
            failed = list(self._waiting.values())
            self._waiting.clear()
            self._resolving += len(failed)
        for future in failed:
            future.set_exception(error)
        self._resolved(len(failed))

    def _resolved(self, count: int) -> None:
        if count:
            with self._changed:
                self._resolving -= count
                self._changed.notify_all()
