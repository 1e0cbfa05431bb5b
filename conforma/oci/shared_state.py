"""A small fact about a registry that all threads, and all processes of a machine, agree on.

With a directory each fact is a file, replaced as a whole under a lock of its
own; without one, or where the directory cannot be used, it lives in this process.
A file that cannot be read is no fact.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

Fact = dict[str, float]
"""Numbers by name; moments are seconds since the epoch, as every process sees them."""

_log = logging.getLogger(__name__)
# Facts are changed in well under a millisecond; whoever waits longer than this
# waits for somebody who hangs.
_PATIENCE: Final = 5.0
_POLL: Final = 0.005


class SharedState:
    """The facts of one kind, by the name of a registry. Thread safe."""

    def __init__(self, directory: Path | None, kind: str) -> None:
        self._directory = directory
        self._kind = kind
        self._lock = threading.Lock()
        self._facts: dict[str, Fact] = {}
        self._paths: dict[str, str] = {}

    @property
    def is_shared(self) -> bool:
        """Whether other processes may change the facts."""
        return self._directory is not None

    def get(self, name: str) -> Fact | None:
        """The fact as it is now."""
        if self._directory is None:
            return self._facts.get(name)
        # Asked before every request, so not with os.path.exists, which raises and catches.
        path = self._path(self._directory, name)
        return _read(path) if os.access(path, os.F_OK) else None

    def change(self, name: str, make: Callable[[Fact], Fact | None]) -> Fact | None:
        """Replace the fact by what ``make`` makes of it; ``None`` removes it.

        ``make`` gets an empty fact if there is none, and nobody else changes
        it meanwhile.
        """
        with self._lock:
            if self._directory is not None:
                try:
                    return self._change_file(self._directory, name, make)
                except OSError as cause:
                    _log.warning(
                        "request limits are not shared with other processes: %s: %s",
                        self._directory,
                        cause.strerror or cause,
                    )
                    self._directory = None
            changed = make(dict(self._facts.get(name, {})))
            if changed is None:
                self._facts.pop(name, None)
            else:
                self._facts[name] = changed
            return changed

    def _change_file(
        self, directory: Path, name: str, make: Callable[[Fact], Fact | None]
    ) -> Fact | None:
        # Deferred: most runs are never told to slow down.
        from filelock import FileLock

        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(directory, name)
        with FileLock(f"{path}.lock", timeout=_PATIENCE, poll_interval=_POLL):
            changed = make(_read(path) or {})
            if changed is None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)  # noqa: PTH108
            else:
                _write(path, changed)
            return changed

    def _path(self, directory: Path, name: str) -> str:
        path = self._paths.get(name)
        if path is None:
            readable = re.sub(r"[^A-Za-z0-9.-]", "_", name)[:200]
            path = self._paths[name] = f"{directory}/{readable}.{self._kind}"
        return path


def _read(path: str) -> Fact | None:
    try:
        document = json.loads(Path(path).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict):
        return None
    return {k: float(v) for k, v in document.items() if isinstance(v, int | float)}


def _write(path: str, fact: Fact) -> None:
    # Whole or not at all, for those who read without the lock.
    beside = f"{path}.{os.urandom(4).hex()}.tmp"
    try:
        Path(beside).write_text(json.dumps(fact))
        Path(beside).replace(path)
    except OSError:
        Path(beside).unlink(missing_ok=True)
        raise
