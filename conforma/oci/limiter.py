"""A rate we keep ourselves to for a registry, whoever in this machine asks it.

A token bucket written as one number, the moment at which the bucket will be
full again (the generic cell rate algorithm): each request books its slot and
then sleeps until it, so requests go in the order in which they came.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from msgspec import Struct

from conforma.errors import BadReference, InputError
from conforma.oci.reference import DEFAULT_REGISTRY, Reference
from conforma.oci.shared_state import Fact, SharedState

EVERYBODY: Final = "*"
"""The name under which a rate for every other registry is given."""


class Rate(Struct, frozen=True):
    """So many requests a minute, and so many at once after a quiet time."""

    per_minute: float
    burst: int

    @classmethod
    def parse(cls, text: str) -> tuple[str, Rate]:
        """Read ``REGISTRY=PER_MINUTE[/BURST]``; the burst is a minute's worth if it is left out.

        Raises ``InputError``.
        """
        registry, _, numbers = text.partition("=")
        per_minute, slash, burst = numbers.partition("/")
        try:
            rate = cls(float(per_minute), int(burst) if slash else max(1, int(float(per_minute))))
            if registry != EVERYBODY:
                registry = Reference.parse(f"{registry}/x/x").registry
        except (ValueError, OverflowError, BadReference):
            rate = cls(-1.0, 0)
        if not 0 <= rate.per_minute < 1e9 or not 1 <= rate.burst < 10**9:
            raise InputError(
                f"{text[:200]!r} is no rate for a registry",
                hint="write it as REGISTRY=PER_MINUTE or REGISTRY=PER_MINUTE/BURST, as docker.io=100/50; "
                f"{EVERYBODY} stands for every other registry and 0 for no limit",
            )
        return registry, rate

    @property
    def spacing(self) -> float:
        """Seconds between two requests in the long run."""
        return 60.0 / self.per_minute


# Docker Hub's most careful large user settled on this rate after years of
# measuring (prior-art.md, 4.3). Its quota of pulls is another matter: it counts
# over six hours and for everybody behind an address, so no rate of ours can keep
# it, and the registry says 429 when it is used up. No other registry has said
# what it bears.
DEFAULT_RATES: Final[Mapping[str, Rate]] = {DEFAULT_REGISTRY: Rate(300, 300)}


def rates_of(texts: Iterable[str]) -> dict[str, Rate]:
    """The rates to keep: what is asked for, by registry, and the defaults for the others.

    A rate for everybody else replaces the defaults as well. Raises ``InputError``.
    """
    asked = dict(Rate.parse(text) for text in texts)
    return asked if EVERYBODY in asked else {**DEFAULT_RATES, **asked}


class Limiter:
    """Books slots. Thread safe; ``sleep`` is called without any lock."""

    def __init__(
        self,
        rates: Mapping[str, Rate],
        state: SharedState,
        sleep: Callable[[float], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._rates = rates
        self._state = state
        self._sleep = sleep
        self._now = now

    def take(self, registry: str) -> float:
        """Return when a request for the sake of ``registry`` may go, and how long that took."""
        if not self._rates:
            return 0.0
        rate = self._rate(registry)
        if rate is None:
            return 0.0
        booked = self._state.change(registry, lambda fact: _booked(fact, rate, self._now()))
        assert booked is not None
        wait = booked["slot"] - self._now()
        if wait <= 0:
            return 0.0
        self._sleep(wait)
        return wait

    def drain(self, registry: str) -> None:
        """The registry says that it is too much: nothing is left of the burst."""
        rate = self._rate(registry)
        if rate is not None:
            full = self._now() + rate.burst * rate.spacing
            self._state.change(registry, lambda f: {**f, "full": max(f.get("full", 0.0), full)})

    def _rate(self, registry: str) -> Rate | None:
        rate = self._rates.get(registry) or self._rates.get(EVERYBODY)
        return rate if rate is not None and rate.per_minute > 0 else None


def _booked(fact: Fact, rate: Rate, now: float) -> Fact:
    """The next free slot, booked. ``full`` is when the bucket would be full if nobody came."""
    depth = rate.burst * rate.spacing
    full = max(fact.get("full", 0.0), now)
    if full > now + 3600.0 + depth:  # the clock was set back; nobody books an hour ahead
        full = now
    return {"full": full + rate.spacing, "slot": max(now, full + rate.spacing - depth)}
