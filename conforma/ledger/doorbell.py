"""How those who wait for a commit hear of it: a named pipe each, rung after the switch.

A ring says only "look". It is a courtesy: whoever misses it, on another
machine or because the bell was not hung yet, learns the same when the commit
right comes to it, for which every waiting publisher queues in any case.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
from collections.abc import Callable
from pathlib import Path

from conforma.ledger.config import DOORBELLS


class Doorbell:
    """One waiting publisher's bell; ``answer`` is called after every ring, in a thread."""

    def __init__(self, root: Path, name: str, answer: Callable[[], None]) -> None:
        self._path = root / DOORBELLS / name
        self._answer = answer
        self._bell = -1
        self._thread: threading.Thread | None = None
        self._stop, self._stopper = os.pipe()

    def hang(self) -> bool:
        """Begin to listen; whether this file system has named pipes."""
        aside = self._path.with_suffix(".new")
        try:
            os.mkfifo(aside, 0o622)
            # Opened before it has its name, so that no ringer finds it without a listener.
            self._bell = os.open(aside, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            aside.rename(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                aside.unlink()
            return False
        thread = threading.Thread(target=self._listen, name="conforma-doorbell", daemon=True)
        thread.start()
        self._thread = thread
        return True

    def take_down(self) -> None:
        """Stop listening and remove the pipe."""
        os.close(self._stopper)
        if self._thread is not None:
            self._thread.join()
        os.close(self._stop)
        if self._bell >= 0:
            with contextlib.suppress(OSError):
                self._path.unlink()
            os.close(self._bell)

    def _listen(self) -> None:
        poller = select.poll()
        poller.register(self._bell, select.POLLIN)
        poller.register(self._stop, select.POLLIN | select.POLLHUP)
        while True:
            ready = {descriptor for descriptor, _ in poller.poll()}
            if self._stop in ready:
                return
            with contextlib.suppress(BlockingIOError):
                os.read(self._bell, 4096)
            self._answer()


def ring_all(root: Path, *, but: str = "") -> None:
    """Ring every bell except our own; those whose listener is dead are removed."""
    directory = root / DOORBELLS
    try:
        names = [entry.name for entry in os.scandir(directory)]
    except OSError:
        return
    for name in names:
        if name == but or name.endswith(".new"):
            continue
        path = directory / name
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno == errno.ENXIO:
                with contextlib.suppress(OSError):
                    path.unlink()
            continue
        try:
            os.write(descriptor, b"!")
        except OSError:
            pass  # full: it has been rung often enough, or its listener has just gone
        finally:
            os.close(descriptor)
