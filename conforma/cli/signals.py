"""Ctrl-C and SIGTERM ask the run to stop; a second one ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import IO, Final

from conforma.cancellation import Cancellation
from conforma.cli.gotypes import Duration
from conforma.errors import Interrupted

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


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
    # Python runs a handler in the main thread, between two of its instructions: too late
    # for one that has just begun to wait, and in the middle of locks that cancelling takes.
    # The number of the signal is written at once, whatever the main thread is doing.
    heard, told = os.pipe()
    os.set_blocking(told, False)
    threading.Thread(
        target=_listen, args=(heard, cancellation), name="signals", daemon=True
    ).start()
    earlier = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    before = {number: signal.signal(number, _heed) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(earlier)
        os.close(told)


def _heed(_number: int, _frame: FrameType | None) -> None:
    """Only a signal that has a handler is written to the wake-up descriptor."""


def _listen(heard: int, cancellation: Cancellation) -> None:
    with open(heard, "rb", buffering=0) as numbers:
        for earlier, _ in enumerate(_stops(numbers)):
            if earlier:
                os._exit(Interrupted.exit_status)
            cancellation.cancel()


def _stops(numbers: IO[bytes]) -> Iterator[int]:
    while number := numbers.read(1):
        if number[0] in _SIGNALS:
            yield number[0]
