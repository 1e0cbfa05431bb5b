"""diskcache without pickles.

diskcache runs code that it finds in its database (CVE-2025-69872), and reads
files that the database names. Our index holds short texts under text keys;
anything else in it was not written by us.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Any, Final, NoReturn

import diskcache
from diskcache.core import MODE_RAW, UNKNOWN

from conforma.cache.fs import is_network

_LONGEST: Final = 4096
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
"""The last is what a database says that has other tables."""


def opened(directory: Path, **settings: Any) -> Any:
    """The database in ``directory``, which is made if need be.

    Raises what diskcache raises, and ``OSError`` where a symlink stands: who shares the
    cache could have us write to another database with it, or over another file (LC-26);
    also on a network file system, where its write-ahead log cannot be shared and two
    machines would damage it (sqlite.org/wal.html, "Disadvantages").
    """
    if is_network(directory.parent):
        raise OSError(errno.EOPNOTSUPP, "no database on a network file system", str(directory))
    for path in (directory, *directory.glob("cache.db*")):
        if path.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return diskcache.Cache(str(directory), disk=TextDisk, timeout=1, statistics=0, **settings)


def is_damaged(error: Exception) -> bool:
    """Whether the database itself is at fault, not what it was opened with: a full disk passes."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, sqlite3.Error) and code is not None and code & 0xFF in _DAMAGED


class TextDisk(diskcache.Disk):  # type: ignore[misc]
    """Stores texts in the database itself, and refuses everything else both ways."""

    def put(self, key: object) -> tuple[str, bool]:
        """The database form of a key. Raises ``TypeError`` unless it is text."""
        return _text(key), True

    def get(self, key: object, raw: object) -> str:
        """A key from its database form. Raises ``TypeError`` unless it is text."""
        if not raw:
            _refuse(key)
        return _text(key)

    def store(self, value: object, read: bool, key: object = UNKNOWN) -> tuple[int, int, None, str]:
        """The database form of a value. Raises ``TypeError`` unless it is text."""
        del key  # only files would be named after it
        if read:
            _refuse(value)
        return 0, MODE_RAW, None, _text(value)

    def fetch(self, mode: int, filename: object, value: Any, read: bool) -> str:
        """A value from its database form. Raises ``TypeError`` for what we did not store."""
        if mode != MODE_RAW or filename is not None or read:
            _refuse(value)
        return _text(value)


def _text(value: object) -> str:
    if type(value) is not str or len(value) > _LONGEST:
        _refuse(value)
    return value


def _refuse(value: object) -> NoReturn:
    raise TypeError(f"the cache's index holds short texts, not {type(value).__name__}")
