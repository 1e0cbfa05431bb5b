"""Sources of rules, data and configurations: each distinct URL is fetched once per run.

What was fetched lies in one temporary directory until the run ends, as plain
files and directories without links.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from msgspec import Struct

from conforma.cancellation import Cancellation
from conforma.errors import InputError, PolicyError, SourceUnavailable
from conforma.gotext import quoted
from conforma.oci.retry import RetryPolicy
from conforma.policy.files import TreeCopy, link_tree
from conforma.policy.source_url import (
    Kind,
    directory_name,
    kind_of,
    pinned,
    refuse_insecure,
    without_secrets,
)
from conforma.policy.work_directory import WorkDirectory, sweep

if TYPE_CHECKING:
    from conforma.oci.registry import Registry

log = logging.getLogger("conforma.policy")

_AT_ONCE: Final = 4


class FetchedSource(Struct, frozen=True):
    """The content of one source: its directory, and its URL pinned to that content."""

    url: str
    path: Path
    pinned: str
    revision: str = ""
    """The commit or digest, where the kind has one."""


class Sources:
    """Fetches sources. Thread safe; a context manager that removes everything at its end.

    ``registry`` is asked for only when an OCI source turns up, or for every
    source if ``use_mirrors`` says that it may have them. ``offline``: what only the
    network has is an error. The directory stays if the environment variable
    ``EC_DEBUG`` is set.
    """

    def __init__(
        self,
        registry: Callable[[], Registry],
        cancellation: Cancellation,
        *,
        retry: RetryPolicy | None = None,
        user_agent: str = "conforma",
        environment: Mapping[str, str] | None = None,
        use_mirrors: bool = False,
        offline: bool = False,
    ) -> None:
        self._registry = registry
        self._use_mirrors = use_mirrors
        self._offline = offline
        self._cancellation = cancellation
        self._environment = os.environ if environment is None else environment
        self._retry = retry
        self._user_agent = user_agent
        self._lock = threading.Lock()
        self._fetched: dict[str, Future[FetchedSource]] = {}
        self._directories: list[WorkDirectory] = []

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
        """Remove everything fetched and every directory made."""
        with self._lock:
            directories, self._directories = self._directories, []
            self._fetched.clear()
        for directory in directories:
            directory.remove()

    @property
    def directory(self) -> Path:
        """The directory that holds what was fetched, made when first asked for."""
        with self._lock:
            if self._directories:
                return self._directories[0].path
            sweep()
            return self._make_directory()

    @property
    def fetched(self) -> tuple[str, ...]:
        """The URLs asked for so far, in that order."""
        with self._lock:
            return tuple(self._fetched)

    def new_directory(self) -> Path:
        """A fresh, empty directory that lives as long as the sources."""
        _ = self.directory  # the first is ours
        with self._lock:
            return self._make_directory()

    def _make_directory(self) -> Path:
        try:
            directory = WorkDirectory(keep=bool(self._environment.get("EC_DEBUG")))
        except OSError as cause:
            raise SourceUnavailable(
                f"cannot make a directory to work in: {cause}",
                hint="TMPDIR names the place for temporary files",
            ) from cause
        self._directories.append(directory)
        return directory.path

    def fetch(self, url: str) -> FetchedSource:
        """The content of ``url``, fetched now unless it was already, by whichever thread.

        Raises ``InputError`` for a URL of no known kind, ``PolicyError`` for
        content that is not there or cannot be used, ``SourceUnavailable`` and
        ``RegistryError`` for what could not be learnt, ``IntegrityError`` for
        content that is not safe.
        """
        with self._lock:
            future = self._fetched.get(url)
            if mine := future is None:
                future = self._fetched[url] = Future()
        if mine:
            try:
                future.set_result(self._fetch(url))
            except BaseException as cause:
                future.set_exception(cause)
        return future.result()

    def fetch_all(self, urls: Iterable[str]) -> dict[str, FetchedSource]:
        """Fetch several sources at once. Of several failures the first in order is raised."""
        wanted = tuple(dict.fromkeys(urls))
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="source") as pool:
            futures = {url: pool.submit(self.fetch, url) for url in wanted}
            try:
                return {url: future.result() for url, future in futures.items()}
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def place(self, url: str, destination: Path) -> FetchedSource:
        """Fetch ``url`` and put its content into the directory ``destination`` as well."""
        fetched = self.fetch(url)
        try:
            link_tree(fetched.path, destination)
        except (OSError, shutil.Error) as cause:
            raise SourceUnavailable(f"cannot write below {destination}: {cause}") from cause
        return FetchedSource(url, destination, fetched.pinned, fetched.revision)

    def _fetch(self, url: str) -> FetchedSource:
        self._cancellation.raise_if_cancelled()
        refuse_insecure(url)
        kind = kind_of(url)
        name = directory_name(url)
        destination = self.directory / "sources" / name
        scratch = self.directory / "scratch" / name
        log.debug("Downloading %s to %s", without_secrets(url), destination)
        try:
            revision = self._fetch_kind(kind, url, destination, scratch)
        except OSError as cause:
            raise SourceUnavailable(f"{without_secrets(url)}: {cause}") from cause
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return FetchedSource(url, destination, pinned(kind, url, revision), revision)

    def _fetch_kind(self, kind: Kind, url: str, destination: Path, scratch: Path) -> str:
        """Fill ``destination``; returns the commit or digest, ``""`` for other kinds."""
        if (
            kind in ("git", "http")
            and (revision := self._from_mirror(url, destination)) is not None
        ):
            return revision
        if kind == "git":
            from conforma.policy.git import Git

            git = Git(self._cancellation, self._retry, self._environment)
            return git.fetch(url, destination, scratch)
        if kind == "oci":
            from conforma.policy.artifact import Artifacts

            return Artifacts(self._registry(), self._cancellation).fetch(url, destination)
        if kind == "http":
            from conforma.policy.http import Http

            http = Http(self._cancellation, self._retry, self._user_agent, self._environment)
            http.fetch(url, destination)
        else:
            self._copy(url, destination)
        return ""

    def _from_mirror(self, url: str, destination: Path) -> str | None:
        """The revision of a mirrored copy, now in ``destination``; ``None`` to ask the network."""
        if self._use_mirrors:
            from conforma.policy import mirrored

            revision = mirrored.fetch(self._registry(), url, destination, self._cancellation)
            if revision is not None:
                return revision
        if self._offline:
            raise SourceUnavailable(
                f"{without_secrets(url)}: needed, but this run is offline",
                hint="mirror it first with conforma mirror, and name the mirror with --mirror-from",
            )
        return None

    def _copy(self, url: str, destination: Path) -> None:
        named = url.removeprefix("file://").removeprefix("file::")
        source = Path(named)
        try:
            if not named:  # which is the working directory, for Path
                raise FileNotFoundError
            source = source.expanduser()
            mode = source.stat().st_mode
        except (FileNotFoundError, NotADirectoryError) as cause:
            raise PolicyError(
                f"source file does not exist: stat {named}: no such file or directory"
            ) from cause
        except (RuntimeError, ValueError) as cause:  # ~nobody, a NUL
            raise InputError(f"{quoted(str(source))} cannot be a path: {cause}") from cause
        if stat.S_ISDIR(mode):
            TreeCopy(self._cancellation).run(source, destination)
            return
        if not stat.S_ISREG(mode):
            raise PolicyError(f"{source} is neither a directory nor a regular file")
        from conforma.policy.archive import is_archive, unpack

        if is_archive(source.name):
            unpack(source, destination, self._cancellation)
        else:
            # The Go tool stores a single file where its loaders never look.
            destination.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, destination / source.name)
