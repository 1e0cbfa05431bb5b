"""Where one request goes: a server, and what is asked of it there.

The many small requests are put together from text; ``httpx.URL`` reads what a
server wrote (redirects, realms, upload locations), where its care is worth its time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import httpx

from conforma.oci.pool import Origin
from conforma.oci.transport import origin_of


@dataclass(frozen=True, slots=True)
class Target:
    """A server and the path and query that are sent to it."""

    origin: Origin
    host: str
    """The value of the ``Host`` header."""
    resource: str

    @classmethod
    def of(cls, url: httpx.URL) -> Target:
        """The target of a complete URL."""
        return cls(origin_of(url), url.netloc.decode("ascii"), url.raw_path.decode("ascii"))

    @property
    def url(self) -> httpx.URL:
        """The same as a URL."""
        return httpx.URL(f"{self.origin.scheme}://{self.host}{self.resource}")

    def __str__(self) -> str:
        """For messages: without user, password and query, where secrets travel."""
        return f"{self.origin.scheme}://{self.host}{self.resource.partition('?')[0]}"


@lru_cache(maxsize=1024)
def server_of(scheme: str, registry: str) -> tuple[Origin, str]:
    """The server of a registry and the value of its ``Host`` header."""
    url = httpx.URL(f"{scheme}://{registry}/")
    return origin_of(url), url.netloc.decode("ascii")
