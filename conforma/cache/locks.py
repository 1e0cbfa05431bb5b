"""A lock for each entry across processes, and a note of how its last attempt ended.

The lock is the kernel's, so it dies with its holder, however it dies; filelock
also closes it in forked children. It is an optimisation: where locks do not
work, two processes may fetch the same entry, and both are right.

The lock file holds one line of JSON about the current attempt. Whoever waited
while an attempt ran, and finds it marked as failed, shares the failure instead
of repeating it; whoever comes later starts a new attempt.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct
from msgspec.structs import asdict

from conforma import errors
from conforma.cache.disk import Key, LayerStore
from conforma.errors import ConformaError, IntegrityError, RegistryError

if TYPE_CHECKING:
    from filelock import BaseFileLock

_LONGEST_NOTE: Final = 4096


class Note(Struct, frozen=True):
    """What the lock file says: an attempt, and the failure it ended with, if it did."""

    attempt: str
    origin: str = ""
    kind: str = ""
    message: str = ""
    hint: str | None = None

    @property
    def failed(self) -> bool:
        """Whether the attempt is over and failed."""
        return bool(self.kind)

    def error(self) -> ConformaError:
        """The failure, as an error of the same class as in the process that met it."""
        cls = getattr(errors, self.kind, None)
        if not (isinstance(cls, type) and issubclass(cls, ConformaError)):
            cls = RegistryError
        error: ConformaError = cls(self.message, hint=self.hint)
        error.add_note("met by another process that was fetching it for us as well")
        return error


class EntryLock:
    """The right to produce one entry. Not shared between threads."""

    def __init__(self, store: LayerStore, key: Key) -> None:
        self._init(
            store, store.root / "locks" / f"{key.area}-{key.algorithm}" / key.hex[:2] / key.hex
        )

    @classmethod
    def named(cls, store: LayerStore, name: str) -> EntryLock:
        """A lock that belongs to the directory and to no entry."""
        lock = cls.__new__(cls)
        lock._init(store, store.root / "locks" / name)
        return lock

    def _init(self, store: LayerStore, path: Path) -> None:
        self._path = path
        self._store = store
        self._lock: BaseFileLock | None = None
        self._attempt = ""

    def try_acquire(self) -> bool:
        """Take the lock if it is free. Where there are no locks, everybody gets it."""
        from filelock import FileLock, Timeout

        try:
            self._store.files.make_directory(self._path.parent)
            lock = FileLock(
                self._path,
                mode=self._store.files.file_mode,
                thread_local=False,
                fallback_to_soft=False,
            )
            lock.acquire(blocking=False)
        except Timeout:
            return False
        except (OSError, NotImplementedError):
            return True
        self._lock = lock
        return True

    def begin(self, origin: str) -> None:
        """Announce a new attempt to those who wait."""
        self._attempt = secrets.token_hex(8)
        self._write(Note(self._attempt, origin))

    def fail(self, error: BaseException, origin: str) -> None:
        """Leave a failure for those who waited. Only what is true for them, too, is told."""
        if isinstance(error, RegistryError | IntegrityError):
            # A kind that only this package knows is told as the public one it is.
            kind = next(c.__name__ for c in type(error).__mro__ if c.__module__ == errors.__name__)
            self._write(Note(self._attempt, origin, kind, error.message, error.hint))

    def note(self) -> Note | None:
        """What the lock file says now; ``None`` if nothing that can be understood."""
        # Whatever somebody has put there, it is looked at without waiting.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(self._path, flags)
            try:
                text = os.read(descriptor, _LONGEST_NOTE)
            finally:
                os.close(descriptor)
            fields: dict[str, Any] = json.loads(text)
            return Note(**fields)
        except (OSError, ValueError, TypeError):
            return None

    def release(self) -> None:
        """Give the lock back; nothing happens if it is not held."""
        lock, self._lock = self._lock, None
        if lock is not None:
            with contextlib.suppress(OSError):
                lock.release()

    def _write(self, note: Note) -> None:
        if self._lock is None:
            return
        document = asdict(note)
        document["message"] = note.message[: _LONGEST_NOTE // 4]
        text = json.dumps(document).encode()
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, text, 0)
        except OSError:
            pass  # a note is a courtesy; without it others try for themselves
        finally:
            os.close(descriptor)
