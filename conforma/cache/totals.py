"""What a cache directory has been worth: the counts of all runs that used it, added up.

A run adds its counts once, when it ends, in one transaction; so the sum is
exact for runs that ended by themselves. What a killed run had counted is lost.
"""

from __future__ import annotations

import json
from typing import Self

from msgspec import Struct
from msgspec.structs import asdict

from conforma.cache.stats import CacheStats


class Totals(Struct, frozen=True):
    """Sums over runs. ``since`` is when the first of them ended, in seconds since the epoch.

    ``hits`` are demands that cost no transfer of their own, ``misses`` all
    others; ``transfers`` and ``network_bytes`` came from registries,
    ``saved_bytes`` would have come as well without the cache.
    """

    since: float = 0.0
    runs: int = 0
    hits: int = 0
    misses: int = 0
    transfers: int = 0
    network_bytes: int = 0
    saved_bytes: int = 0

    @property
    def hit_rate(self) -> float | None:
        """The share of demands that were hits, from 0 to 1; ``None`` before the first demand."""
        demands = self.hits + self.misses
        return self.hits / demands if demands else None

    @classmethod
    def of(cls, before: CacheStats, after: CacheStats, now: float) -> Self:
        """What one run counted between two looks at its counters."""
        return cls(
            since=now,
            runs=1,
            hits=after.hits + after.coalesced - before.hits - before.coalesced,
            misses=after.leaders + after.pass_through - before.leaders - before.pass_through,
            transfers=after.transfers - before.transfers,
            network_bytes=after.network_bytes - before.network_bytes,
            saved_bytes=after.saved_bytes - before.saved_bytes,
        )

    def plus(self, other: Self) -> Self:
        """Both together."""
        sums = {name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__}
        return type(self)(**{**sums, "since": self.since or other.since})

    def as_text(self) -> str:
        """The form in which it is stored."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: object) -> Self:
        """From the stored form; what is damaged counts as nothing."""
        try:
            members = json.loads(text) if isinstance(text, str) else {}
            counts = {n: int(members[n]) for n in cls.__struct_fields__ if n != "since"}
            return cls(since=float(members["since"]), **counts)
        except (ValueError, TypeError, KeyError):
            return cls()
