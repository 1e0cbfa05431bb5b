"""The Sigstore trust root from a TUF repository, refreshed once under a lock.

The update rules (rollback, expiry, thresholds) are python-tuf's. Added here
are the places of signatures.md 4.3, a lock so that parallel runs do not fight
over one directory, and use of the cached copy, verified again and not
expired, when the mirror cannot be reached.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from conforma.errors import InputError, TrustRootUnavailable
from conforma.trust.tuf_fetch import copy_in, download, fetcher_for, reason

if TYPE_CHECKING:
    from tuf.ngclient.fetcher import FetcherInterface

log = logging.getLogger(__name__)

PUBLIC_MIRROR: Final = "https://tuf-repo-cdn.sigstore.dev"
TRUSTED_ROOT: Final = "trusted_root.json"
_LOCK_SECONDS: Final = 120.0
_MAX_ROOT: Final = 1 << 20


class Repository(Struct, frozen=True):
    """A TUF mirror, where its metadata is kept, and the root metadata to start from."""

    mirror: str
    directory: Path
    initial_root: bytes

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Repository:
        """What ``TUF_ROOT``, ``TUF_MIRROR``, ``TUF_ROOT_JSON`` and ``remote.json`` say.

        Raises ``InputError`` if a mirror of one's own comes without a root.
        """
        base = cache_directory(environ)
        mirror = environ.get("TUF_MIRROR") or _remembered_mirror(base) or PUBLIC_MIRROR
        directory = base / directory_name(mirror)
        return cls(mirror, directory, _initial_root(mirror, directory, environ))

    def target(self, name: str = TRUSTED_ROOT, *, offline: bool = False) -> bytes:
        """The current content of a target.

        Metadata on disk is up to date afterwards. With ``offline``, or when the
        mirror cannot be reached, the copy on disk is verified and used. Raises
        ``TrustRootUnavailable``, also for metadata that is expired, rolled back
        or signed by others.
        """
        with _usable(self.directory) as directory, _locked(directory):
            here = replace(self, directory=directory)
            if not offline:
                return here._online(name)
            return here._update(name, copy_in(here.directory))

    def _online(self, name: str) -> bytes:
        from tuf.api.exceptions import DownloadError

        try:
            return self._update(name, fetcher_for(self.mirror))
        except TrustRootUnavailable as cause:
            if not isinstance(cause.__cause__, DownloadError):
                raise
            with contextlib.suppress(TrustRootUnavailable):
                return self._update(name, copy_in(self.directory))
            raise

    def _update(self, name: str, fetcher: FetcherInterface | None) -> bytes:
        from tuf.api.exceptions import DownloadError, ExpiredMetadataError, RepositoryError
        from tuf.ngclient.updater import Updater

        targets = self.directory / "targets"
        try:
            targets.mkdir(parents=True, exist_ok=True)
            updater = Updater(
                str(self.directory),
                self.mirror,
                target_dir=str(targets),
                target_base_url=f"{self.mirror.rstrip('/')}/targets/",
                fetcher=fetcher,
                bootstrap=self.initial_root,
            )
            updater.refresh()
            info = updater.get_targetinfo(name)
            if info is None:
                raise self._failed(f"there is no target {name}")
            path = updater.find_cached_target(info) or updater.download_target(info)
            return Path(path).read_bytes()
        except ExpiredMetadataError as cause:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            raise self._failed(f"{cause}; the clock of this machine says {now}") from cause
        except (DownloadError, RepositoryError, OSError, ValueError) as cause:
            raise self._failed(reason(cause)) from cause

    def _failed(self, why: str) -> TrustRootUnavailable:
        return TrustRootUnavailable(
            f"Sigstore trust root of {self.mirror}: {why}",
            hint="check the clock and the network, run conforma sigstore initialize, "
            "or name your own keys with the SIGSTORE_ environment variables",
        )


def initialize(
    environ: Mapping[str, str], mirror: str, root: bytes | None, *, offline: bool = False
) -> bytes:
    """Make ``mirror`` the one to use from now on; the trusted root it serves.

    ``root`` is the root metadata to start from, ``None`` for that which is
    built in (public mirror only) or already on disk. Nothing changes for later
    runs unless the mirror's metadata verifies; with ``offline`` its copy on disk.
    """
    if urlsplit(mirror).scheme not in ("https", "http", "file"):
        raise InputError(f"--mirror: {mirror}: not an https, http or file URL")
    base = cache_directory(environ)
    directory = base / directory_name(mirror)
    if root is None:
        root = _initial_root(mirror, directory, environ)
    content = Repository(mirror, directory, root).target(offline=offline)
    try:
        if not (directory / "root.json").exists():
            (directory / "root.json").write_bytes(root)
        remote = base / "remote.json"
        aside = remote.with_suffix(f".{os.getpid()}.tmp")
        aside.write_text(json.dumps({"mirror": mirror}), encoding="utf-8")
        aside.replace(remote)
    except OSError as cause:
        raise TrustRootUnavailable(f"{base}: {cause.strerror}") from cause
    return content


def read_root(place: str, checksum: str = "") -> bytes:
    """The root metadata in a file or at a URL.

    Raises ``InputError`` if there is none or its SHA-256 is not ``checksum``,
    ``TrustRootUnavailable`` if that could not be learnt.
    """
    if urlsplit(place).scheme in ("https", "http", "file"):
        content = download(place, _MAX_ROOT)
    else:
        content = _read(Path(place))
    if checksum and hashlib.sha256(content).hexdigest() != checksum.lower():
        raise InputError(f"{place}: does not have the SHA-256 {checksum}")
    if not checksum and place.startswith("http://"):
        log.warning("%s is trusted as it came over a plain connection; see --root-checksum", place)
    return content


def cache_directory(environ: Mapping[str, str]) -> Path:
    """``TUF_ROOT``, or the place in the home directory that all Sigstore clients share."""
    if configured := environ.get("TUF_ROOT"):
        return Path(configured)
    home = environ.get("HOME")
    return (Path(home) if home else Path.home()) / ".sigstore" / "root"


def directory_name(mirror: str) -> str:
    """The name of a mirror's directory, as sigstore-go forms it."""
    bare = re.sub(r"^https?://", "", mirror)
    return bare.replace("/", "-").replace(":", "-").lower()


