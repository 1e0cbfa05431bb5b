"""Who we are to a registry: what docker, podman and their helpers have stored.

Files are searched in this order, and the first that has something to say wins:
``REGISTRY_AUTH_FILE``, ``DOCKER_CONFIG``, podman's ``auth.json`` in the runtime
and in the configuration directory, ``~/.docker/config.json``. Nothing is read
before a registry asks for credentials.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import stat
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from conforma.cancellation import Cancellation
from conforma.errors import AccessDenied, InputError
from conforma.oci.helpers import ask_helper
from conforma.oci.reference import DEFAULT_REGISTRY, Reference

_log = logging.getLogger(__name__)

_LARGEST_FILE: Final = 16 * 1024 * 1024
# The name under which docker login stores Docker Hub, and its other names.
_HUB_KEY: Final = "https://index.docker.io/v1/"
_HUB: Final = frozenset({"docker.io", DEFAULT_REGISTRY, "registry-1.docker.io"})


@dataclass(frozen=True, slots=True)
class Credential:
    """A user and a secret, or an identity or registry token. Never shows its secrets."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    origin: str = ""
    """Which file or helper it came from, for messages."""

    def basic(self) -> str:
        """The value of an ``Authorization`` header (RFC 7617). Raises ``InputError``."""
        if ":" in self.username or any(c in self.username + self.password for c in "\r\n\0"):
            raise InputError(
                f"the credentials in {self.origin} cannot be sent: a colon in the user name or a line break"
            )
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


class Keychain:
    """Finds the credential for a repository. Thread safe; every source is asked once."""

    def __init__(self, environment: Mapping[str, str], cancellation: Cancellation) -> None:
        self._environment = environment
        self._cancellation = cancellation
        self._lock = threading.Lock()
        self._files: tuple[_File, ...] | None = None
        self._answers: dict[tuple[str, str], Credential | None] = {}
        self._troubles: dict[str, str] = {}

    def find(self, reference: Reference) -> Credential | None:
        """The credential for ``reference``'s repository, or ``None`` if there is none.

        Raises ``InputError`` for a file that cannot be used and
        ``AccessDenied`` for a helper that was named for this registry and fails.
        """
        with self._lock:
            if self._files is None:
                self._files = tuple(_read(path) for path in self._paths())
            files = self._files
        for file in files:
            named = file.helper_for(reference)
            helper = named or file.store
            if helper is not None:
                found = self._from_helper(helper, reference, file, optional=named is None)
                if found is not None:
                    return found
            found = file.entry_for(reference)
            if found is not None:
                return found
        return None

    def trouble(self, reference: Reference) -> str | None:
        """Why there may be credentials for this registry that we could not get."""
        return self._troubles.get(reference.registry)

    def _from_helper(
        self, helper: str, reference: Reference, file: _File, *, optional: bool
    ) -> Credential | None:
        key = (helper, reference.registry)
        # One lock for all: helpers may prompt or write to a shared store.
        with self._lock:
            if key not in self._answers:
                server = _HUB_KEY if reference.registry in _HUB else reference.registry
                try:
                    answer = ask_helper(helper, server, self._environment, self._cancellation)
                except AccessDenied as cause:
                    self._unhelped(reference, file, cause, optional=optional)
                    answer = None
                self._answers[key] = answer and _from_answer(*answer, helper)
            return self._answers[key]

    def _unhelped(
        self, reference: Reference, file: _File, cause: AccessDenied, *, optional: bool
    ) -> None:
        """Go on without the helper if there is another way, else raise.

        A store for all registries says nothing about this one, which may well
        be public.
        """
        if file.entry_for(reference) is not None:
            return
        if not optional:
            raise AccessDenied(
                f"{reference}: {cause.message}",
                hint=f"the helper is named in {file.path}; {cause.hint}",
            ) from cause
        self._troubles[reference.registry] = f"{cause.message} (named in {file.path})"
        _log.warning(
            "%s: %s, named in %s; going on without credentials",
            reference.registry,
            cause.message,
            file.path,
        )

    def _paths(self) -> Iterator[Path]:
        env = self._environment
        home = Path(env["HOME"]) if env.get("HOME") else Path("~").expanduser()
        if env.get("REGISTRY_AUTH_FILE"):
            yield Path(env["REGISTRY_AUTH_FILE"])
        if env.get("DOCKER_CONFIG"):
            yield from _existing(Path(env["DOCKER_CONFIG"]) / "config.json")
        if env.get("XDG_RUNTIME_DIR"):
            yield from _existing(Path(env["XDG_RUNTIME_DIR"]) / "containers/auth.json")
        config = Path(env["XDG_CONFIG_HOME"]) if env.get("XDG_CONFIG_HOME") else home / ".config"
        yield from _existing(config / "containers/auth.json")
        if not env.get("DOCKER_CONFIG"):
            yield from _existing(home / ".docker/config.json")


