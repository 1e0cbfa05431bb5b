"""What a run has asked of registries, in numbers."""

from __future__ import annotations

import threading

from msgspec import Struct
from msgspec.structs import asdict


class RegistryStats(Struct, frozen=True):
    """Totals so far. Bytes are those of bodies; waits are in seconds, summed over threads."""

    requests: int = 0
    """Requests sent, repetitions and token requests included."""
    retries: int = 0
    tokens: int = 0
    remembered: int = 0
    """Questions answered from memory, without a request."""
    stored: int = 0
    """Questions answered with content of earlier runs."""
    unchanged: int = 0
    """Questions to which the registry answered that nothing has changed (304)."""
    joined: int = 0
    """Questions that waited for the same question of another thread."""
    mirrored: int = 0
    """Questions answered by a mirror."""
    received_bytes: int = 0
    sent_bytes: int = 0
    resumed: int = 0
    """Blob bodies that broke and were continued."""
    waited: float = 0.0
    """Pauses before repetitions and because a registry asked for them."""
    waited_limiter: float = 0.0
    """Waiting for the rate limit we keep ourselves to."""
    waited_lane: float = 0.0
    """Waiting until fewer requests to the server were under way."""
    waited_lock: float = 0.0
    """Waiting for another thread that asked the same, or met the registry first."""


class Meter:
    """Adds up from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: dict[str, float] = asdict(RegistryStats())

    def add(self, **amounts: float) -> None:
        """Add ``amounts`` to the fields of :class:`RegistryStats` they name."""
        with self._lock:
            totals = self._totals
            for name, amount in amounts.items():
                totals[name] += amount

    def snapshot(self) -> RegistryStats:
        """The totals at this moment."""
        with self._lock:
            return RegistryStats(**self._totals)  # type: ignore[arg-type]
