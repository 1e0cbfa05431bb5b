"""From one logical request to an answer: mirrors, authentication, redirects and repetition.

The only place in the program that repeats requests. Nothing here knows what a
manifest is.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from conforma.cancellation import Cancellation
from conforma.errors import AccessDenied, NotFound, RateLimited, RegistryError, TooLarge
from conforma.oci import broken, faults
from conforma.oci.attempts import Attempts
from conforma.oci.limiter import Limiter
from conforma.oci.login import Login
from conforma.oci.meter import Meter
from conforma.oci.options import Delivery, RegistryOptions
from conforma.oci.redirects import REDIRECTS, follow
from conforma.oci.reference import Reference
from conforma.oci.retry import TRANSIENT, retry_after
from conforma.oci.sender import Ask, Response, Sender
from conforma.oci.shared_state import SharedState
from conforma.oci.target import Target, server_of
from conforma.oci.throttle import Throttle

if TYPE_CHECKING:
    from conforma.oci.mirrors import Mirror

_log = logging.getLogger(__name__)
_NOT_FOUND: Final = frozenset({404})


class Answer(Struct, frozen=True):
    """A complete answer, its body within the limit. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    place: str
    """The registry that answered."""
    mirror: bool


class Exchange:
    """Sends :class:`Ask` and returns answers. Thread safe."""

    def __init__(self, options: RegistryOptions, cancellation: Cancellation, meter: Meter) -> None:
        self._options = options
        self._cancellation = cancellation
        self._meter = meter
        self._sender = Sender(options, meter)
        self.pool = self._sender.transport.pool
        self.throttle = Throttle(
            cancellation, meter, SharedState(options.state, "closed"), options.throttled
        )
        self._limiter = Limiter(
            options.rates, SharedState(options.state, "rate"), options.sleep or cancellation.wait
        )
        self.login = Login(options, cancellation, meter, self.fetch, self.target)
        self._complained: set[str] = set()
        self._unregister = cancellation.on_cancel(self._sender.close)

    def close(self) -> None:
        """Cut every connection."""
        self._unregister()
        self._sender.close()

    def target(self, ask: Ask) -> Target:
        """Where ``ask`` goes first."""
        if ask.is_elsewhere:
            return Target.parse(ask.path)
        reference = ask.reference
        origin, host = server_of(self._options.scheme(reference.registry), reference.registry)
        return Target(origin, host, f"/v2/{reference.repository}/{ask.path}")

    def attempts(self, most: int | None = None) -> Attempts:
        """A fresh count of attempts, for one logical request."""
        return Attempts(self._options.retry, self.throttle, self._cancellation, self._meter, most)

    def fetch(self, ask: Ask, limit: int) -> Answer:
        """The complete answer. Raises ``RegistryError``; ``TooLarge`` beyond ``limit`` bytes."""
        attempts = self.attempts()
        while True:
            response = self.respond(ask, attempts)
            try:
                body = self._read(response, limit, ask)
            except broken.TransportError as cause:
                response.close()  # nobody waits with a place in the lane
                attempts.failed(self.explained(ask, cause), cause)
                continue
            finally:
                response.close()
            if faults.is_throttled(response.status_code, body):
                # Some put the refusal into an answer that says that all is well.
                target = self.target(ask)
                self._refused(ask, target, response, attempts, body, redirected=False)
                continue
            return Answer(
                response.status_code, response.headers, body, response.place, response.mirror
            )

    def respond(self, ask: Ask, attempts: Attempts) -> Response:
        """An answer with an expected status, its body still to be read; the caller closes it.

        From a mirror if there is one that has it. Raises ``RegistryError``
        once ``attempts`` are used up.
        """
        mirror = self._options.mirrors.get(ask.reference.registry)
        if (
            mirror is not None
            and ask.actions == "pull"
            and not ask.is_elsewhere
            and mirror.may_answer(ask.path)
        ):
            there = replace(ask, reference=mirror.place_of(ask.reference))
            if mirror.final:
                answer = self._respond(there, attempts)
                answer.mirror = True
                return answer
            if attempts.count == 0:
                response = self._from_mirror(there, mirror)
                if response is not None:
                    attempts.count += 1
                    return response
        return self._respond(ask, attempts)

    def place_of_lists(self, reference: Reference) -> Reference:
        """Where lists are read: only a mirror that is final has complete ones."""
        mirror = self._options.mirrors.get(reference.registry)
        return mirror.place_of(reference) if mirror is not None and mirror.final else reference

    def _from_mirror(self, ask: Ask, mirror: Mirror) -> Response | None:
        """The mirror's answer, or ``None`` if the origin must be asked."""
        try:
            response = self._respond(
                replace(ask, expected=ask.expected - _NOT_FOUND), self.attempts()
            )
        except NotFound:
            return None
        except RegistryError as error:
            if mirror.host not in self._complained:
                self._complained.add(mirror.host)
                _log.warning("mirror %s is not used for this: %s", mirror.host, error.message)
            return None
        self._meter.add(mirrored=1)
        response.mirror = True
        return response

    def _respond(self, ask: Ask, attempts: Attempts) -> Response:
        target = self.target(ask)
        if self._options.offline:
            raise faults.offline(ask.reference, ask.method, target)
        origin = target.origin
        while True:
            first, waited = self.throttle.wait(origin, nested=ask.actions is None)
            attempts.count += 1
            try:
                response, redirected = self._authorized(ask, target, attempts.count, waited)
                if response.status_code in ask.expected:
                    response.place = ask.reference.registry
                    self.pool.adapt(origin, overloaded=False)
                    return response
                body = self.login.error_body(response)
                self._refused(ask, target, response, attempts, body, redirected=redirected)
            except broken.TransportError as cause:
                error = self.explained(ask, cause)
                if not faults.may_pass(cause):
                    raise error from cause
                self.pool.adapt(origin, overloaded=True)
                attempts.failed(error, cause)
            finally:
                if first:
                    self.throttle.answered(origin)

    def delivered(self, delivery: Delivery) -> None:
        """Tell whoever wants to know that content came whole."""
        if self._options.delivered is not None:
            self._options.delivered(delivery)

    def explained(self, ask: Ask, cause: broken.TransportError) -> RegistryError:
        """The error for a broken connection; raises ``Interrupted`` if we broke it ourselves."""
        self._cancellation.raise_if_cancelled()
        return faults.broken(ask.reference, ask.method, self.target(ask), cause)

    def _authorized(
        self, ask: Ask, target: Target, attempt: int, waited: float
    ) -> tuple[Response, bool]:
        """The answer after at most one round of authentication, and whether we were redirected."""

        def send(authorization: str | None) -> Response:
            nonlocal waited
            limited = waited + self._limiter.take(ask.reference.registry)
            waited = 0.0
            return self._sender.send(ask, target, authorization, attempt, limited)

        if ask.is_elsewhere and not self._is_at_home(ask, target):
            # An upload or a page on another host must do without our credentials.
            ask = replace(ask, actions=None)
        shown, response = self.login.introduced(ask, target, send)
        if response.status_code not in REDIRECTS or ask.method not in ("GET", "HEAD"):
            return response, False

        def forward(there: Target) -> Response:
            credentials = shown if there.origin == target.origin else None
            return self._sender.send(ask, there, credentials, attempt, 0.0)

        plain = self._options.scheme(ask.reference.registry) == "http"
        return follow(response, forward, ask.reference, plain=plain), True

    def _is_at_home(self, ask: Ask, target: Target) -> bool:
        return target.origin == self.target(Ask("GET", ask.reference, "")).origin

    def _refused(
        self,
        ask: Ask,
        target: Target,
        response: Response,
        attempts: Attempts,
        body: bytes,
        *,
        redirected: bool,
    ) -> None:
        """Return after a wait if another attempt is due, else raise what the answer means."""
        status = response.status_code
        origin = target.origin
        error = faults.refused(ask.method, target, status, body)
        if isinstance(error, RateLimited):
            self.pool.adapt(origin, overloaded=True)
            self._limiter.drain(ask.reference.registry)
            attempts.throttled(error, retry_after(response.headers.get("retry-after")), origin)
        elif status in TRANSIENT or (redirected and status in (401, 403)):
            # A storage back end refuses an address that expired meanwhile; the
            # registry hands out a new one.
            self.pool.adapt(origin, overloaded=status == 503)
            attempts.failed(error)
        elif isinstance(error, AccessDenied):
            raise self.login.denied(ask, target, status, body)
        else:
            raise error

    def _read(self, response: Response, limit: int, ask: Ask) -> bytes:
        body = b""
        for chunk in response.chunks():
            body = body + chunk if body else chunk
            if len(body) > limit:
                raise TooLarge(
                    f"{ask.reference}: {ask.method} {self.target(ask)}: "
                    f"the answer is larger than the limit of {limit} bytes"
                )
        if body:
            self._meter.add(received_bytes=len(body))
        return body
