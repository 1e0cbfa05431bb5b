"""A host that said "too many requests" is left alone by everybody until it asked for.

After the pause one request goes first; the others follow once it was let in.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from conforma.cancellation import Cancellation
from conforma.oci.meter import Meter
from conforma.oci.pool import Origin


@dataclass(slots=True)
class _Gate:
    opens_at: float
    probing: bool = False


class Throttle:
    """The closed gates by host. Thread safe."""

    def __init__(self, cancellation: Cancellation, meter: Meter) -> None:
        self._cancellation = cancellation
        self._meter = meter
        # Reentrant: cancelling may happen in a signal handler.
        self._changed = threading.Condition(threading.RLock())
        self._gates: dict[Origin, _Gate] = {}

    def wait(self, origin: Origin, *, nested: bool) -> None:
        """Return when a request to ``origin`` may go; call :meth:`answered` afterwards.

        A ``nested`` request is made for the sake of another, perhaps the very
        one that goes first, so it waits for the pause and for nobody else.
        Raises ``Interrupted`` or ``DeadlineExceeded`` if the run is to stop first.
        """
        if origin not in self._gates:
            return
        started = time.monotonic()
        unregister = self._cancellation.on_cancel(self._wake)
        try:
            while not self._may_pass(origin, nested):
                pass
        finally:
            unregister()
            self._meter.add(waited=time.monotonic() - started)

    def _may_pass(self, origin: Origin, nested: bool) -> bool:
        self._cancellation.raise_if_cancelled()
        with self._changed:
            gate = self._gates.get(origin)
            if gate is None:
                return True
            left = gate.opens_at - time.monotonic()
            if left <= 0 and (nested or not gate.probing):
                gate.probing = True
                return True
            self._changed.wait(left if left > 0 else None)
            return False

    def close_for(self, origin: Origin, seconds: float) -> None:
        """Let nobody through for so long."""
        with self._changed:
            until = time.monotonic() + seconds
            gate = self._gates.setdefault(origin, _Gate(until))
            gate.opens_at = max(gate.opens_at, until)
            gate.probing = False
            self._changed.notify_all()

    def answered(self, origin: Origin) -> None:
        """A request came through, or failed in another way: the gate stays open."""
        if origin in self._gates:
            with self._changed:
                gate = self._gates.get(origin)
                if gate is not None and gate.probing:
                    del self._gates[origin]
                self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
