"""What the cache did in this run, as numbers that agree with the registry's log.

Invariant at rest: ``requests == hits + leaders + coalesced + pass_through``.
"""

from __future__ import annotations

import threading
from typing import Literal

from msgspec import Struct

Outcome = Literal["hits", "leaders", "coalesced", "pass_through"]


class CacheStats(Struct, frozen=True):
    """A snapshot of the counters.

    ``requests``: demands for a view of a layer; each ends as exactly one of
    ``hits`` (was there), ``leaders`` (this demand moved the bytes),
    ``coalesced`` (another thread or process moved them meanwhile) and
    ``pass_through`` (moved, but could not be stored). ``network_bytes`` came
    from upstream, ``resumed_bytes`` were saved by continuing a dead download,
    ``disk_bytes`` were published. ``lock_wait`` is in seconds.
    """

    requests: int = 0
    hits: int = 0
    leaders: int = 0
    coalesced: int = 0
    pass_through: int = 0
    followers: int = 0
    derived: int = 0
    transfers: int = 0
    network_bytes: int = 0
    saved_bytes: int = 0
    resumed_bytes: int = 0
    disk_bytes: int = 0
    evictions: int = 0
    quarantines: int = 0
    takeovers: int = 0
    lock_wait: float = 0.0
    mode: str = "read-write"


class Counters:
    """The running totals behind :class:`CacheStats`; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, float] = dict.fromkeys(
            (name for name in CacheStats.__struct_fields__ if name != "mode"), 0
        )

    def add(self, name: str, amount: float = 1) -> None:
        """Raise one counter."""
        with self._lock:
            self._values[name] += amount

    def finish(self, outcome: Outcome) -> None:
        """Count one demand together with how it ended, so that the sum always holds."""
        with self._lock:
            self._values["requests"] += 1
            self._values[outcome] += 1

    def recount(self, counted: Outcome, found: Outcome) -> None:
        """A demand that was counted as one outcome ended as another."""
        with self._lock:
            self._values[counted] -= 1
            self._values[found] += 1

    def snapshot(self, mode: str) -> CacheStats:
        """All counters at one moment."""
        with self._lock:
            values = dict(self._values)
        lock_wait = values.pop("lock_wait")
        return CacheStats(
            **{name: int(value) for name, value in values.items()}, lock_wait=lock_wait, mode=mode
        )
