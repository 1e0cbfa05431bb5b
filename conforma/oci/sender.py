"""One request on the wire: the headers everybody gets, counted and observed.

Questions (GET and HEAD) go over our connections the short way; everything
else, and whatever needs a proxy, through an ``httpx.Client`` over the same
connections, made when it is first needed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field
from msgspec.structs import replace

from conforma.oci import broken
from conforma.oci.meter import Meter
from conforma.oci.options import Lane, RegistryOptions, RequestSeen
from conforma.oci.proxies import Proxies
from conforma.oci.reference import Reference
from conforma.oci.target import Target
from conforma.oci.tls import client_context
from conforma.oci.transport import Received, Transport

if TYPE_CHECKING:
    from conforma.oci.relay import Client, Relayed

_READING: Final = frozenset({"GET", "HEAD"})


class Ask(Struct, frozen=True):
    """One logical request for something in the repository of ``reference``."""

    method: str
    reference: Reference
    path: str
    """Below ``/v2/<repository>/``, or a whole URL."""
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | Callable[[], Iterable[bytes]] | None = None
    """A body that is called yields it anew for each attempt; its length is among the headers."""
    expected: frozenset[int] = frozenset({200})
    actions: str | None = "pull"
    """What a token must allow; ``None`` to send no credentials at all."""
    lane: Lane = "small"

    @property
    def is_elsewhere(self) -> bool:
        """Whether ``path`` is a whole URL, perhaps on another host."""
        return "://" in self.path

    def __repr__(self) -> str:
        return f"Ask({self.method!r}, {self.path!r})"  # headers and content can hold secrets


class Response:
    """The head of an answer, and its body to be read once or closed."""

    __slots__ = (
        "_finish", "_stream", "headers", "mirror", "place", "received", "status_code", "target",
    )  # fmt: skip

    def __init__(
        self,
        target: Target,
        stream: Received | Relayed,
        finish: Callable[[Response], None] | None,
    ) -> None:
        self.target = target
        self.status_code = stream.status
        self.headers = stream.headers
        """Values by lower-case name."""
        self.received = 0
        """Bytes of the body read so far."""
        self.place = ""
        """The registry that answered, whoever then stored the bytes for it."""
        self.mirror = False
        self._stream = stream
        self._finish = finish

    def values(self, name: str) -> list[str]:
        """Each value of a header that may come more than once; ``name`` in lower case."""
        return [value for key, value in self._stream.pairs if key.lower() == name]

    def chunks(self) -> Iterator[bytes]:
        """The body. Raises ``broken.TransportError``."""
        for chunk in self._stream:
            self.received += len(chunk)
            yield chunk
        self.close()

    def close(self) -> None:
        """The body is read or not wanted."""
        self._stream.close()
        finish, self._finish = self._finish, None
        if finish is not None:
            finish(self)


class Sender:
    """The HTTP client of a run. Thread safe."""

    def __init__(self, options: RegistryOptions, meter: Meter) -> None:
        self._meter = meter
        self._observer = options.observer
        environment = options.environment
        self.transport = Transport(
            patience=options.patience,
            most={"small": options.small_requests, "bulk": options.bulk_transfers},
            tls=lambda: client_context(environment),
            proxies=Proxies.from_environment(environment),
        )
        common = {"User-Agent": options.user_agent, "Accept-Encoding": "identity"}
        self._common = "".join(f"{name}: {_clean(value)}\r\n" for name, value in common.items())
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._patience = options.patience
        self._headers = common

    def send(
        self, ask: Ask, target: Target, authorization: str | None, attempt: int, waited: float
    ) -> Response:
        """The head of the answer; the caller closes it. Raises ``broken.TransportError``.

        ``attempt`` and ``waited`` (seconds) are what an observer is told.
        """
        headers = ask.headers
        if authorization is not None:
            headers = {**headers, "Authorization": authorization}
        sent = len(ask.content) if isinstance(ask.content, bytes) else 0
        started, queued = time.monotonic(), 0.0
        answer: Received | Relayed
        try:
            if ask.method in _READING and self.transport.proxy_for(target.origin) is None:
                answer = self._directly(ask, target, headers)
            else:
                answer = self._through_client(ask, target, headers)
            queued = answer.queued
        except broken.TransportError as cause:
            if self._observer is not None:
                problem = f"{type(cause).__name__}: {cause}"
                unanswered = _seen(ask, target, attempt, started, limiter=waited, sent=sent)
                self._observer(replace(unanswered, problem=problem))
            raise
        finally:
            self._meter.add(
                requests=1,
                retries=int(attempt > 1),
                sent_bytes=sent,
                waited_lane=queued,
                waited_limiter=waited,
            )
        observer = self._observer
        if observer is None:
            return Response(target, answer, None)
        seconds = time.monotonic() - started - queued

        def finish(response: Response) -> None:
            seen = _seen(ask, target, attempt, started, limiter=waited, sent=sent)
            observer(
                replace(
                    seen,
                    status=response.status_code,
                    seconds=seconds,
                    lane=queued,
                    received=response.received,
                )
            )

        return Response(target, answer, finish)

    def _directly(self, ask: Ask, target: Target, headers: Mapping[str, str]) -> Received:
        lines = "".join([f"{name}: {_clean(value)}\r\n" for name, value in headers.items()])
        head = (
            f"{ask.method} {_clean(target.resource)} HTTP/1.1\r\nHost: {target.host}\r\n"
            f"{self._common}{lines}\r\n"
        )
        return self.transport.exchange(target.origin, ask.lane, ask.method, head.encode("latin-1"))

    def _through_client(self, ask: Ask, target: Target, headers: Mapping[str, str]) -> Relayed:
        from conforma.oci.relay import Client

        with self._lock:
            if self._client is None:
                self._client = Client(self.transport, self._patience, self._headers)
        content = ask.content() if callable(ask.content) else ask.content
        return self._client.send(ask.method, target.url, headers, content, ask.lane)

    def close(self) -> None:
        """Cut every connection. Never blocks; safe to call from a signal handler."""
        self.transport.close()
        if self._client is not None:
            self._client.close()


def _seen(
    ask: Ask, target: Target, attempt: int, started: float, *, limiter: float, sent: int
) -> RequestSeen:
    """What is known of a request that began at ``started`` (monotonic) and is over now."""
    whole = time.monotonic() - started
    return RequestSeen(
        ask.method,
        str(target),
        status=None,
        seconds=whole,
        attempt=attempt,
        limiter=limiter,
        sent=sent,
        started=time.time() - whole,
        whole=whole,
    )


def _clean(value: str) -> str:
    """A header's value or a path as it is; a line break in it would begin another header."""
    if "\r" in value or "\n" in value or "\0" in value:
        raise broken.LocalProtocolError("a line break in a request")
    return value
