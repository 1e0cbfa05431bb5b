"""Single files and archives over https as sources."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from conforma.cancellation import Cancellation
from conforma.errors import ConformaError, InputError, PolicyError, SourceUnavailable, TooLarge
from conforma.oci.retry import LONGEST_RETRY_AFTER, TRANSIENT, RetryPolicy, retry_after
from conforma.policy.archive import is_archive, unpack
from conforma.policy.files import MOST_BYTES
from conforma.policy.source_url import without_secrets

if TYPE_CHECKING:
    import httpx

_SECONDS: Final = 30.0


class Http:
    """Downloads over https. Thread safe; ``user_agent`` introduces us."""

    def __init__(
        self,
        cancellation: Cancellation,
        retry: RetryPolicy | None = None,
        user_agent: str = "conforma",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._cancellation = cancellation
        self._retry = retry or RetryPolicy()
        self._user_agent = user_agent
        self._environment = os.environ if environment is None else environment

    def fetch(self, source: str, destination: Path) -> None:
        """Put the file ``source`` names into the directory ``destination``; archives are unpacked.

        Raises ``PolicyError`` if the server has no such file, ``SourceUnavailable``
        if that could not be learnt, and what unpacking raises.
        """
        url = source if "://" in source else f"https://{source.removeprefix('http::')}"
        name = unquote(urlsplit(url).path).rpartition("/")[2]
        if name in ("", ".", "..") or "\0" in name:
            raise InputError(f"{without_secrets(url)}: specify a path to a file to download")
        destination.mkdir(parents=True, exist_ok=True)
        archive = is_archive(name)
        target = destination.with_suffix(".download") if archive else destination / name
        self._download(url, target)
        if archive:
            unpack(target, destination, self._cancellation, name=name)
            target.unlink()

    def _download(self, url: str, target: Path) -> None:
        import httpx

        from conforma.oci.options import Patience
        from conforma.oci.proxies import Proxies
        from conforma.oci.relay import Relay
        from conforma.oci.tls import client_context
        from conforma.oci.transport import Transport

        relay = Relay(
            Transport(
                patience=Patience(connect=_SECONDS, head=_SECONDS, read=_SECONDS),
                most={"small": 2, "bulk": 2},
                tls=lambda: client_context(self._environment),
                proxies=Proxies.from_environment(self._environment),
            )
        )
        forget = self._cancellation.on_cancel(relay.close)
        try:
            with httpx.Client(
                transport=relay,
                follow_redirects=True,
                max_redirects=10,
                headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity"},
                event_hooks={"request": [_refuse_plain]},
                trust_env=False,
            ) as client:
                self._until_it_works(client, url, target)
        finally:
            forget()

    def _until_it_works(self, client: httpx.Client, url: str, target: Path) -> None:
        import httpx

        shown, failures = without_secrets(url), 0
        while True:
            pause: float | None = None
            try:
                with client.stream("GET", url) as answer:
                    if answer.status_code == 200:
                        return self._save(answer, shown, target)
                    failure: ConformaError = _refused(answer.status_code, shown)
                    throttled = answer.status_code == 429
                    transient = throttled or answer.status_code in TRANSIENT
                    pause = retry_after(answer.headers.get("Retry-After"))
            except httpx.TooManyRedirects as cause:
                raise SourceUnavailable(f"{shown}: redirected too often") from cause
            except (httpx.HTTPError, httpx.InvalidURL) as cause:
                self._cancellation.raise_if_cancelled()
                failure = SourceUnavailable(
                    f"failed to download from URL: {shown}: {cause}",
                    hint="check the host name, the network and SSL_CERT_FILE",
                )
                failure.__cause__ = cause
                transient, throttled = isinstance(cause, httpx.TransportError), False
            failures += 1
            if not transient or failures >= self._retry.attempts(throttled=throttled):
                raise failure
            if pause is not None and pause > LONGEST_RETRY_AFTER:
                raise failure
            self._cancellation.wait(max(pause or 0.0, self._retry.pause(failures)))

    def _save(self, answer: httpx.Response, shown: str, target: Path) -> None:
        size = 0
        with target.open("wb") as out:
            for chunk in answer.iter_raw():
                self._cancellation.raise_if_cancelled()
                size += len(chunk)
                if size > MOST_BYTES:
                    raise TooLarge(f"{shown}: larger than {MOST_BYTES >> 20} MiB")
                out.write(chunk)


def _refuse_plain(request: httpx.Request) -> None:
    if request.url.scheme != "https":
        shown = without_secrets(str(request.url))
        raise PolicyError(f"attempting to download from insecure source: {shown}")


def _refused(status: int, shown: str) -> ConformaError:
    message = f"received non-200 response code: {status}"
    if status in (404, 410):
        return PolicyError(message, hint=f"{shown} does not exist")
    if status in (401, 403):
        return SourceUnavailable(message, hint=f"{shown} needs other credentials")
    return SourceUnavailable(message, hint=f"{shown} cannot be had now")
