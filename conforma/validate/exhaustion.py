"""What the machine had too little of, told from a bug.

Memory, threads, open files and disk space run out in the middle of anything.
That says nothing about the image, and the person can do something about it.
"""

from __future__ import annotations

import errno
from typing import Final

from conforma.errors import ResourcesExhausted

_FEWER: Final = "use fewer --workers"
_SHORTAGES: Final = {
    errno.EMFILE: ("too many open files", f"{_FEWER}, or raise the limit (ulimit -n)"),
    errno.ENFILE: ("the machine has too many open files", _FEWER),
    errno.ENOMEM: ("out of memory", _FEWER),
    # A thread needs a stack, so the limit of memory may be what it met.
    errno.EAGAIN: (
        "no more threads or processes",
        f"{_FEWER}, or raise the limits of processes (ulimit -u) and of memory (ulimit -v, ulimit -d)",
    ),
    errno.ENOSPC: ("no space left on device", "free some space, or move TMPDIR and --cache-dir"),
    errno.EDQUOT: ("disk quota exceeded", "free some space, or move TMPDIR and --cache-dir"),
}


def explained(cause: BaseException) -> ResourcesExhausted | None:
    """The error for a failure of the machine; ``None`` if ``cause`` is none, but a bug."""
    unmapped = isinstance(cause, ImportError) and "failed to map segment" in str(cause)
    if isinstance(cause, MemoryError) or unmapped:
        return _exhausted(*_SHORTAGES[errno.ENOMEM])
    if isinstance(cause, RuntimeError) and "start new thread" in str(cause):
        return _exhausted(*_SHORTAGES[errno.EAGAIN])
    if isinstance(cause, ImportError) and "cannot import name" in str(cause):
        # We waited for another thread that loaded the module and failed; that one says why.
        return _exhausted(f"{cause.name} could not be loaded", f"{_FEWER}, or raise the limits")
    if not isinstance(cause, OSError):
        return None
    reason, hint = _SHORTAGES.get(cause.errno or 0, (cause.strerror or str(cause), None))
    where = f"{cause.filename}: " if cause.filename else ""
    return _exhausted(f"{where}{reason[:1].lower()}{reason[1:]}", hint)


def _exhausted(message: str, hint: str | None) -> ResourcesExhausted:
    return ResourcesExhausted(message, hint=hint)