class _File(Struct, frozen=True):
    path: Path
    entries: Mapping[str, Credential]
    helpers: Mapping[str, str]
    store: str | None

    def entry_for(self, reference: Reference) -> Credential | None:
        """The entry with the longest matching key: repository, name space, registry."""
        for name in _names(reference.registry):
            scope = f"{name}/{reference.repository}"
            while scope:
                if scope in self.entries:
                    return self.entries[scope]
                scope = scope.rpartition("/")[0]
        return None

    def helper_for(self, reference: Reference) -> str | None:
        """The helper that was named for this registry."""
        for name in _names(reference.registry):
            if name in self.helpers:
                return self.helpers[name]
        return None


def _names(registry: str) -> tuple[str, ...]:
    return tuple(sorted(_HUB)) if registry in _HUB else (registry,)


def _existing(path: Path) -> Iterator[Path]:
    if path.exists():
        yield path


def _read(path: Path) -> _File:
    try:
        status = path.stat()
        if status.st_size > _LARGEST_FILE:
            raise InputError(f"{path}: too large for a registry authentication file")
        document = json.loads(path.read_text(encoding="utf-8") or "{}")
    except OSError as cause:
        raise InputError(f"{path}: cannot read registry credentials: {cause.strerror}") from cause
    except (ValueError, RecursionError) as cause:
        raise InputError(f"{path}: not a registry authentication file: not JSON") from cause
    if not isinstance(document, dict):
        raise InputError(f"{path}: not a registry authentication file: not a JSON object")
    auths = document.get("auths") or {}
    helpers = document.get("credHelpers") or {}
    store = document.get("credsStore") or None
    if not isinstance(auths, dict) or not isinstance(helpers, dict):
        raise InputError(f"{path}: auths and credHelpers must be JSON objects")
    entries = {
        _normal(key): found
        for key, entry in auths.items()
        if (found := _from_entry(entry, path)) is not None
    }
    if entries and status.st_mode & stat.S_IROTH and _is_open_to_all(path):
        _log.warning(
            "%s: everybody on this machine can read the credentials in it; chmod 600 keeps them out",
            path,
        )
    named = {_normal(key): helper for key, helper in helpers.items() if isinstance(helper, str)}
    return _File(path, entries, named, store if isinstance(store, str) else None)


def _is_open_to_all(path: Path) -> bool:
    """Whether every directory on the way to a file lets everybody through."""
    return all(place.stat().st_mode & stat.S_IXOTH for place in path.resolve().parents)


def _normal(key: str) -> str:
    """A key as docker or podman writes it, without scheme and API version."""
    for scheme in ("https://", "http://"):
        key = key.removeprefix(scheme)
    for version in ("/v1", "/v2"):
        key = key.rstrip("/").removesuffix(version)
    return key.rstrip("/")


def _from_entry(entry: Any, path: Path) -> Credential | None:
    """The credential of one ``auths`` entry; ``None`` if it is empty (a helper has it)."""
    if not isinstance(entry, dict):
        return None

    def text(name: str) -> str:
        value = entry.get(name)
        return value if isinstance(value, str) else ""

    username, password = text("username"), text("password")
    if text("auth"):
        try:
            decoded = base64.b64decode(text("auth"), validate=False).decode()
        except (binascii.Error, UnicodeDecodeError) as cause:
            raise InputError(f"{path}: an auth entry is not base64 of user:password") from cause
        username, colon, password = decoded.rstrip("\0").partition(":")
        if not colon:
            raise InputError(f"{path}: an auth entry is not base64 of user:password")
    found = Credential(
        username, password, text("identitytoken"), text("registrytoken"), origin=str(path)
    )
    has_secret = found.password or found.identity_token or found.registry_token
    return found if has_secret else None


def _from_answer(username: str, secret: str, helper: str) -> Credential:
    origin = f"docker-credential-{helper}"
    if username == "<token>":
        return Credential(identity_token=secret, origin=origin)
    return Credential(username, secret, origin=origin)
