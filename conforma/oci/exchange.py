"""From one logical request to an answer: authentication, redirects and repetition.

The only place in the program that repeats requests. Nothing here knows what a
manifest is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Final

import httpx

from conforma.cancellation import Cancellation
from conforma.errors import AccessDenied, BadResponse, RateLimited, RegistryError, TooLarge
from conforma.oci import faults
from conforma.oci.attempts import Attempts
from conforma.oci.auth import Authorizer, TokenRequest
from conforma.oci.credentials import Keychain
from conforma.oci.meter import Meter
from conforma.oci.options import RegistryOptions
from conforma.oci.redirects import REDIRECTS, follow
from conforma.oci.retry import TRANSIENT, retry_after
from conforma.oci.sender import Ask, Sender
from conforma.oci.throttle import Throttle
from conforma.oci.transport import origin_of

_LONGEST_TOKEN_ANSWER: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer, its body within the limit."""

    status: int
    headers: httpx.Headers
    body: bytes


class Exchange:
    """Sends :class:`Ask` and returns answers. Thread safe."""

    def __init__(self, options: RegistryOptions, cancellation: Cancellation, meter: Meter) -> None:
        self._options = options
        self._cancellation = cancellation
        self._meter = meter
        self._sender = Sender(options, meter)
        self._pool = self._sender.transport.pool
        self._throttle = Throttle(cancellation, meter)
        self._authorizer = Authorizer(
            Keychain(options.environment, cancellation),
            self._fetch_token,
            options.scheme,
            cancellation,
        )
        self._acquainted: set[str] = set()
        self._introductions: dict[str, threading.Lock] = {}
        self._unregister = cancellation.on_cancel(self._sender.transport.close)

    def close(self) -> None:
        """Cut every connection."""
        self._unregister()
        self._sender.close()

    def url(self, ask: Ask) -> httpx.URL:
        """Where ``ask`` goes first."""
        if ask.is_elsewhere:
            return httpx.URL(ask.path)
        registry = ask.reference.registry
        scheme = self._options.scheme(registry)
        return httpx.URL(f"{scheme}://{registry}/v2/{ask.reference.repository}/{ask.path}")

    def attempts(self, most: int | None = None) -> Attempts:
        """A fresh count of attempts, for one logical request."""
        return Attempts(self._options.retry, self._throttle, self._cancellation, self._meter, most)

    def fetch(self, ask: Ask, limit: int) -> Answer:
        """The complete answer. Raises ``RegistryError``; ``TooLarge`` beyond ``limit`` bytes."""
        attempts = self.attempts()
        while True:
            with closing(self.respond(ask, attempts)) as response:
                try:
                    body = self._read(response, limit, ask)
                except httpx.TransportError as cause:
                    response.close()  # nobody waits with a place in the lane
                    attempts.failed(self.explained(ask, cause), cause)
                    continue
                return Answer(response.status_code, response.headers, body)

    def respond(self, ask: Ask, attempts: Attempts) -> httpx.Response:
        """An answer with an expected status, its body still to be read; the caller closes it.

        Raises ``RegistryError`` once ``attempts`` are used up.
        """
        url = self.url(ask)
        if self._options.offline:
            raise faults.offline(ask.reference, ask.method, url)
        origin = origin_of(url)
        while True:
            self._throttle.wait(origin, nested=ask.actions is None)
            attempts.count += 1
            try:
                response, redirected = self._authorized(ask, url, attempts.count)
                if response.status_code in ask.expected:
                    self._pool.adapt(origin, overloaded=False)
                    return response
                self._refused(ask, url, response, attempts, redirected=redirected)
            except httpx.TransportError as cause:
                error = self.explained(ask, cause)
                if not faults.may_pass(cause):
                    raise error from cause
                self._pool.adapt(origin, overloaded=True)
                attempts.failed(error, cause)
            finally:
                self._throttle.answered(origin)

    def explained(self, ask: Ask, cause: httpx.TransportError) -> RegistryError:
        """The error for a broken connection; raises ``Interrupted`` if we broke it ourselves."""
        self._cancellation.raise_if_cancelled()
        return faults.broken(ask.reference, ask.method, self.url(ask), cause)

    def _authorized(self, ask: Ask, url: httpx.URL, attempt: int) -> tuple[httpx.Response, bool]:
        """The answer after at most one round of authentication, and whether we were redirected."""
        actions = ask.actions
        if ask.is_elsewhere and origin_of(url) != origin_of(
            self.url(Ask("GET", ask.reference, ""))
        ):
            # An upload or a page on another host must do without our credentials.
            actions = None
        if actions is None:
            shown, response = None, self._sender.send(ask, url, None, attempt)
        else:
            with self._introduced(ask.reference.registry):
                shown, response = self._with_credentials(ask, url, actions, attempt)
        if response.status_code not in REDIRECTS or ask.method not in ("GET", "HEAD"):
            return response, False
        origin = origin_of(url)

        def forward(target: httpx.URL) -> httpx.Response:
            credentials = shown if origin_of(target) == origin else None
            return self._sender.send(ask, target, credentials, attempt)

        plain = self._options.scheme(ask.reference.registry) == "http"
        return follow(response, forward, ask.reference, plain=plain), True

    def _with_credentials(
        self, ask: Ask, url: httpx.URL, actions: str, attempt: int
    ) -> tuple[str | None, httpx.Response]:
        shown = self._authorizer.header(ask.reference, actions)
        response = self._sender.send(ask, url, shown, attempt)
        if response.status_code == 401:
            challenges = response.headers.get_list("www-authenticate")
            # Read before we fetch a token: the lane may have room for one only.
            body = self._error_body(response)
            other = self._authorizer.answer(ask.reference, actions, challenges, shown)
            if other is None:
                raise self._denied(ask, url, 401, body)
            shown = other
            response = self._sender.send(ask, url, shown, attempt)
        return shown, response

    @contextmanager
    def _introduced(self, registry: str) -> Iterator[None]:
        """Let one request find out what a registry wants to be shown before the others go."""
        if registry in self._acquainted:
            yield
            return
        lock = self._introductions.setdefault(registry, threading.Lock())
        lock.acquire()
        first = registry not in self._acquainted
        if not first:
            lock.release()
        try:
            yield
        finally:
            if first:
                # Also after a failure: a registry that is down must not be
                # waited for in turns.
                self._acquainted.add(registry)
                lock.release()

    def _refused(
        self,
        ask: Ask,
        url: httpx.URL,
        response: httpx.Response,
        attempts: Attempts,
        *,
        redirected: bool,
    ) -> None:
        """Return after a wait if another attempt is due, else raise what the status means."""
        body = self._error_body(response)
        status = response.status_code
        origin = origin_of(url)
        error = faults.refused(ask.method, url, status, body)
        if isinstance(error, RateLimited):
            self._pool.adapt(origin, overloaded=True)
            attempts.throttled(error, retry_after(response.headers.get("retry-after")), origin)
        elif status in TRANSIENT or (redirected and status in (401, 403)):
            # A storage back end refuses an address that expired meanwhile; the
            # registry hands out a new one.
            self._pool.adapt(origin, overloaded=status == 503)
            attempts.failed(error)
        elif isinstance(error, AccessDenied):
            raise self._denied(ask, url, status, body)
        else:
            raise error

    def _denied(self, ask: Ask, url: httpx.URL, status: int, body: bytes) -> RegistryError:
        hint = self._authorizer.hint(ask.reference)
        return faults.refused(ask.method, url, status, body, hint=hint)

    def _error_body(self, response: httpx.Response) -> bytes:
        body = b""
        with closing(response):
            try:
                for chunk in response.iter_raw():
                    body += chunk
                    if len(body) > faults.LONGEST_ERROR_BODY:
                        break
            except httpx.TransportError:
                # The status is what counts; half a reason is better than none.
                self._cancellation.raise_if_cancelled()
        return body[: faults.LONGEST_ERROR_BODY]

    def _read(self, response: httpx.Response, limit: int, ask: Ask) -> bytes:
        body = bytearray()
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > limit:
                raise TooLarge(
                    f"{ask.reference}: {ask.method} {faults.shown_url(self.url(ask))}: "
                    f"the answer is larger than the limit of {limit} bytes"
                )
        self._meter.add(received_bytes=len(body))
        return bytes(body)

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
            return self.fetch(ask, _LONGEST_TOKEN_ANSWER).body
        except (AccessDenied, BadResponse) as cause:
            raise AccessDenied(
                f"{request.reference}: the token service refused: {cause.message}",
                hint=self._authorizer.hint(request.reference),
            ) from cause
