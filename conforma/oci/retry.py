"""When a request is repeated and how long we wait: arithmetic only, no clock, no socket.

This is the one place that knows which failures pass. Nothing else in the
program repeats a request.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

TRANSIENT: Final = frozenset({408, 500, 502, 503, 504})
"""Statuses after which the same request may succeed; 429 has its own rule."""
# Hammering a server that is down prolongs the outage (RC-6).
_MOST_ATTEMPTS_AT_OUTAGE: Final = 3
# A registry that asks for more than this has closed for the run. Seconds.
LONGEST_RETRY_AFTER: Final = 60.0


class RetryPolicy(Struct, frozen=True):
    """The ``--retry-*`` options. Times in seconds; ``max_retry`` counts repetitions."""

    max_wait: float = 3.0
    max_retry: int = 3
    duration: float = 1.0
    factor: float = 2.0
    jitter: float = 0.1

    def attempts(self, *, throttled: bool) -> int:
        """How often a request may be sent in total."""
        attempts = 1 + max(self.max_retry, 0)
        return attempts if throttled else min(attempts, _MOST_ATTEMPTS_AT_OUTAGE)

    def pause(self, failures: int) -> float:
        """How long to wait after so many failures in a row (1 or more)."""
        base = self.duration * self.factor ** (failures - 1)
        # Only upwards: a second is promised between attempts.
        spread = 1.0 + random.uniform(0.0, max(self.jitter, 0.0))  # noqa: S311
        return max(0.0, min(base * spread, self.max_wait))


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds a ``Retry-After`` header asks for (RFC 9110, 10.2.3); ``None`` without a usable one."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())
