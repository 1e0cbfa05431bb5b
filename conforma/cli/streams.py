"""The standard streams, which a process may be started without, and the files it may open."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Final

# Where select() still works, and more than any run of ours needs.
_ENOUGH_FILES: Final = 65536


def complete() -> None:
    """Put something in the place of each standard stream that was closed.

    Otherwise the next file or connection takes its number, and what is printed
    ends up there. Writing to a standard output that was closed fails, as it
    does for other programs; what goes to a closed standard error is lost.
    """
    for number, (name, mode, flags) in enumerate(
        (
            ("stdin", "r", os.O_RDONLY),
            ("stdout", "w", os.O_RDONLY),
            ("stderr", "w", os.O_WRONLY),
        )
    ):
        if getattr(sys, name) is not None:
            continue
        handle = os.open(os.devnull, flags)
        if handle != number:
            os.dup2(handle, number)
            os.close(handle)
        stream = open(number, mode, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)


def settle() -> None:
    """Print what is left, or forget it; the interpreter must not fail for it at its end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        forget_output()


def forget_output() -> None:
    """Drop what could not be printed, so that the interpreter does not try again at its end."""
    with suppress(OSError):
        handle = os.open(os.devnull, os.O_WRONLY)
        os.dup2(handle, 1)
        os.close(handle)


def allow_open_files() -> None:
    """Raise the limit of open files as far as we may, since desktops set a low one."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
