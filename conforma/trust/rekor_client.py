"""Asking a Rekor log, with the manners of the registry client.

Its connections, time limits, pauses after 429 and repetitions are those that
registries get; only what is asked differs. Nothing is asked, and no HTTP
client is made, before a signature needs it.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from conforma.cancellation import Cancellation
from conforma.errors import (
    BadResponse,
    InputError,
    IntegrityError,
    LogUnavailable,
    NotFound,
    NotInLog,
    RegistryError,
)
from conforma.oci.options import MEBIBYTE, RegistryOptions
from conforma.oci.reference import Reference

if TYPE_CHECKING:
    from conforma.oci.exchange import Exchange

_LONGEST_ANSWER: Final = 32 * MEBIBYTE
_RETRIEVE: Final = "/api/v1/log/entries/retrieve"
_JSON: Final = {"Content-Type": "application/json", "Accept": "application/json"}


class RekorClient:
    """Sends queries to logs for one run. A context manager; thread safe."""

    def __init__(self, options: RegistryOptions, cancellation: Cancellation) -> None:
        self._options = options
        self._cancellation = cancellation
        self._lock = threading.Lock()
        self._exchange: Exchange | None = None

    def __enter__(self) -> RekorClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            if self._exchange is not None:
                self._exchange.close()

    def __call__(self, url: str, image: Reference, query: bytes) -> bytes | None:
        """The answer of the log at ``url`` to a query about ``image``; ``None`` for 404.

        Raises ``NotInLog`` if the log finds the query itself at fault (it checks
        signatures before it looks), ``LogUnavailable`` if it did not say, and
        ``InputError`` if ``url`` is none.
        """
        from conforma.oci.sender import Ask

        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise InputError(
                f"rekor URL: {url}: not an http or https URL", hint="see --rekor-url and rekorUrl"
            )
        ask = Ask("POST", image, f"{url.rstrip('/')}{_RETRIEVE}", _JSON, query)
        try:
            return self._connected().fetch(ask, _LONGEST_ANSWER).body
        except NotFound:
            return None
        except BadResponse as cause:
            raise NotInLog(f"searching log query: {cause.message}") from cause
        except (RegistryError, IntegrityError) as cause:
            raise LogUnavailable(
                f"{image}: searching log query: {cause.message}",
                hint="is the transparency log of --rekor-url running and reachable?",
            ) from cause

    def _connected(self) -> Exchange:
        from conforma.oci.exchange import Exchange
        from conforma.oci.meter import Meter

        with self._lock:
            if self._exchange is None:
                self._exchange = Exchange(self._options, self._cancellation, Meter())
            return self._exchange
