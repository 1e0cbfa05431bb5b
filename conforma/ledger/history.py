"""What became of each operation: a record for every commit, read backwards.

The record is made before the switch and names the commit before it, so the
published timestamp leads to exactly those records that count. An operation
whose id is in one of them is never applied again.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import asdict

from conforma.ledger.config import COMMITS
from conforma.ledger.state import Head
from conforma.ledger.storage import Storage

PUBLISHED: Final = ""


class Record(Struct, frozen=True):
    """One commit: outcome per operation, empty text if it was published, else why not.

    ``seconds`` is how long it took until its switch.
    """

    version: int
    claim: str
    previous: str
    time: float
    seconds: float
    outcomes: Mapping[str, str]

    @classmethod
    def parse(cls, raw: bytes) -> Record:
        """Read a record. Raises ``ValueError``."""
        try:
            document: Any = json.loads(raw)
            return cls(
                version=int(document["version"]),
                claim=str(document["claim"]),
                previous=str(document["previous"]),
                time=float(document["time"]),
                seconds=float(document["seconds"]),
                outcomes=dict(document["outcomes"]),
            )
        except (KeyError, TypeError) as cause:
            raise ValueError(str(cause)) from cause

    def render(self) -> bytes:
        """The file."""
        return json.dumps(asdict(self) | {"outcomes": dict(self.outcomes)}).encode()

    @property
    def name(self) -> str:
        """Where the record is."""
        return record_name(self.version, self.claim)


def record_name(version: int, claim: str) -> str:
    """Where the record of a commit is."""
    return f"{COMMITS}/{version:010d}.{claim}.json"


class Outcome(Struct, frozen=True):
    """``reason`` is empty if the operation is in the snapshot of ``version``."""

    version: int
    reason: str


class History:
    """The outcomes this process has read so far. Safe to share between threads."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._lock = threading.Lock()
        self._outcomes: dict[str, Outcome] = {}
        self._newest = 0
        self._oldest: tuple[int, str] | None = None  # the next record further back
        self._reached = float("inf")

    def learn(self, head: Head) -> Record | None:
        """Read what was committed since the last time; the newest record."""
        with self._lock:
            version, claim = head.version, head.claim
            newest: Record | None = None
            while version > self._newest:
                record = self._read(version, claim)
                if record is None:
                    break
                newest = newest or record
                self._take(record)
                version, claim = version - 1, record.previous
                if not self._newest:
                    self._oldest = (version, claim)
                    break
            self._newest = max(self._newest, head.version)
            return newest

    def add(self, record: Record) -> None:
        """Take over the record of a commit that this process made."""
        with self._lock:
            if self._newest == record.version - 1 or not self._newest:
                if self._oldest is None:
                    self._oldest = (record.version - 1, record.previous)
                self._take(record)
                self._newest = record.version

    def reach(self, moment: float) -> None:
        """Read back to records that are older than ``moment`` (seconds since 1970)."""
        with self._lock:
            while self._oldest is not None and self._reached >= moment:
                record = self._read(*self._oldest)
                if record is None:
                    self._oldest = None
                    return
                self._take(record)
                self._oldest = (record.version - 1, record.previous)

    def get(self, operation_id: str) -> Outcome | None:
        """What became of an operation, as far as was read."""
        with self._lock:
            return self._outcomes.get(operation_id)

    def _read(self, version: int, claim: str) -> Record | None:
        try:
            return Record.parse(self._storage.read(record_name(version, claim)))
        except (FileNotFoundError, ValueError):
            return None  # collected, or the ledger began here

    def _take(self, record: Record) -> None:
        self._reached = min(self._reached, record.time)
        for operation_id, reason in record.outcomes.items():
            self._outcomes.setdefault(operation_id, Outcome(record.version, reason))
