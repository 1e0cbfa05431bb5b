"""Bearer tokens: how they are asked for and what a token service answers.

As in the distribution project's token specification, and its OAuth2 form for
identity tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

from conforma.errors import BadResponse
from conforma.oci.challenge import Challenge
from conforma.oci.credentials import Credential
from conforma.oci.reference import Reference

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
class Token:
    """A header value, and the moment of the monotonic clock at which to renew it."""

    header: str = field(repr=False)
    renew_at: float


def token_request(
    challenge: Challenge,
    reference: Reference,
    scopes: tuple[str, ...],
    credential: Credential | None,
) -> TokenRequest:
    """The request for a token that allows all of ``scopes``. Raises ``InputError``."""
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


def parse_token(body: bytes, asked_at: float, what: str) -> Token:
    """The token in an answer. Raises ``BadResponse``, which never quotes it."""
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
    return Token(f"Bearer {value}", asked_at + max(seconds - _MARGIN, seconds / 2))
