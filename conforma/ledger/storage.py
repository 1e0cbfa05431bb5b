"""Where a ledger's files are, as the few operations that an object store has as well.

Files are created once and durable when ``create_all`` returns; the timestamp
alone is replaced. A *claim* is the right to do that once: a file whose name
holds a fencing number, made before anything is read. The switch renames that
very file to ``timestamp.json``, and taking over removes the claims of smaller
numbers first, so a stale holder finds its claim gone. (An object store would
do the same with a conditional put.)
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol, TypeVar

from conforma.cache.fs import FileSystem, Step, no_step
from conforma.errors import LedgerError, StaleRight
from conforma.ledger.config import ASIDE, CLAIMS, METADATA, TIMESTAMP

_T = TypeVar("_T")
_R = TypeVar("_R")
_PARALLEL: Final = 8
_CLAIM: Final = re.compile(r"(?P<number>\d{12,})-[0-9a-f]+")


class Storage(Protocol):
    """What commits, recovery and collection need of the place a ledger is in.

    Names are relative, with ``/``. ``OSError`` becomes ``LedgerError``, except
    that reading what is not there raises ``FileNotFoundError`` and creating
    what is there ``FileExistsError``.
    """

    def read(self, name: str) -> bytes:
        """The content of a file."""

    def names(self, directory: str) -> list[str]:
        """The names in a directory, without order; none if it does not exist."""

    def age(self, name: str, now: float) -> float:
        """Seconds since a file was last written; infinite if it is not there."""

    def size(self, name: str) -> int:
        """The bytes of a file; -1 if it is not there."""

    def create_all(self, files: Mapping[str, bytes]) -> None:
        """Create files that do not exist; all are durable afterwards."""

    def put(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Write a file aside and give it its name at once; ``sync`` makes the name durable."""

    def move(self, source: str, target: str) -> bool:
        """Give a file another name; whether it was there."""

    def remove(self, name: str) -> bool:
        """Remove a file; whether it was there."""

    def sync(self, directories: Iterable[str]) -> None:
        """Make the names in these directories durable."""

    def claim(self, last: int) -> tuple[str, bool]:
        """Make a claim above ``last`` and all others; whether one of a dead holder was removed."""

    def switch(self, claim: str, timestamp: bytes) -> None:
        """Publish the timestamp. Raises ``StaleRight`` if the claim is gone."""

    def map(self, function: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
        """The function applied to each item, several at a time, results in order."""


class LocalDirectory:
    """A ledger in a directory, which several machines may share.

    ``before`` sees every step that changes it, for tests that kill or fail
    there; ``parallel`` is how many files are written at the same time.
    """

    def __init__(
        self,
        root: Path,
        *,
        shared: bool = False,
        before: Step = no_step,
        parallel: int = _PARALLEL,
    ) -> None:
        self.root = root
        self._files = FileSystem(shared=shared, before=before)
        # Readers of a published ledger are others than its writers.
        self._files.file_mode |= 0o044
        self._files.directory_mode |= 0o055
        self._parallel = parallel
        self._pool: ThreadPoolExecutor | None = None

    def close(self) -> None:
        """End the threads that write."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def read(self, name: str) -> bytes:
        """The content of a file."""
        with self._explained(name):
            return (self.root / name).read_bytes()

    def names(self, directory: str) -> list[str]:
        """The names in a directory, without order; none if it does not exist."""
        with self._explained(directory):
            try:
                return [entry.name for entry in os.scandir(self.root / directory)]
            except FileNotFoundError:
                return []

    def files_below(self, directory: str) -> list[str]:
        """The names of all files in a directory and those within it."""
        with self._explained(directory):
            return [
                path.relative_to(self.root).as_posix()
                for path in (self.root / directory).rglob("*")
                if path.is_file()
            ]

    def age(self, name: str, now: float) -> float:
        """Seconds since a file was last written; infinite if it is not there."""
        try:
            return now - (self.root / name).stat().st_mtime
        except OSError:
            return float("inf")

    def size(self, name: str) -> int:
        """The bytes of a file; -1 if it is not there."""
        try:
            return (self.root / name).stat().st_size
        except OSError:
            return -1

    def arrived(self, name: str) -> int:
        """When a file got its name, in nanoseconds of the clock of the file system."""
        return (self.root / name).stat().st_ctime_ns

    def make_directories(self, names: Iterable[str]) -> None:
        """Create directories and their parents."""
        for name in names:
            with self._explained(name):
                self._files.make_directory(self.root / name)

    def create_all(self, files: Mapping[str, bytes]) -> None:
        """Create files that do not exist; all are durable afterwards."""
        self.map(lambda item: self._create(*item), files.items())
        self.sync({name.rpartition("/")[0] for name in files})

    def put(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Write a file aside and give it its name at once, replacing what had it.

        With ``durable`` its content is; its name is once its directory is synced.
        """
        aside = f"{ASIDE}/{secrets.token_hex(8)}"
        with self._explained(name):
            try:
                self._write(self.root / aside, data, durable=durable)
                self._files.rename(self.root / aside, self.root / name)
            except BaseException:
                with contextlib.suppress(OSError):
                    (self.root / aside).unlink()
                raise

    def move(self, source: str, target: str) -> bool:
        """Give a file another name; whether it was there."""
        with self._explained(target):
            try:
                self._files.rename(self.root / source, self.root / target)
            except FileNotFoundError:
                return False
            return True

    def remove(self, name: str) -> bool:
        """Remove a file; whether it was there."""
        with self._explained(name):
            return self._files.unlink(self.root / name)

    def sync(self, directories: Iterable[str]) -> None:
        """Make the names in these directories durable."""
        for name in directories:
            with self._explained(name):
                self._files.sync_directory(self.root / name)

    def claim(self, last: int) -> tuple[str, bool]:
        """Make a claim above ``last`` and all others; whether one of a dead holder was removed."""
        highest = max([last, *(int(name.partition("-")[0]) for name in self._claims())])
        own = f"{highest + 1:012d}-{secrets.token_hex(8)}"
        with self._explained(own):
            os.close(self._files.create(self.root / CLAIMS / own))
        others = [name for name in self._claims() if name != own]
        if any(name > own for name in others):
            self.remove(f"{CLAIMS}/{own}")
            raise _stale(own)
        return own, bool([self.remove(f"{CLAIMS}/{name}") for name in others])

    def switch(self, claim: str, timestamp: bytes) -> None:
        """Publish the timestamp. Raises ``StaleRight`` if the claim is gone.

        The file is opened without creating it and then renamed: both fail once
        somebody removed the claim, and only one of the two can happen.
        """
        path = self.root / CLAIMS / claim
        try:
            with self._explained(claim):
                descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    self._files.write(descriptor, timestamp, 0, path)
                    self._files.sync(descriptor, path)
                finally:
                    os.close(descriptor)
                self._files.rename(path, self.root / TIMESTAMP)
        except FileNotFoundError as cause:
            raise _stale(claim) from cause
        self.sync([METADATA])

    def map(self, function: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
        """The function applied to each item, several at a time, results in order."""
        tasks = list(items)
        if len(tasks) < 2 or self._parallel < 2:
            return [function(item) for item in tasks]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._parallel, "conforma-ledger")
        futures = [self._pool.submit(function, item) for item in tasks]
        wait(futures)  # nobody may still be writing when the first failure is told
        return [future.result() for future in futures]

    def _claims(self) -> list[str]:
        """All claims; network file systems put names of their own beside them (``.nfs…``)."""
        return [name for name in self.names(CLAIMS) if _CLAIM.fullmatch(name)]

    def _create(self, name: str, data: bytes) -> None:
        with self._explained(name):
            self._write(self.root / name, data, durable=True)

    def _write(self, path: Path, data: bytes, *, durable: bool) -> None:
        descriptor = self._files.create(path)
        try:
            self._files.write(descriptor, data, 0, path)
            if durable:
                self._files.sync(descriptor, path)
        finally:
            os.close(descriptor)

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, FileExistsError):
            raise
        except OSError as cause:
            raise LedgerError(
                f"{self.root / name}: {cause.strerror or cause}",
                hint="nothing that was acknowledged is lost, and what is queued stays queued; "
                "the next commit takes it",
            ) from cause


def _stale(claim: str) -> StaleRight:
    return StaleRight(
        f"the commit right was taken by somebody else while commit {claim} was under way",
        hint="nothing of it was published; its operations are still queued",
    )
