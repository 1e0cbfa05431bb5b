"""Copies of file trees that hold nothing but files and directories.

Sources are untrusted or at least somebody else's, and what reads them later
follows links. So links are replaced by what they point to, and one that
points out of its source is refused.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Final

from conforma.cancellation import Cancellation
from conforma.errors import PolicyError, TooLarge, UnsafeArchive

MOST_BYTES: Final = 1 << 30
MOST_FILES: Final = 100_000
_DEEPEST: Final = 100


class Allowance:
    """How much one source may still hold: ``MOST_BYTES`` and ``MOST_FILES`` at first.

    Directories count as files do, or links to directories could make a tree
    without end out of a few entries.
    """

    def __init__(self) -> None:
        self._bytes = 0
        self._entries = 0

    def entry(self, what: str) -> None:
        """Count a file or directory of the source that ``what`` names. Raises ``TooLarge``."""
        self._entries += 1
        if self._entries > MOST_FILES:
            raise TooLarge(f"{what} has more than {MOST_FILES} files and directories")

    def bytes(self, what: str, count: int) -> None:
        """Count bytes of its files. Raises ``TooLarge``."""
        self._bytes += count
        if self._bytes > MOST_BYTES:
            raise TooLarge(f"{what} has files of more than {MOST_BYTES >> 20} MiB")


class TreeCopy:
    """Copies a tree, following links.

    ``inside`` bounds where links may lead; ``None`` trusts them all. Raises
    ``UnsafeArchive`` for a link that leaves ``inside``, ``PolicyError`` for
    one that leads nowhere or in a circle, and ``TooLarge``.
    """

    def __init__(self, cancellation: Cancellation, inside: Path | None = None) -> None:
        self._cancellation = cancellation
        self._inside = inside.resolve() if inside is not None else None
        self._allowance = Allowance()
        self._what = "the source"

    def run(self, source: Path, destination: Path) -> None:
        """Copy the directory ``source`` to ``destination``, which may exist already."""
        self._what = str(source)
        self._directory(source, destination, (source.resolve(),))

    def _directory(self, source: Path, destination: Path, above: tuple[Path, ...]) -> None:
        self._cancellation.raise_if_cancelled()
        if len(above) > _DEEPEST:
            raise PolicyError(f"{source}: nested too deeply")
        self._allowance.entry(self._what)
        destination.mkdir(parents=True, exist_ok=True)
        with os.scandir(source) as entries:
            for entry in sorted(entries, key=lambda found: found.name):
                if entry.name != ".git":
                    self._entry(Path(entry.path), destination / entry.name, above)

    def _entry(self, path: Path, destination: Path, above: tuple[Path, ...]) -> None:
        if path.is_symlink():
            target = self._target(path)
            if target in above:
                raise PolicyError(f"{path}: symbolic link leads in a circle")
        else:
            target = path
        status = target.stat()
        if stat.S_ISDIR(status.st_mode):
            self._directory(target, destination, (*above, target.resolve()))
        elif stat.S_ISREG(status.st_mode):
            self._allowance.entry(self._what)
            self._allowance.bytes(self._what, status.st_size)
            shutil.copyfile(target, destination)
        # Sockets, pipes and devices hold neither rules nor data, and reading
        # one may never end.

    def _target(self, link: Path) -> Path:
        try:
            target = link.resolve(strict=True)
        except (OSError, RuntimeError) as cause:
            raise PolicyError(f"{link}: symbolic link leads nowhere") from cause
        if self._inside is not None and not target.is_relative_to(self._inside):
            raise UnsafeArchive(
                f"{link.name}: symbolic link leads out of the source, to {link.readlink()}"
            )
        return target


def link_tree(source: Path, destination: Path) -> None:
    """Make ``destination`` a second tree with the files of ``source``, which holds no links.

    The files are shared where the file system allows it, copied elsewhere.
    """

    def place(origin: str, target: str) -> object:
        try:
            os.link(origin, target)
        except OSError:
            return shutil.copyfile(origin, target)
        return target

    shutil.copytree(source, destination, copy_function=place, dirs_exist_ok=True)
