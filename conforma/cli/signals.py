"""Ctrl-C and SIGTERM ask the run to stop; a second one ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from conforma.cancellation import Cancellation
from conforma.cli.gotypes import Duration
from conforma.errors import Interrupted

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_LONGEST_WAIT: Final = 1.0


@contextmanager
def run_until_told(timeout: Duration | None) -> Iterator[Cancellation]:
    """The cancellation of a run, which signals raise and ``--timeout`` limits, unless ``None``."""
    limit = None if timeout is None else float(timeout)
    cancellation = Cancellation(limit, label=str(timeout))
    try:
        with stopping_on_signals(cancellation):
            yield cancellation
    finally:
        cancellation.close()


@contextmanager
def stopping_on_signals(cancellation: Cancellation) -> Iterator[None]:
    """While inside, SIGINT and SIGTERM cancel; outside the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def stop(_signum: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            os._exit(Interrupted.exit_status)
        asked = True
        # A handler interrupts the main thread anywhere, even inside the locks
        # that cancelling takes; another thread can wait for them.
        threading.Thread(target=cancellation.cancel, name="cancel", daemon=True).start()

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_for(stop: threading.Event) -> None:
    """Wait, in the main thread, for what a signal sets.

    Python handles a signal between two of its instructions. One that comes
    after the last of them and before a wait begins would be handled when that
    ends, so there is none without an end.
    """
    while not stop.wait(_LONGEST_WAIT):
        pass
