"""What a run has asked of registries, in numbers."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class RegistryStats:
    """Totals so far. Bytes are those of bodies; ``waited`` is in seconds."""

    requests: int = 0
    """Requests sent, repetitions and token requests included."""
    retries: int = 0
    tokens: int = 0
    remembered: int = 0
    """Questions answered from memory, without a request."""
    received_bytes: int = 0
    sent_bytes: int = 0
    resumed: int = 0
    """Blob bodies that broke and were continued."""
    waited: float = 0.0
    """Pauses before repetitions and because a registry asked for them."""


class Meter:
    """Adds up from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stats = RegistryStats()

    def add(self, **amounts: float) -> None:
        """Add ``amounts`` to the fields of :class:`RegistryStats` they name."""
        with self._lock:
            current = self._stats
            self._stats = replace(
                current, **{name: getattr(current, name) + n for name, n in amounts.items()}
            )

    def snapshot(self) -> RegistryStats:
        """The totals at this moment."""
        with self._lock:
            return self._stats
