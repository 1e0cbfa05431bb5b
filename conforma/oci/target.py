"""Where one request goes: a server, and what is asked of it there.

The many small requests are put together from text; ``httpx.URL`` reads what a
server wrote (redirects, realms, upload locations), where its care is worth its
time, and names of registries that are not as plain as nearly all are.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from conforma.oci.pool import Origin

if TYPE_CHECKING:
    import httpx

_PORTS: Final = {"http": 80, "https": 443}
# No address with all its rules, unless it is that of this machine, and no encoded name.
_PLAIN: Final = re.compile(
    r"(?!.*xn--)(127\.0\.0\.1|(?:[a-z0-9-]+\.)*[a-z][a-z0-9-]*)(?::([1-9][0-9]{0,4}))?"
)


class Target(Struct, frozen=True):
    """A server and the path and query that are sent to it."""

    origin: Origin
    host: str
    """The value of the ``Host`` header."""
    resource: str

    @classmethod
    def of(cls, url: httpx.URL) -> Target:
        """The target of a complete URL."""
        return cls(origin_of(url), url.netloc.decode("ascii"), url.raw_path.decode("ascii"))

    @classmethod
    def parse(cls, url: str) -> Target:
        """The target of a complete URL as text."""
        import httpx

        return cls.of(httpx.URL(url))

    @property
    def url(self) -> httpx.URL:
        """The same as a URL."""
        import httpx

        return httpx.URL(f"{self.origin.scheme}://{self.host}{self.resource}")

    def __str__(self) -> str:
        """For messages: without user, password and query, where secrets travel."""
        return f"{self.origin.scheme}://{self.host}{self.resource.partition('?')[0]}"


@lru_cache(maxsize=1024)
def server_of(scheme: str, registry: str) -> tuple[Origin, str]:
    """The server of a registry and the value of its ``Host`` header."""
    plain = _PLAIN.fullmatch(registry)
    if plain is not None:
        port = int(plain[2] or _PORTS[scheme])
        return Origin(scheme, plain[1], port), plain[1] if port == _PORTS[scheme] else registry
    import httpx

    url = httpx.URL(f"{scheme}://{registry}/")
    return origin_of(url), url.netloc.decode("ascii")


def origin_of(url: httpx.URL) -> Origin:
    """The server a URL points to."""
    return Origin(url.scheme, url.host, url.port or _PORTS.get(url.scheme, 443))
