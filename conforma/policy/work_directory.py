"""Directories to work in, which somebody removes even if their process is killed.

Each holds a file that its process keeps locked for life. The lock is the
kernel's and dies with the process, so whoever makes the next directory removes
those whose file is no longer locked. What has no such file, because its process
keeps it for people to look at or because it is another program's, is left alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

PREFIX: Final = "ec-work-"
"""How the names of these directories begin (specification section 3.4)."""
_MARK: Final = ".in-use"


class WorkDirectory:
    """A fresh, empty directory below ``TMPDIR``, at ``path``."""

    def __init__(self, *, keep: bool) -> None:
        """``keep``: it is to stay, and nobody is to remove it. Raises ``OSError``."""
        self.path = _fresh()
        self._keep = keep
        self._lock = -1 if keep else _marked(self.path)

    def remove(self) -> None:
        """Remove it with all that is in it, unless it is to stay; what resists is left."""
        if self._keep:
            return
        _remove(self.path)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def sweep() -> None:
    """Remove the directories that killed processes of this user left behind. Raises nothing."""
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX):
                with contextlib.suppress(OSError):
                    _remove_if_dead(entry)


def _remove_if_dead(entry: os.DirEntry[str]) -> None:
    if not entry.is_dir(follow_symlinks=False):
        return
    if entry.stat(follow_symlinks=False).st_uid != os.geteuid():
        return
    mark = Path(entry.path, _MARK)
    descriptor = os.open(mark, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Somebody else may have swept it, and its name been given away, since it was opened.
        if os.path.samestat(os.fstat(descriptor), mark.lstat()):
            _remove(Path(entry.path))
    finally:
        os.close(descriptor)


def _fresh() -> Path:
    """A new directory for nobody else, named with digits as the Go tool names its own.

    Errors of policies show the name, and who compares them looks for digits.
    """
    path = Path(tempfile.gettempdir(), f"{PREFIX}{int.from_bytes(os.urandom(8))}")
    path.mkdir(mode=0o700)
    return path


def _marked(directory: Path) -> int:
    """The open, locked file that says the directory is in use; -1 where there are no locks."""
    aside = directory / f"{_MARK}.new"
    descriptor = -1
    try:
        descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Under its name it is never seen unlocked while we live.
        aside.rename(directory / _MARK)
    except OSError:
        if descriptor >= 0:
            os.close(descriptor)
        return -1
    return descriptor


def _remove(directory: Path) -> None:
    """The mark goes last, so that whoever is killed within this leaves what can be swept."""
    with contextlib.suppress(OSError):
        for path in directory.iterdir():
            if path.name == _MARK:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
    shutil.rmtree(directory, ignore_errors=True)
