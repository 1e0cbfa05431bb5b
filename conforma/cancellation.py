"""One object that tells every thread of a run to stop, and when time is up.

It is made once per run and handed down. Waiting goes through :meth:`wait`, so
that Ctrl-C and ``--timeout`` end sleeps, queues and transfers alike.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from conforma.errors import DeadlineExceeded, Interrupted


class Cancellation:
    """A flag that is raised at most once, with an optional deadline.

    ``seconds`` is the time the whole run may take; ``None`` or a value that is
    not positive means no limit. ``label`` is how the limit was written (such
    as ``5m0s``) and appears in the message.
    """

    def __init__(self, seconds: float | None = None, *, label: str | None = None) -> None:
        self._event = threading.Event()
        # Re-entrant: a signal handler may cancel while its own thread registers a callback.
        self._lock = threading.RLock()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._next_key = 0
        self._label = label or f"{seconds:g}s" if seconds else ""
        self._deadline = time.monotonic() + seconds if seconds and seconds > 0 else None
        self._timer: threading.Timer | None = None
        if self._deadline is not None and seconds is not None:
            self._timer = threading.Timer(seconds, self._fire)
            self._timer.daemon = True
            self._timer.start()
        self._interrupted = False

    def cancel(self) -> None:
        """Ask everybody to stop, as Ctrl-C does. Calling it again changes nothing."""
        self._interrupted = True
        self._fire()

    def close(self) -> None:
        """Release the timer; the run is over."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def cancelled(self) -> bool:
        """Whether anybody asked to stop or the time is up."""
        return self._event.is_set() or self._expired()

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, never negative; ``None`` without one."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - time.monotonic())

    def wait(self, seconds: float) -> None:
        """Sleep, but wake and raise as soon as the run is to stop.

        Raises ``Interrupted`` or ``DeadlineExceeded``.
        """
        remaining = self.remaining
        self._event.wait(seconds if remaining is None else min(seconds, remaining))
        self.raise_if_cancelled()

    def raise_if_cancelled(self) -> None:
        """Raise ``Interrupted`` or ``DeadlineExceeded`` if the run is to stop."""
        if self._interrupted:
            raise Interrupted("interrupted")
        if self._event.is_set() or self._expired():
            raise DeadlineExceeded(
                f"exceeded allowed execution time of {self._label}, "
                "the timeout can be adjusted using the --timeout command line argument"
            )

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have ``callback`` called once when the run is to stop; returns the way to unregister.

        If the run is already to stop, it is called at once. It runs in the
        thread that cancels and must not block.
        """
        with self._lock:
            if not self._event.is_set():
                key = self._next_key
                self._next_key += 1
                self._callbacks[key] = callback
                return lambda: self._forget(key)
        callback()
        return lambda: None

    def _forget(self, key: int) -> None:
        with self._lock:
            self._callbacks.pop(key, None)

    def _expired(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _fire(self) -> None:
        with self._lock:
            self._event.set()
            callbacks = list(self._callbacks.values())
            self._callbacks.clear()
        failures: list[BaseException] = []
        for callback in callbacks:
            try:
                callback()
            except BaseException as failure:  # the others must still learn of it
                failures.append(failure)
        if failures:
            raise failures[0]
