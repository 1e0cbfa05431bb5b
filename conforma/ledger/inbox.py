"""The queue of a ledger: a directory of operations that anybody may add to.

Content goes to its final place first and is durable there; then the operation
gets its name in the inbox, at once and for everybody.
"""

from __future__ import annotations

import hashlib
import os

from conforma.errors import InputError, LedgerBusy, OperationRefused
from conforma.ledger.config import HELD, INBOX, REFUSED, TARGETS, Config, target_name
from conforma.ledger.operation import Operation, in_arrival_order, is_id
from conforma.ledger.storage import LocalDirectory


class Inbox:
    """The operations that wait, are held back, or were refused."""

    def __init__(self, storage: LocalDirectory, config: Config) -> None:
        self._storage = storage
        self._config = config
        self._known: set[str] = set()

    def store(self, path: str, content: bytes) -> tuple[int, str]:
        """Put content where clients will look for it; its length and SHA-256.

        The commit that names it syncs the directory it is in.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        name = target_name(path, sha256)
        directory = name.rpartition("/")[0]
        if directory not in self._known:
            self._storage.make_directories([directory])
            self._storage.sync([directory.rpartition("/")[0], TARGETS])
            self._known.add(directory)
        # Written even if it is there: its age keeps the collector away until it is named.
        self._storage.put(name, content)
        return len(content), sha256

    def drop(self, operation: Operation, *, hold: bool = False) -> None:
        """Queue an operation, or hold it back.

        Raises ``LedgerBusy`` if the queue is full and ``OperationRefused`` for
        an operation that no commit would take.
        """
        operation.checked()
        waiting = len(self._storage.names(INBOX))
        if waiting >= self._config.queue_limit:
            raise busy(waiting, self._config)
        directory = HELD if hold else INBOX
        self._storage.put(f"{directory}/{operation.id}.json", operation.render(), durable=hold)
        if hold:
            self._storage.sync([HELD])

    def release(self, operation_id: str) -> None:
        """Queue an operation that was held back. Raises ``InputError`` if there is none."""
        if not is_id(operation_id) or not self._storage.move(
            f"{HELD}/{operation_id}.json", f"{INBOX}/{operation_id}.json"
        ):
            raise InputError(f"no operation {operation_id} is held")

    def pending(self) -> list[str]:
        """The ids of all queued operations, in the order in which they apply."""
        arrived: list[tuple[str, int]] = []
        for operation_id in self._ids(INBOX):
            try:
                arrived.append(
                    (operation_id, self._storage.arrived(f"{INBOX}/{operation_id}.json"))
                )
            except FileNotFoundError:
                continue
        return in_arrival_order(arrived)

    def held(self) -> list[str]:
        """The ids of all operations that are held back."""
        return sorted(self._ids(HELD))

    def refused(self) -> list[str]:
        """The ids of refused operations whose files are kept."""
        return sorted(self._ids(REFUSED))

    def read(self, operation_id: str) -> Operation | None:
        """A queued operation, ``None`` if it is gone.

        Raises ``OperationRefused`` or ``NewerOperation``.
        """
        try:
            operation = Operation.parse(self._storage.read(f"{INBOX}/{operation_id}.json"))
        except FileNotFoundError:
            return None
        if operation.id != operation_id:
            raise OperationRefused(f"{operation_id}: the file holds operation {operation.id}")
        if operation.kind == "publish":
            name = target_name(operation.path, operation.sha256)
            size = self._storage.size(name)
            if size != operation.length:
                found = "is not there" if size < 0 else f"has {size} bytes"
                raise OperationRefused(
                    f"{operation_id}: its content {found}, {operation.length} were announced"
                )
        return operation

    def done(self, operation_id: str) -> None:
        """Take an operation out of the queue."""
        self._storage.remove(f"{INBOX}/{operation_id}.json")

    def refuse(self, operation_id: str) -> None:
        """Take an operation out of the queue, keeping it for those who look for the cause."""
        self._storage.move(f"{INBOX}/{operation_id}.json", f"{REFUSED}/{operation_id}.json")

    def _ids(self, directory: str) -> list[str]:
        names = (os.path.splitext(name) for name in self._storage.names(directory))  # noqa: PTH122
        return [stem for stem, suffix in names if suffix == ".json" and is_id(stem)]


def busy(waiting: int, config: Config) -> LedgerBusy:
    """The refusal of one more operation, with the time after which to try again."""
    # A commit takes a batch in well under a second; more than that is no promise.
    seconds = float(max(1, -(-waiting // config.max_batch)))
    return LedgerBusy(
        f"{waiting} operations are waiting to be committed, the ledger queues at most "
        f"{config.queue_limit}",
        hint=f"nothing was queued; try again in {seconds:.0f} s. If that does not help, "
        "nobody commits: conforma ledger status says why",
        retry_after=seconds,
    )
