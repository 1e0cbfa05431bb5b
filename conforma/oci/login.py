"""Getting past the door of a registry: the first meeting, credentials, and refusals in words."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Final

from conforma.cancellation import Cancellation
from conforma.errors import AccessDenied, BadResponse, NotFound, RegistryError
from conforma.oci import broken, faults
from conforma.oci.auth import Authorizer
from conforma.oci.meter import Meter
from conforma.oci.options import RegistryOptions
from conforma.oci.sender import Ask, Response
from conforma.oci.target import Target

if TYPE_CHECKING:
    from conforma.oci.exchange import Answer
    from conforma.oci.tokens import TokenRequest

_LONGEST_TOKEN_ANSWER: Final = 256 * 1024

Send = Callable[[str | None], Response]
"""Sends a request with this ``Authorization`` header, or without one."""


class Login:
    """Knows who we are to each registry of the run. Thread safe."""

    def __init__(
        self,
        options: RegistryOptions,
        cancellation: Cancellation,
        meter: Meter,
        fetch: Callable[[Ask, int], Answer],
        target: Callable[[Ask], Target],
    ) -> None:
        self._cancellation = cancellation
        self._meter = meter
        self._fetch = fetch
        self._target = target
        self.authorizer = Authorizer(
            options.environment,
            self._fetch_token,
            options.scheme,
            cancellation,
        )
        self._acquainted: set[str] = set()
        self._introductions: dict[str, threading.Lock] = {}

    def introduced(self, ask: Ask, target: Target, send: Send) -> tuple[str | None, Response]:
        """The answer after at most one round of authentication, and the header that was shown.

        The first request to a registry goes alone, so that one request finds
        out what the registry wants to be shown and not all of them.
        """
        if ask.actions is None:
            return None, send(None)
        registry = ask.reference.registry
        if registry in self._acquainted:
            return self._with_credentials(ask, target, ask.actions, send)
        lock = self._introductions.setdefault(registry, threading.Lock())
        started = time.monotonic()
        with lock:
            self._meter.add(waited_lock=time.monotonic() - started)
            if registry not in self._acquainted:
                try:
                    return self._with_credentials(ask, target, ask.actions, send)
                finally:
                    # Also after a failure: a registry that is down must not be
                    # waited for in turns.
                    self._acquainted.add(registry)
        return self._with_credentials(ask, target, ask.actions, send)

    def _with_credentials(
        self, ask: Ask, target: Target, actions: str, send: Send
    ) -> tuple[str | None, Response]:
        shown = self.authorizer.header(ask.reference, actions)
        response = send(shown)
        if response.status_code == 401:
            challenges = response.values("www-authenticate")
            # Read before we fetch a token: the lane may have room for one only.
            body = self.error_body(response)
            other = self.authorizer.answer(ask.reference, actions, challenges, shown)
            if other is None:
                raise self.denied(ask, target, 401, body)
            shown = other
            response = send(shown)
        return shown, response

    def denied(self, ask: Ask, target: Target, status: int, body: bytes) -> RegistryError:
        """The error for a refusal after everything we have was shown."""
        hint = self.authorizer.hint(ask.reference)
        return faults.refused(ask.method, target, status, body, hint=hint)

    def error_body(self, response: Response) -> bytes:
        """What a refusal says, as far as it is worth reading; the response is closed."""
        body = b""
        with closing(response):
            try:
                for chunk in response.chunks():
                    body += chunk
                    if len(body) > faults.LONGEST_ERROR_BODY:
                        break
            except broken.TransportError:
                # The status is what counts; half a reason is better than none.
                self._cancellation.raise_if_cancelled()
        return body[: faults.LONGEST_ERROR_BODY]

    def _fetch_token(self, request: TokenRequest) -> bytes:
        headers: dict[str, str] = {}
        if request.authorization is not None:
            headers["Authorization"] = request.authorization
        if request.form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        ask = Ask(
            "GET" if request.form is None else "POST",
            request.reference,
            request.url,
            headers,
            request.form,
            actions=None,
        )
        self._meter.add(tokens=1)
        try:
            return self._fetch(ask, _LONGEST_TOKEN_ANSWER).body
        except (AccessDenied, BadResponse, NotFound) as cause:
            # Never "not found": that would say something about the image.
            raise AccessDenied(
                f"{request.reference}: the token service refused: {cause.message}",
                hint=self.authorizer.hint(request.reference),
            ) from cause
