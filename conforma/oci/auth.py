"""Showing registries who we are: anonymous, basic, or with bearer tokens.

Nothing is shown before a registry asks. What it asked for is remembered, so
that later requests to it are right at once; tokens are kept until shortly
before they expire and fetched once however many threads want them. A job that
says which repositories it will read gets one token for many of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from conforma.cancellation import Cancellation
from conforma.errors import AccessDenied, BadResponse
from conforma.oci.flights import Flights
from conforma.oci.reference import Reference, is_loopback_host
from conforma.oci.target import server_of

if TYPE_CHECKING:
    from conforma.oci.challenge import Challenge
    from conforma.oci.credentials import Credential, Keychain
    from conforma.oci.tokens import Token, TokenRequest

# A token lists what it allows and travels with every request; servers refuse
# heads over 8 KiB, and each name costs up to four thirds of itself and 60 bytes.
_WIDEST: Final = 24
_LONGEST_SCOPES: Final = 2048


class Authorizer:
    """Knows the ``Authorization`` header for a request. Thread safe."""

    def __init__(
        self,
        environment: Mapping[str, str],
        ask: Callable[[TokenRequest], bytes],
        scheme: Callable[[str], str],
        cancellation: Cancellation,
    ) -> None:
        self._environment = environment
        self._cancellation = cancellation
        self._keys: Keychain | None = None
        self._ask = ask
        self._scheme = scheme
        self._lock = threading.Lock()
        self._flights: Flights[Token] = Flights(cancellation)
        self._challenges: dict[str, Challenge] = {}
        self._tokens: dict[tuple[str, ...], Token] = {}
        self._groups: dict[str, tuple[Reference, ...]] = {}
        """The repositories that share a token, by the name of each."""
        self._narrow_realms: set[str] = set()

    def expect(self, references: Iterable[Reference]) -> None:
        """These repositories are going to be read; where possible they share tokens."""
        by_registry: dict[str, dict[str, Reference]] = {}
        for reference in references:
            by_registry.setdefault(reference.registry, {})[reference.repository_name] = reference
        with self._lock:
            for repositories in by_registry.values():
                fresh = [r for name, r in repositories.items() if name not in self._groups]
                for group in _grouped(fresh):
                    self._groups.update((r.repository_name, group) for r in group)

    def header(self, reference: Reference, actions: str) -> str | None:
        """What the registry is known to want for ``actions`` (such as ``pull``); may fetch a token."""
        challenge = self._challenges.get(reference.registry)
        if challenge is None:
            return None
        return self._response_to(challenge, reference, actions)

    def answer(
        self, reference: Reference, actions: str, headers: list[str], shown: str | None
    ) -> str | None:
        """The header to try after a 401, or ``None`` if there is nothing else to show.

        ``shown`` is the header that was refused; a token like it is forgotten,
        and one that was meant for several repositories is not used for this one again.
        Raises ``AccessDenied`` if the token service refuses.
        """
        # Deferred, as all that answers a challenge: many registries ask for nothing.
        from conforma.oci.challenge import parse_challenges

        known = {c.scheme: c for c in reversed(parse_challenges(headers))}
        challenge = known.get("bearer") or known.get("basic")
        if challenge is None:
            return None
        if challenge.scheme == "bearer":
            self._check_realm(challenge, reference)
        with self._lock:
            self._challenges[reference.registry] = challenge
            if shown is not None:
                self._groups[reference.repository_name] = ()
            for key in [k for k, token in self._tokens.items() if token.header == shown]:
                del self._tokens[key]
        header = self._response_to(challenge, reference, actions)
        return None if header == shown else header

    def hint(self, reference: Reference) -> str:
        """What to try after the registry refused us for good."""
        found = self._keychain().find(reference)
        if found is not None:
            return f"the credentials from {found.origin} do not suffice; it may also not exist"
        trouble = self._keychain().trouble(reference)
        if trouble is not None:
            return f"it was asked without credentials, because the {trouble}"
        return (
            f"no credentials for {reference.registry} were found; log in, "
            "or name a file with them in REGISTRY_AUTH_FILE"
        )

    def _keychain(self) -> Keychain:
        """Where credentials are found, made when a registry first asks for any."""
        from conforma.oci.credentials import Keychain

        with self._lock:
            if self._keys is None:
                self._keys = Keychain(self._environment, self._cancellation)
            return self._keys

    def _response_to(self, challenge: Challenge, reference: Reference, actions: str) -> str | None:
        credential = self._keychain().find(reference)
        if challenge.scheme == "basic":
            return credential.basic() if credential and credential.password else None
        if credential and credential.registry_token:
            return f"Bearer {credential.registry_token}"
        group = self._groups.get(reference.repository_name, ())
        if actions == "pull" and len(group) > 1 and challenge["realm"] not in self._narrow_realms:
            shared = self._shared(challenge, reference, group, credential)
            if shared is not None:
                return shared.header
        return self._token(
            challenge, reference, _scopes(challenge, reference, actions), credential
        ).header

    def _shared(
        self,
        challenge: Challenge,
        reference: Reference,
        group: tuple[Reference, ...],
        credential: Credential | None,
    ) -> Token | None:
        """One token for all repositories of the group that are read with the same credential."""
        ours = _identity(credential)
        scopes = tuple(
            f"repository:{r.repository}:pull"
            for r in group
            if _identity(self._keychain().find(r)) == ours
        )
        try:
            return self._token(challenge, reference, scopes, credential)
        except (AccessDenied, BadResponse):
            # A service that does not know how, or refuses all because of one.
            self._narrow_realms.add(challenge["realm"])
            return None

    def _token(
        self,
        challenge: Challenge,
        reference: Reference,
        scopes: tuple[str, ...],
        credential: Credential | None,
    ) -> Token:
        key = (challenge["realm"], challenge["service"], *scopes, _identity(credential))
        token = self._tokens.get(key)
        if token is None or token.renew_at <= time.monotonic():
            token = self._flights.run(
                key, lambda: self._fetch(key, challenge, reference, scopes, credential)
            )
        return token

    def _fetch(
        self,
        key: tuple[str, ...],
        challenge: Challenge,
        reference: Reference,
        scopes: tuple[str, ...],
        credential: Credential | None,
    ) -> Token:
        from conforma.oci.tokens import parse_token, token_request

        found = self._tokens.get(key)
        if found is not None and found.renew_at > time.monotonic():
            return found  # fetched between our look and our turn
        asked_at = time.monotonic()
        body = self._ask(token_request(challenge, reference, scopes, credential))
        token = parse_token(body, asked_at, f"{reference}: token service {challenge['realm']}")
        with self._lock:
            self._tokens[key] = token
        return token

    def _check_realm(self, challenge: Challenge, reference: Reference) -> None:
        """Refuse to send credentials where the registry itself is not.

        A registry may name any public token service: what it is shown there
        is its own. It may not make us talk to our own machine or network
        equipment, to a private address unless it is at one itself, nor
        without TLS.
        """
        from urllib.parse import urlsplit

        from conforma.oci.redirects import is_in_private, is_internal, is_private

        realm = urlsplit(challenge["realm"])
        host = realm.hostname or ""
        at_home = is_loopback_host(reference.registry)
        scheme_fits = realm.scheme == "https" or (
            realm.scheme == "http" and self._scheme(reference.registry) == "http"
        )
        strange = is_internal(host) or (
            is_private(host) and not is_in_private(server_of("https", reference.registry)[0].host)
        )
        if not host or not scheme_fits or (strange and not at_home):
            raise AccessDenied(
                f"{reference}: the registry names a token service we do not talk to: "
                f"{challenge['realm'].partition('?')[0][:200]!r}",
                hint="it must be an https address, and not one of this machine or of a private network",
            )


def _grouped(references: list[Reference]) -> list[tuple[Reference, ...]]:
    groups: list[tuple[Reference, ...]] = []
    group: list[Reference] = []
    length = 0
    for reference in references:
        if group and (
            len(group) == _WIDEST or length + len(reference.repository) > _LONGEST_SCOPES
        ):
            groups.append(tuple(group))
            group, length = [], 0
        group.append(reference)
        length += len(reference.repository)
    return [*groups, tuple(group)] if group else groups


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
