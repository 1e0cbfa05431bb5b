"""Showing registries who we are: anonymous, basic, or with bearer tokens.

Nothing is shown before a registry asks. What it asked for is remembered, so
that later requests to it are right at once; tokens are kept until shortly
before they expire and fetched once however many threads want them.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode, urlsplit

from conforma.cancellation import Cancellation
from conforma.errors import AccessDenied, BadResponse
from conforma.oci.challenge import Challenge, parse_challenges
from conforma.oci.credentials import Credential, Keychain
from conforma.oci.flights import Flights
from conforma.oci.redirects import is_internal
from conforma.oci.reference import Reference, is_loopback_host

# docs.docker.com, token specification: what to assume without expires_in.
_DEFAULT_LIFETIME: Final = 60.0
_MARGIN: Final = 10.0
_LONGEST_TOKEN: Final = 64 * 1024
_CLIENT_ID: Final = "conforma"


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """How to ask a token service; ``form`` is set for an OAuth2 exchange (POST)."""

    reference: Reference
    url: str
    authorization: str | None = field(default=None, repr=False)
    form: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class _Token:
    header: str = field(repr=False)
    renew_at: float


class Authorizer:
    """Knows the ``Authorization`` header for a request. Thread safe."""

    def __init__(
        self,
        keychain: Keychain,
        ask: Callable[[TokenRequest], bytes],
        scheme: Callable[[str], str],
        cancellation: Cancellation,
    ) -> None:
        self._keychain = keychain
        self._ask = ask
        self._scheme = scheme
        self._lock = threading.Lock()
        self._flights: Flights[_Token] = Flights(cancellation)
        self._challenges: dict[str, Challenge] = {}
        self._tokens: dict[tuple[str, ...], _Token] = {}
        self.tokens_fetched = 0

    def header(self, reference: Reference, actions: str) -> str | None:
        """What the registry is known to want for ``actions`` (such as ``pull``); may fetch a token."""
        with self._lock:
            challenge = self._challenges.get(reference.registry)
        if challenge is None:
            return None
        return self._response_to(challenge, reference, actions)

    def answer(
        self, reference: Reference, actions: str, headers: list[str], shown: str | None
    ) -> str | None:
        """The header to try after a 401, or ``None`` if there is nothing else to show.

        ``shown`` is the header that was refused; a token like it is forgotten.
        Raises ``AccessDenied`` if the token service refuses.
        """
        known = {c.scheme: c for c in reversed(parse_challenges(headers))}
        challenge = known.get("bearer") or known.get("basic")
        if challenge is None:
            return None
        if challenge.scheme == "bearer":
            self._check_realm(challenge, reference)
        with self._lock:
            self._challenges[reference.registry] = challenge
            for key in [k for k, token in self._tokens.items() if token.header == shown]:
                del self._tokens[key]
        header = self._response_to(challenge, reference, actions)
        return None if header == shown else header

    def hint(self, reference: Reference) -> str:
        """What to try after the registry refused us for good."""
        found = self._keychain.find(reference)
        if found is None:
            return (
                f"no credentials for {reference.registry} were found; log in, "
                "or name a file with them in REGISTRY_AUTH_FILE"
            )
        return f"the credentials from {found.origin} do not suffice; it may also not exist"

    def _response_to(self, challenge: Challenge, reference: Reference, actions: str) -> str | None:
        credential = self._keychain.find(reference)
        if challenge.scheme == "basic":
            return credential.basic() if credential and credential.password else None
        if credential and credential.registry_token:
            return f"Bearer {credential.registry_token}"
        scopes = _scopes(challenge, reference, actions)
        key = (challenge["realm"], challenge["service"], *scopes, _identity(credential))
        with self._lock:
            token = self._tokens.get(key)
        if token is None or token.renew_at <= time.monotonic():
            token = self._flights.run(
                key, lambda: self._fetch(key, challenge, reference, scopes, credential)
            )
        return token.header

    def _fetch(
        self,
        key: tuple[str, ...],
        challenge: Challenge,
        reference: Reference,
        scopes: tuple[str, ...],
        credential: Credential | None,
    ) -> _Token:
        asked_at = time.monotonic()
        body = self._ask(_token_request(challenge, reference, scopes, credential))
        token = _parse_token(body, asked_at, f"{reference}: token service {challenge['realm']}")
        with self._lock:
            self._tokens[key] = token
            self.tokens_fetched += 1
        return token

    def _check_realm(self, challenge: Challenge, reference: Reference) -> None:
        """Refuse to send credentials where the registry itself is not.

        A registry may name any public token service: what it is shown there
        is its own. It may not make us talk to our own machine or network
        equipment, nor without TLS.
        """
        realm = urlsplit(challenge["realm"])
        host = realm.hostname or ""
        at_home = is_loopback_host(reference.registry)
        scheme_fits = realm.scheme == "https" or (
            realm.scheme == "http" and self._scheme(reference.registry) == "http"
        )
        if not host or not scheme_fits or (is_internal(host) and not at_home):
            raise AccessDenied(
                f"{reference}: the registry names a token service we do not talk to: "
                f"{challenge['realm'].partition('?')[0][:200]!r}",
                hint="it must be an https address, and not one of this machine",
            )


def _scopes(challenge: Challenge, reference: Reference, actions: str) -> tuple[str, ...]:
    """Ours first; the registry's own wording too when it differs (virtual repositories)."""
    ours = f"repository:{reference.repository}:{actions}"
    theirs = challenge["scope"]
    # The remembered challenge may be that of another repository.
    if theirs and not theirs.startswith("repository:"):
        return (ours, theirs)
    return (ours,)


def _identity(credential: Credential | None) -> str:
    if credential is None:
        return ""
    return f"{credential.origin} {credential.username}"


def _token_request(
    challenge: Challenge,
    reference: Reference,
    scopes: tuple[str, ...],
    credential: Credential | None,
) -> TokenRequest:
    query: list[tuple[str, str]] = []
    if challenge["service"]:
        query.append(("service", challenge["service"]))
    if credential is not None and credential.identity_token:
        form = [
            ("grant_type", "refresh_token"),
            *query,
            ("client_id", _CLIENT_ID),
            ("scope", " ".join(scopes)),
            ("refresh_token", credential.identity_token),
        ]
        return TokenRequest(reference, challenge["realm"], form=urlencode(form).encode())
    query += [("scope", scope) for scope in scopes]
    separator = "&" if "?" in challenge["realm"] else "?"
    return TokenRequest(
        reference,
        f"{challenge['realm']}{separator}{urlencode(query)}",
        credential.basic() if credential and credential.password else None,
    )


def _parse_token(body: bytes, asked_at: float, what: str) -> _Token:
    try:
        document: Mapping[str, object] = json.loads(body)
        value = document.get("token") or document.get("access_token")
        lifetime = document.get("expires_in")
    except (ValueError, RecursionError, AttributeError) as cause:
        # From None: the text of the error may quote the token.
        del cause
        raise BadResponse(f"{what} did not answer JSON") from None
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_TOKEN:
        raise BadResponse(f"{what} answered without a usable token")
    if not value.isascii() or not value.isprintable():
        raise BadResponse(f"{what} answered a token that is no header value")
    valid = isinstance(lifetime, int | float) and lifetime > 0
    seconds = float(lifetime) if valid and isinstance(lifetime, int | float) else _DEFAULT_LIFETIME
    return _Token(f"Bearer {value}", asked_at + max(seconds - _MARGIN, seconds / 2))
