"""An opened ledger: its directory, settings, trusted metadata and queue in one object."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from conforma.cache.fs import Step, no_step
from conforma.errors import LedgerError
from conforma.ledger.config import CONFIG_FILE, RIGHT, Config
from conforma.ledger.history import History
from conforma.ledger.inbox import Inbox
from conforma.ledger.right import CommitRight
from conforma.ledger.state import State
from conforma.ledger.storage import LocalDirectory


class Ledger:
    """A ledger in a directory. Opening it verifies what is published there."""

    def __init__(
        self,
        directory: Path,
        *,
        root: bytes | None = None,
        newest_root: int | None = None,
        before: Step = no_step,
        parallel: int = 8,
    ) -> None:
        """``root`` is the root metadata to trust, by default the first of the ledger.

        Later ones are followed up to version ``newest_root``, if it is given. Raises
        ``LedgerError``, ``LedgerUnverified`` if the metadata does not verify.
        """
        self.directory = directory
        self.config = read_config(directory)
        self.storage = LocalDirectory(
            directory, shared=self.config.shared, before=before, parallel=parallel
        )
        self.state = State(self.storage, str(directory), root, newest_root)
        self.history = History(self.storage)
        self.inbox = Inbox(self.storage, self.config)
        self.right = CommitRight(directory / RIGHT, shared=self.config.shared)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release what was opened."""
        self.storage.close()


def read_config(directory: Path) -> Config:
    """The settings of the ledger in a directory. Raises ``LedgerError``."""
    path = directory / CONFIG_FILE
    try:
        return Config.parse(path.read_bytes(), str(path))
    except NotADirectoryError as cause:
        raise LedgerError(
            f"{directory} is a file", hint="name the directory of a ledger, before anything else"
        ) from cause
    except OSError as cause:
        raise LedgerError(
            f"{path}: {cause.strerror}",
            hint=f"make a ledger with conforma ledger init {directory} --keys DIRECTORY",
        ) from cause
