"""What makes a directory fit to be a cache, checked once when it is opened."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from conforma.cache import fs
from conforma.cache.disk import VERSION
from conforma.errors import CacheUnusable


def prepare(directory: Path, before: fs.Step) -> tuple[Path, fs.FileSystem, bool]:
    """The versioned root below ``directory``, how to write there, and whether we may.

    A directory that belongs to a group and is setgid is shared within that
    group. Raises ``CacheUnusable`` for a directory that cannot be made or
    read, that is a symlink, or that everybody may write to without a sticky
    bit: whoever can exchange files there could exchange the evidence.
    """
    created = not os.path.lexists(directory)
    if created:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as cause:
            raise _unusable(directory, cause.strerror) from cause
    try:
        status = directory.lstat()
    except OSError as cause:
        raise _unusable(directory, cause.strerror) from cause
    if stat.S_ISLNK(status.st_mode):
        raise _unusable(directory, "it is a symbolic link")
    if not stat.S_ISDIR(status.st_mode):
        raise _unusable(directory, "it is not a directory")
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise _unusable(directory, "everybody may write to it")
    shared = bool(status.st_mode & stat.S_ISGID and status.st_mode & stat.S_IWGRP)
    files = fs.FileSystem(shared=shared, before=before)
    root = directory / VERSION
    writable = os.access(directory, os.W_OK | os.X_OK)
    if writable:
        try:
            files.make_directory(root)
        except OSError as cause:
            if cause.errno not in fs.TROUBLE | fs.ABSENT:
                raise
            writable = False
    try:
        if root.is_symlink():
            raise _unusable(root, "it is a symbolic link")
    except OSError as cause:  # a directory of somebody else, closed to us
        raise _unusable(directory, cause.strerror) from cause
    writable = writable and os.access(root, os.W_OK | os.X_OK)
    if not writable and not os.access(root, os.R_OK | os.X_OK):
        raise _unusable(directory, "we may neither write to it nor is there anything to read")
    return root, files, writable


def mode(root: Path, files: fs.FileSystem, *, writable: bool) -> str:
    """How the directory can be used, as the statistics show it."""
    if not writable:
        return "read-only"
    probe = root / "locks" / "probe"
    with contextlib.suppress(OSError):
        if not probe.exists():
            files.make_directory(probe.parent)
            os.close(files.create(probe))
    how = "read-write" if fs.locks_work(probe) else "read-write without locks"
    return f"{how}, without an index (network file system)" if fs.is_network(root) else how


def _unusable(directory: Path, why: str | None) -> CacheUnusable:
    return CacheUnusable(
        f"cannot use {directory} as a cache: {why}",
        hint="choose another directory with --cache-dir or EC_CACHE_DIR, or use --no-cache",
    )
