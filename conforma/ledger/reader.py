"""Asking a ledger as anybody may: with a TUF client that trusts nothing but a root.

Works on a directory and over plain HTTP alike. What was seen is remembered
between runs, so that an older state (rollback) is refused; a state that is not
renewed (freeze) is refused once its timestamp expires.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from msgspec import Struct

from conforma.errors import InputError, LedgerError, LedgerUnverified

if TYPE_CHECKING:
    from tuf.ngclient import FetcherInterface, Updater

ROOT: Final = "CONFORMA_LEDGER_ROOT"
_MAX_ROOT: Final = 512_000
_LOCK_SECONDS: Final = 30.0
_HERE: Final = "ledger:/"
_WHICH_ROOT: Final = (
    "give a copy of the ledger's metadata/1.root.json that was taken when the ledger was made"
)


class Found(Struct, frozen=True):
    """Verified content of a ledger and what its metadata says about it."""

    path: str
    content: bytes
    custom: Mapping[str, str]


class Reader:
    """One look at a ledger: the state it had at the first question, verified.

    Safe to share between threads. ``memory`` is where verified metadata is
    kept between runs; ``None`` forgets it.
    """

    def __init__(self, location: str, root: bytes, memory: Path | None = None) -> None:
        self._location = location
        self._root = root
        self._stack = ExitStack()
        self._memory = memory
        self._lock = threading.Lock()
        self._updater: Updater | None = None
        self._content: Path | None = None
        self._failure: LedgerError | None = None

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
        """Remove temporary files and give the memory to others."""
        self._stack.close()

    def refresh(self) -> None:
        """Learn the current state, unless that was done. Raises ``LedgerError``.

        ``LedgerUnverified`` if it does not verify or is out of date.
        """
        with self._lock:
            self._refreshed()

    def find(self, path: str) -> Found | None:
        """The current content under a path, ``None`` if there is none.

        Raises as ``refresh`` does.
        """
        with self._lock, _explained(self._location):
            updater = self._refreshed()
            info = updater.get_targetinfo(path)
            if info is None:
                return None
            assert self._content is not None
            aside = self._content / hashlib.sha256(path.encode()).hexdigest()
            updater.download_target(info, str(aside))
            content = aside.read_bytes()
            aside.unlink()
            custom = info.custom if isinstance(info.custom, dict) else {}
            return Found(path, content, custom)

    def _refreshed(self) -> Updater:
        if self._failure is not None:
            raise self._failure
        if self._updater is None:
            try:
                with _explained(self._location):
                    self._updater = self._open()
            except LedgerError as error:
                self._failure = error
                raise
        return self._updater

    def _open(self) -> Updater:
        from tuf.ngclient import Updater

        scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="conforma-")))
        self._content = scratch
        metadata = self._memory or scratch / "metadata"
        metadata.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._memory is not None:
            self._stack.enter_context(_locked(self._memory))
        remote = self._location.startswith(("http://", "https://"))
        base = self._location.rstrip("/") if remote else _HERE
        updater = Updater(
            str(metadata),
            f"{base}/metadata/",
            target_dir=str(scratch),
            target_base_url=f"{base}/targets/",
            fetcher=None if remote else _from_directory(Path(self._location)),
            bootstrap=self._root,
        )
        updater.refresh()
        return updater


def trusted_root(location: str, given: str = "", environ: Mapping[str, str] = os.environ) -> bytes:
    """The root metadata to trust: the file given, that in the environment, else the ledger's first.

    Whoever wants protection from those who can write to the ledger's directory
    must give one. Raises ``InputError``, or ``LedgerError`` if there is none.
    """
    if named := given or environ.get(ROOT, ""):
        return _root_in(named, "--root" if given else ROOT)
    with _explained(location):
        if not location.startswith(("http://", "https://")):
            return (Path(location) / "metadata" / "1.root.json").read_bytes()[:_MAX_ROOT]
        from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher

        url = f"{location.rstrip('/')}/metadata/1.root.json"
        return Urllib3Fetcher().download_bytes(url, _MAX_ROOT)


def _root_in(named: str, source: str) -> bytes:
    """The content of a file that holds root metadata. Raises ``InputError``."""
    from tuf.api.metadata import Metadata, Root
    from tuf.api.serialization import DeserializationError

    try:
        with Path(named).open("rb") as file:
            content = file.read(_MAX_ROOT + 1)
    except OSError as cause:
        reason = (cause.strerror or str(cause)).lower()
        raise InputError(f"{source}: open {named}: {reason}", hint=_WHICH_ROOT) from cause
    try:
        signed = Metadata.from_bytes(content).signed if len(content) <= _MAX_ROOT else None
        what = f"it is {signed.type} metadata" if signed else f"it has over {_MAX_ROOT} bytes"
    except DeserializationError as cause:
        signed, what = None, _shape(cause.__cause__)
    if not isinstance(signed, Root):
        raise InputError(
            f"{source}: {named} is not the root metadata of a ledger: {what}", hint=_WHICH_ROOT
        )
    return content


def _shape(fault: BaseException | None) -> str:
    """What is wrong with a document that cannot be metadata."""
    if isinstance(fault, KeyError):
        return f"it has no {fault.args[0]}"
    if isinstance(fault, json.JSONDecodeError | UnicodeDecodeError):
        return f"it is no JSON: {fault}"
    return "it is no signed metadata"


def memory_of(location: str, root: bytes, environ: Mapping[str, str] = os.environ) -> Path:
    """Where what was seen of a ledger is kept: a directory of this user for location and root."""
    from platformdirs import user_cache_path

    base = (
        Path(environ["CONFORMA_LEDGER_MEMORY"])
        if environ.get("CONFORMA_LEDGER_MEMORY")
        else (user_cache_path("conforma") / "ledgers")
    )
    if not location.startswith(("http://", "https://")):
        location = str(Path(location).resolve())
    return base / hashlib.sha256(location.encode() + b"\n" + root).hexdigest()[:32]


@contextmanager
def _explained(location: str) -> Iterator[None]:
    """Turn what the client raises into errors that name the ledger."""
    from tuf.api.exceptions import DownloadError, ExpiredMetadataError, RepositoryError

    try:
        yield
    except ExpiredMetadataError as error:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        raise LedgerUnverified(
            f"ledger {location}: {error}; the clock of this machine says {now}",
            hint="renew it with conforma ledger bump, or set the clock",
        ) from error
    except (RepositoryError, ValueError) as error:
        raise LedgerUnverified(
            f"ledger {location}: does not verify: {error}",
            hint="it is damaged, was rolled back, or belongs to another root",
        ) from error
    except (DownloadError, OSError) as error:
        raise LedgerError(
            f"ledger {location}: cannot be read: {error}",
            hint="is this the directory or URL of a ledger?",
        ) from error


@contextmanager
def _locked(memory: Path) -> Iterator[None]:
    """Keep a memory to one reader at a time, as the client wants it."""
    from filelock import FileLock, Timeout

    lock = FileLock(memory / ".lock", thread_local=False)
    try:
        lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout as cause:
        raise LedgerError(
            f"{lock.lock_file}: somebody else has been reading for {_LOCK_SECONDS:.0f} s"
        ) from cause
    try:
        yield
    finally:
        lock.release()


def _from_directory(directory: Path) -> FetcherInterface:
    from tuf.api.exceptions import DownloadHTTPError
    from tuf.ngclient import FetcherInterface

    class FromDirectory(FetcherInterface):
        def _fetch(self, url: str) -> Iterator[bytes]:
            name = url.removeprefix(_HERE + "/")
            try:
                with (directory / name).open("rb") as file:
                    while piece := file.read(1 << 16):
                        yield piece
            except FileNotFoundError as cause:
                raise DownloadHTTPError(f"{name} is not there", 404) from cause

    return FromDirectory()
