"""One request on the wire: the headers everybody gets, counted and observed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from conforma.oci import faults
from conforma.oci.meter import Meter
from conforma.oci.options import Lane, RegistryOptions, RequestSeen
from conforma.oci.proxies import Proxies
from conforma.oci.reference import Reference
from conforma.oci.tls import client_context
from conforma.oci.transport import LANE, Transport


@dataclass(frozen=True, slots=True)
class Ask:
    """One logical request for something in the repository of ``reference``."""

    method: str
    reference: Reference
    path: str
    """Below ``/v2/<repository>/``, or a whole URL."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    content: bytes | None = field(default=None, repr=False)
    expected: frozenset[int] = frozenset({200})
    actions: str | None = "pull"
    """What a token must allow; ``None`` to send no credentials at all."""
    lane: Lane = "small"

    @property
    def is_elsewhere(self) -> bool:
        """Whether ``path`` is a whole URL, perhaps on another host."""
        return "://" in self.path


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
        patience = options.patience
        self._client = httpx.Client(
            transport=self.transport,
            timeout=httpx.Timeout(
                patience.connect, read=patience.read, write=patience.read, pool=None
            ),
            headers={"User-Agent": options.user_agent, "Accept-Encoding": "identity"},
            follow_redirects=False,
            trust_env=False,
        )

    def send(
        self, ask: Ask, url: httpx.URL, authorization: str | None, attempt: int
    ) -> httpx.Response:
        """The head of the answer; the caller closes it. Raises ``httpx.TransportError``."""
        headers = dict(ask.headers)
        if authorization is not None:
            headers["Authorization"] = authorization
        request = self._client.build_request(
            ask.method, url, headers=headers, content=ask.content, extensions={LANE: ask.lane}
        )
        # Cookies would tie requests of different repositories together.
        self._client.cookies.clear()
        started = time.monotonic()
        status: int | None = None
        problem = ""
        try:
            response = self._client.send(request, stream=True)
            status = response.status_code
            return response
        except httpx.TransportError as cause:
            problem = f"{type(cause).__name__}: {cause}"
            raise
        finally:
            self._meter.add(
                requests=1, retries=int(attempt > 1), sent_bytes=len(ask.content or b"")
            )
            if self._observer is not None:
                seconds = time.monotonic() - started
                shown = faults.shown_url(url)
                self._observer(RequestSeen(ask.method, shown, status, seconds, attempt, problem))

    def close(self) -> None:
        """Cut every connection."""
        self._client.close()
