"""A host that said "too many requests" is left alone by everybody until it asked for.

Everybody means all threads, and all processes that share the state directory.
After the pause one request goes first; the others follow once it was let in.
A host that keeps refusing for longer than the budget is given up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from conforma.cancellation import Cancellation
from conforma.errors import RateLimited
from conforma.oci.meter import Meter
from conforma.oci.pool import Origin
from conforma.oci.shared_state import Fact, SharedState

# Other processes do not wake us; seconds between two looks.
_LOOK: Final = 0.1
# Who goes first and dies must not keep the host closed for good. Seconds.
_PROBE: Final = 30.0
# A closed host is asked for again after this, whatever the file says: clocks jump.
_LONGEST: Final = 120.0


class Throttle:
    """The closed hosts. Thread safe. ``budget`` is in seconds."""

    def __init__(
        self,
        cancellation: Cancellation,
        meter: Meter,
        state: SharedState,
        budget: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._cancellation = cancellation
        self._meter = meter
        self._state = state
        self._budget = budget
        self._now = now
        # Reentrant: cancelling may happen in a signal handler.
        self._changed = threading.Condition(threading.RLock())

    def wait(self, origin: Origin, *, nested: bool) -> tuple[bool, float]:
        """Return when a request to ``origin`` may go: whether it goes first, and seconds waited.

        After the answer to a request that went first, call :meth:`answered`.

        A ``nested`` request is made for the sake of another, perhaps the very
        one that goes first, so it waits for the pause and for nobody else.
        Raises ``RateLimited`` for a host that was given up, ``Interrupted`` or
        ``DeadlineExceeded`` if the run is to stop first.
        """
        if self._state.get(_name(origin)) is None:
            return False, 0.0
        started = time.monotonic()
        unregister = self._cancellation.on_cancel(self._wake)
        try:
            while True:
                may_pass, first = self._may_pass(origin, nested)
                if may_pass:
                    return first, time.monotonic() - started
        finally:
            unregister()
            self._meter.add(waited=time.monotonic() - started)

    def _may_pass(self, origin: Origin, nested: bool) -> tuple[bool, bool]:
        self._cancellation.raise_if_cancelled()
        with self._changed:
            now = self._now()
            closed = self._state.get(_name(origin))
            if closed is None or "until" not in closed or closed["until"] - now > _LONGEST:
                return True, False
            left = closed["until"] - now
            if left <= 0 and nested:
                return True, False
            if left <= 0 and self._goes_first(origin):
                return True, True
            self._give_up(origin, closed, now)
            if left <= 0:
                left = _LOOK
            elif self._state.is_shared:
                left = min(left, _LOOK)
            self._changed.wait(left)
            return False, False

    def _goes_first(self, origin: Origin) -> bool:
        """Whether this request is the one that goes; at most one is, in all processes."""
        chosen = False

        def choose(closed: Fact) -> Fact | None:
            nonlocal chosen
            now = self._now()
            if "until" not in closed:
                chosen = True
                return None
            if closed["until"] > now or now < closed.get("probe", 0.0) <= now + _PROBE:
                return closed
            chosen = True
            return {**closed, "probe": now + _PROBE}

        # Looking costs less than asking, and most who wait are not chosen.
        closed = self._state.get(_name(origin)) or {}
        if self._now() < closed.get("probe", 0.0) <= self._now() + _PROBE:
            return False
        self._state.change(_name(origin), choose)
        return chosen

    def _give_up(self, origin: Origin, closed: Fact, now: float) -> None:
        refusing = now - closed.get("since", now)
        if refusing > self._budget:
            raise RateLimited(
                f"{origin.host}: too many requests: it has refused them for {refusing:.0f} s",
                hint="the registry limits requests; log in, ask for less at once, or try later",
            )

    def close_for(self, origin: Origin, seconds: float) -> None:
        """Let nobody through for so long."""

        def close(closed: Fact) -> Fact:
            now = self._now()
            until = max(closed.get("until", 0.0), now + seconds)
            return {"until": until, "since": closed.get("since", now)}

        with self._changed:
            self._state.change(_name(origin), close)
            self._changed.notify_all()

    def answered(self, origin: Origin) -> None:
        """The request that went first came through, or failed in another way: all may go.

        If it was refused again, the host stays closed.
        """

        def open_again(closed: Fact) -> Fact | None:
            return closed if closed.get("until", 0.0) > self._now() else None

        with self._changed:
            self._state.change(_name(origin), open_again)
            self._changed.notify_all()

    def is_closed(self, origin: Origin) -> bool:
        """Whether somebody was told to wait, and nobody was let in since."""
        return self._state.get(_name(origin)) is not None

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _name(origin: Origin) -> str:
    return f"{origin.host}_{origin.port}"
