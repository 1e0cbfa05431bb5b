"""Which proxy a request goes through, from the environment everybody uses.

``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` (also in lower
case) mean what they mean to Go programs: names match with their sub-domains,
addresses may be CIDR blocks, and loopback never goes through a proxy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from msgspec import Struct, field

from conforma.oci.reference import is_loopback_host


class Proxies(Struct, frozen=True):
    """Proxy URLs by scheme, and the hosts that are reached without one."""

    by_scheme: Mapping[str, str] = field(default_factory=dict)
    direct: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Proxies:
        """What the variables of ``environment`` say."""

        def value(name: str) -> str:
            return (environment.get(name.lower()) or environment.get(name.upper()) or "").strip()

        fallback = value("all_proxy")
        found = {s: value(f"{s}_proxy") or fallback for s in ("http", "https")}
        direct = tuple(p for part in value("no_proxy").split(",") if (p := part.strip().lower()))
        return cls({s: _with_scheme(url) for s, url in found.items() if url}, direct)

    def for_host(self, scheme: str, host: str, port: int) -> str | None:
        """The URL of the proxy for requests to ``host``, or ``None`` for a direct connection."""
        proxy = self.by_scheme.get(scheme)
        if proxy is None or is_loopback_host(f"[{host}]" if ":" in host else host):
            return None
        return None if any(_covers(p, host.lower(), port) for p in self.direct) else proxy


def _with_scheme(url: str) -> str:
    return url if "://" in url else f"http://{url}"


def _covers(pattern: str, host: str, port: int) -> bool:
    if pattern == "*":
        return True
    try:
        address = ipaddress.ip_address(host)
        return address in ipaddress.ip_network(_bare(pattern), strict=False)
    except ValueError:
        pass
    name, colon, only_port = pattern.rpartition(":")
    if colon and only_port.isdigit():
        if int(only_port) != port:
            return False
        pattern = name
    pattern = pattern.removeprefix("*").removeprefix(".")
    return host == pattern or host.endswith(f".{pattern}")


def _bare(pattern: str) -> str:
    return pattern.replace("[", "").replace("]", "")
