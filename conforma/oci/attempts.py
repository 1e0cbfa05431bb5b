"""How often one logical request was tried, and whether it may be tried again."""

from __future__ import annotations

from conforma.cancellation import Cancellation
from conforma.errors import ConformaError, RateLimited
from conforma.oci.meter import Meter
from conforma.oci.pool import Origin
from conforma.oci.retry import LONGEST_RETRY_AFTER, RetryPolicy
from conforma.oci.throttle import Throttle


class Attempts:
    """Counts one request's attempts; ``most`` overrides what the policy allows."""

    def __init__(
        self,
        policy: RetryPolicy,
        throttle: Throttle,
        cancellation: Cancellation,
        meter: Meter,
        most: int | None = None,
    ) -> None:
        self._policy = policy
        self._throttle = throttle
        self._cancellation = cancellation
        self._meter = meter
        self._most = most
        self.count = 0

    def failed(self, error: ConformaError, cause: Exception | None = None) -> None:
        """Return after a pause if another attempt is due, else raise ``error``."""
        if self.count >= self._limit(throttled=False):
            raise error from cause
        pause = self._policy.pause(max(self.count, 1))
        self._meter.add(waited=pause)
        self._cancellation.wait(pause)

    def throttled(self, error: RateLimited, asked: float | None, origin: Origin) -> None:
        """Close the host to everybody for the time it asked for, or raise ``error``."""
        remaining = self._cancellation.remaining
        longest = LONGEST_RETRY_AFTER if remaining is None else min(LONGEST_RETRY_AFTER, remaining)
        if asked is not None and asked > longest:
            raise RateLimited(
                f"{error.message}; it asks for a pause of {asked:.0f} s", hint=error.hint
            )
        self._throttle.close_for(origin, asked or self._policy.pause(self.count))
        if self.count >= self._limit(throttled=True):
            raise error

    def _limit(self, *, throttled: bool) -> int:
        return self._most or self._policy.attempts(throttled=throttled)
