"""What requests are answered that a registry's :class:`Access` does not let pass, and token requests."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from conforma.serve.auth import Access, Asked, BearerAuth
from conforma.serve.httpd import Incoming, Response
from conforma.serve.uploads import failure


def refusal(
    access: Access | None,
    incoming: Incoming,
    repository: str | None,
    actions: frozenset[str],
    url: str,
) -> Response | None:
    """The 401 that says how to ask, or ``None`` if the request may go on.

    ``actions`` (``pull``, ``push``) are what it wants to do in ``repository``;
    ``url`` is where the client reached us, without a path.
    """
    if access is None:
        return None
    asked = Asked(incoming.headers.get("authorization"), repository, actions, url)
    challenge = access.challenge(asked)
    if challenge is None:
        return None
    answer = failure(401, "UNAUTHORIZED", "authentication required")
    answer.headers["WWW-Authenticate"] = challenge
    return answer


def token(access: BearerAuth, incoming: Incoming) -> Response:
    """The answer of the token service; a client may name several scopes."""
    scopes = parse_qs(urlsplit(incoming.target).query).get("scope", [])
    document = access.issue(incoming.headers.get("authorization"), " ".join(scopes))
    if document is None:
        return failure(401, "UNAUTHORIZED", "wrong user or password")
    return Response.document(200, document)
