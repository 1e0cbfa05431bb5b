"""Where the trusted material of a run comes from: files, environment, TUF.

Source: signatures.md 4.3 and 13.15. One trusted root is built: what the
``SIGSTORE_*`` variables name is taken from there, only what is needed and
not named comes from TUF, so that a log key alone suffices for key mode
without any network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from msgspec import Struct

from conforma.errors import BadEvidence, ConformaError, InputError
from conforma.trust.keys import PublicKey
from conforma.trust.root import Authority, LogKey, TrustRoot, by_id, log_key
from conforma.trust.trust_policy import TrustPolicy

_T = TypeVar("_T")
ROOT_FILE: Final = "SIGSTORE_ROOT_FILE"
CT_KEY: Final = "SIGSTORE_CT_LOG_PUBLIC_KEY_FILE"
REKOR_KEY: Final = "SIGSTORE_REKOR_PUBLIC_KEY"
TSA_FILE: Final = "SIGSTORE_TSA_CERTIFICATE_FILE"
#: A ``trusted_root.json`` of one's own; ours, because the reference has no such thing.
TRUSTED_ROOT_FILE: Final = "CONFORMA_TRUSTED_ROOT"
_MAX_BYTES: Final = 16 << 20


class RootSources:
    """The trust roots of one run. Thread safe.

    Each is made once, when first needed, and the TUF repository is asked once,
    whatever comes of it.
    """

    def __init__(self, environ: Mapping[str, str], *, offline: bool = False) -> None:
        self._environ = environ
        self._offline = offline
        self._lock = threading.Lock()
        self._made: dict[frozenset[str], TrustRoot] = {}
        self._from_tuf: TrustRoot | None = None
        self._failure: ConformaError | None = None

    def __call__(self, policy: TrustPolicy) -> TrustRoot:
        """What ``policy`` needs. Raises ``InputError`` or ``TrustRootUnavailable``."""
        needed = _needed(policy)
        with self._lock:
            found = self._made.get(needed)
            if found is None:
                source = RootSource(policy, self._environ, self._offline, self._tuf)
                found = self._made[needed] = source()
            return found

    def _tuf(self) -> TrustRoot:
        if self._failure is not None:
            raise self._failure
        if self._from_tuf is None:
            try:
                self._from_tuf = _from_tuf(self._environ, offline=self._offline)
            except ConformaError as failure:
                self._failure = failure
                raise
        return self._from_tuf


class RootSource(Struct, frozen=True):
    """How to obtain the trust root for a policy; calling it does.

    ``tuf`` stands in for asking the TUF repository.
    """

    policy: TrustPolicy
    environ: Mapping[str, str]
    offline: bool = False
    tuf: Callable[[], TrustRoot] | None = None

    def __call__(self) -> TrustRoot:
        """Everything ``policy`` needs, or ``InputError`` or ``TrustRootUnavailable``."""
        if path := self.environ.get(TRUSTED_ROOT_FILE):
            return TrustRoot.parse(_read(path), path)
        named = {
            name for name in (ROOT_FILE, CT_KEY, REKOR_KEY, TSA_FILE) if self.environ.get(name)
        }
        root = TrustRoot()
        if not _needed(self.policy) <= named:
            root = self.tuf() if self.tuf else _from_tuf(self.environ, offline=self.offline)
        return self._overridden(root, named) if named else root

    def _overridden(self, root: TrustRoot, named: set[str]) -> TrustRoot:
        root = replace(root, individual=True)
        if REKOR_KEY in named:
            root = replace(root, logs=self._log_keys(REKOR_KEY))
        if CT_KEY in named:
            root = replace(root, ct_logs=self._log_keys(CT_KEY))
        if ROOT_FILE in named:
            root = replace(root, authorities=(self._authority(ROOT_FILE),))
        if TSA_FILE in named:
            root = replace(root, timestamp_authorities=(self._authority(TSA_FILE),))
        return root

    def _log_keys(self, name: str) -> Mapping[bytes, LogKey]:
        return self._from_file(
            name, lambda text: by_id(log_key(key) for key in PublicKey(text).keys)
        )

    def _authority(self, name: str) -> Authority:
        from conforma.trust.certificate import parse_chain

        def read(text: str) -> Authority:
            chain = parse_chain(text)
            if not chain:
                raise InputError("holds no certificate")
            return Authority(chain)

        return self._from_file(name, read)

    def _from_file(self, name: str, read: Callable[[str], _T]) -> _T:
        path = self.environ[name]
        try:
            return read(_read(path).decode("utf-8", "replace"))
        except (InputError, BadEvidence) as cause:
            raise InputError(f"{name}: {path}: {cause.message}", hint=cause.hint) from cause


def _needed(policy: TrustPolicy) -> frozenset[str]:
    logs = frozenset[str]() if policy.ignore_rekor else frozenset({REKOR_KEY})
    return logs if policy.public_key is not None else logs | {ROOT_FILE, CT_KEY}


def _from_tuf(environ: Mapping[str, str], *, offline: bool = False) -> TrustRoot:
    from conforma.trust.tuf_client import Repository

    repository = Repository.from_environment(environ)
    return TrustRoot.parse(repository.target(offline=offline), repository.mirror)


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_MAX_BYTES)
    except OSError as cause:
        raise InputError(f"{path}: {cause.strerror}") from cause
