"""diskcache without pickles.

diskcache runs code that it finds in its database (CVE-2025-69872), and reads
files that the database names. Our index holds short texts under text keys;
anything else in it was not written by us.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn

import diskcache
from diskcache.core import MODE_RAW, UNKNOWN

_LONGEST: Final = 4096


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
