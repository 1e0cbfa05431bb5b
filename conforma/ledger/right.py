"""The commit right: a kernel lock that dies with its holder, waited for without polling.

filelock takes it when it is free. Who finds it taken waits in the kernel, on
a descriptor of the same file, and wakes when the holder releases it or dies.
That the right may be lost without noticing (network file systems, a removed
lock file) is not its business: claims take care of that.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from conforma.errors import LedgerError

_waiting: weakref.WeakSet[CommitRight] = weakref.WeakSet()


class CommitRight:
    """The right to commit to one ledger. One holder at a time, over threads and processes."""

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        self._path = path
        self._mode = 0o664 if shared else 0o644
        self._release: Callable[[], None] | None = None
        self._descriptor = -1
        _waiting.add(self)

    def acquire(self) -> None:
        """Take the right, waiting as long as somebody else has it. Raises ``LedgerError``."""
        lock = FileLock(self._path, mode=self._mode, thread_local=False)
        try:
            lock.acquire(blocking=False)
            self._release = lock.release
        except Timeout:
            self._release = self._wait()
        except (OSError, NotImplementedError) as cause:
            raise LedgerError(
                f"{self._path}: cannot be locked: {cause}",
                hint="a ledger needs a file system with locks",
            ) from cause

    def release(self) -> None:
        """Give the right back; nothing happens if it is not held."""
        release, self._release = self._release, None
        if release is not None:
            with contextlib.suppress(OSError):
                release()

    def _wait(self) -> Callable[[], None]:
        while True:
            try:
                self._descriptor = os.open(
                    self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, self._mode
                )
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
                if self._is_current():
                    return self.close_descriptor
            except OSError as cause:
                self.close_descriptor()
                raise LedgerError(f"{self._path}: {cause.strerror}") from cause
            self.close_descriptor()

    def _is_current(self) -> bool:
        """Whether the path still names the file that we locked."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def close_descriptor(self) -> None:
        """Close the descriptor that was waited on, which releases its lock."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _forget_in_child() -> None:
    """A forked child must not keep its parent's lock alive."""
    for right in list(_waiting):
        right.close_descriptor()


os.register_at_fork(after_in_child=_forget_in_child)
