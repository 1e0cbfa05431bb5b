"""Who may use a registry: nobody is asked, basic credentials, or bearer tokens.

The token service follows the distribution project's token specification: a
401 names realm, service and scope; the client fetches a token for that scope
and asks again.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from msgspec import Struct

REALM_PATH = "/token"


class Asked(Struct, frozen=True):
    """What a request wants to do, and who it says it comes from."""

    authorization: str | None
    repository: str | None
    actions: frozenset[str]
    url: str


class Access(Protocol):
    """Decides about one request."""

    def challenge(self, asked: Asked) -> str | None:
        """None if the request may go on, else the ``WWW-Authenticate`` value of a 401."""


class BasicAuth(Struct, frozen=True):
    """Everything needs this user and password."""

    username: str
    password: str
    realm: str = "registry"

    def challenge(self, asked: Asked) -> str | None:
        """Demand the credentials."""
        if _same(credentials_of(asked.authorization), (self.username, self.password)):
            return None
        return f'Basic realm="{self.realm}"'


@dataclass(slots=True)
class BearerAuth:
    """Everything needs a token of this registry's own token service.

    Without ``username`` anybody gets a token to pull, nobody one to push.
    Tokens are valid for ``lifetime`` seconds of ``clock``. ``realm`` replaces
    the address of the token service, to name one that does not answer.
    """

    username: str | None = None
    password: str | None = None
    lifetime: float = 300.0
    announce_lifetime: bool = True
    service: str = "conforma-registry"
    realm: str | None = None
    clock: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _tokens: dict[str, tuple[float, frozenset[str]]] = field(default_factory=dict, repr=False)

    def challenge(self, asked: Asked) -> str | None:
        """Demand a token with this scope that has not expired."""
        wanted = {f"repository:{asked.repository}:{action}" for action in asked.actions}
        if asked.repository is None:
            wanted = set()
        scheme, _, token = (asked.authorization or "").partition(" ")
        if scheme.lower() == "bearer":
            with self._lock:
                expires, granted = self._tokens.get(token.strip(), (float("-inf"), frozenset()))
            if self.clock() < expires and wanted <= granted:
                return None
        text = f'Bearer realm="{self.realm or asked.url + REALM_PATH}",service="{self.service}"'
        if asked.repository is not None:
            text += f',scope="repository:{asked.repository}:{",".join(sorted(asked.actions))}"'
        return text + (',error="invalid_token"' if asked.authorization else "")

    def issue(self, authorization: str | None, scopes: str) -> dict[str, object] | None:
        """The token document for these scopes; None if the credentials are wrong."""
        given = credentials_of(authorization)
        known = self.username is not None and _same(given, (self.username, self.password))
        if not known and (self.username is not None or given is not None):
            return None
        granted = set()
        for scope in scopes.split():
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            for action in actions.split(","):
                if known or action == "pull":
                    granted.add(f"{kind}:{name}:{action}")
        token = secrets.token_urlsafe(24)
        with self._lock:
            now = self.clock()
            self._tokens = {t: e for t, e in self._tokens.items() if e[0] > now}
            self._tokens[token] = (self.clock() + self.lifetime, frozenset(granted))
        document: dict[str, object] = {"token": token, "access_token": token}
        if self.announce_lifetime:
            document["expires_in"] = int(self.lifetime)
        return document

    def revoke_all(self) -> None:
        """Let every token expire now."""
        with self._lock:
            self._tokens.clear()


def credentials_of(authorization: str | None) -> tuple[str, str] | None:
    """User and password of a basic ``Authorization`` header, None if it is none."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (user, password) if colon else None


def _same(given: tuple[str, str] | None, wanted: tuple[str | None, str | None]) -> bool:
    """Compare in a time that tells nothing about how much of a guess was right."""
    pairs = zip(given or ("", ""), wanted, strict=True)
    equal = [hmac.compare_digest(a.encode(), (b or "").encode()) for a, b in pairs]
    return given is not None and all(equal)