def _remembered_mirror(base: Path) -> str:
    try:
        document = json.loads((base / "remote.json").read_bytes())
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as cause:
        raise InputError(f"{base / 'remote.json'}: {cause}") from cause
    mirror = document.get("mirror") if isinstance(document, dict) else None
    return mirror if isinstance(mirror, str) else ""


def _initial_root(mirror: str, directory: Path, environ: Mapping[str, str]) -> bytes:
    if named := environ.get("TUF_ROOT_JSON"):
        return _read(Path(named))
    if (directory / "root.json").exists():
        return _read(directory / "root.json")
    if mirror.rstrip("/") == PUBLIC_MIRROR:
        from importlib.resources import files

        return (
            files("sigstore._store")
            .joinpath("https%3A%2F%2Ftuf-repo-cdn.sigstore.dev", "root.json")
            .read_bytes()
        )
    raise InputError(
        "could not find cached root.json",
        hint=f"run conforma sigstore initialize --mirror {mirror} --root FILE",
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_ROOT)
    except OSError as cause:
        raise InputError(f"{path}: {cause.strerror}") from cause


@contextlib.contextmanager
def _usable(directory: Path) -> Iterator[Path]:
    """``directory`` if it can be written, else a copy of it for this process."""
    try:
        # The mode is that of the last directory only.
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
        writable = True
    except OSError:
        writable = False
    if writable:
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="conforma-tuf-") as scratch:
        copy = Path(scratch, "metadata")
        if directory.is_dir():
            shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("*.lock"))
        copy.mkdir(exist_ok=True)
        yield copy


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(directory / ".conforma.lock", timeout=_LOCK_SECONDS)
    try:
        with lock:
            yield
    except Timeout as cause:
        raise TrustRootUnavailable(
            f"{directory}: another process has been refreshing it for {_LOCK_SECONDS:.0f} s"
        ) from cause
