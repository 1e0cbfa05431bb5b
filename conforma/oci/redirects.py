"""Where a registry may send us: to storage back ends, not around our own network."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from conforma.errors import BadResponse
from conforma.oci.reference import Reference, is_loopback_host
from conforma.oci.sender import Response
from conforma.oci.target import Target

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST: Final = 10


def follow(
    response: Response,
    send: Callable[[Target], Response],
    reference: Reference,
    *,
    plain: bool,
) -> Response:
    """The answer at the end of the redirects that start with ``response``.

    ``plain`` allows targets without TLS. Raises ``BadResponse`` for a loop, a
    missing or forbidden target.
    """
    hosts = [response.target.origin.host]
    for _ in range(_MOST):
        target = _target(response, reference, plain=plain)
        response.close()
        hosts.append(target.origin.host)
        response = send(target)
        if response.status_code not in REDIRECTS:
            return response
    response.close()
    raise BadResponse(f"{reference}: more than {_MOST} redirects: {' -> '.join(hosts)}")


def _target(response: Response, reference: Reference, *, plain: bool) -> Target:
    import httpx

    location = response.headers.get("location")
    if not location:
        response.close()
        raise BadResponse(f"{reference}: status {response.status_code} without a Location")
    try:
        target = response.target.url.join(location)
    except (httpx.InvalidURL, ValueError) as cause:
        response.close()
        raise BadResponse(f"{reference}: redirect to something that is no URL") from cause
    problem = None
    if target.scheme == "http" and not plain:
        problem = "without TLS"
    elif target.scheme not in ("http", "https") or not target.host:
        problem = f"to a {target.scheme[:20]!r} address"
    elif is_internal(target.host) and not is_loopback_host(reference.registry):
        problem = "to an address of this machine or its network equipment"
    if problem is not None:
        response.close()
        raise BadResponse(
            f"{reference}: refusing to follow a redirect {problem} (host {target.host[:200]!r})",
            hint="the registry, or something between it and us, is misconfigured",
        )
    return Target.of(target)


def is_internal(host: str) -> bool:
    """Whether ``host`` is this machine or a link-local address (cloud metadata services)."""
    if is_loopback_host(host.rstrip(".")):
        return True
    address = _address(host)
    return address is not None and (
        address.is_loopback or address.is_link_local or address.is_unspecified
    )


def is_private(host: str) -> bool:
    """Whether ``host`` is an address, not a name, within some private network."""
    address = _address(host)
    return address is not None and address.is_private


def is_in_private(host: str) -> bool:
    """Whether ``host``, perhaps a name, is within some private network; false if nobody knows it."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return any(is_private(str(place[4][0])) for place in found)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """The address that ``host`` is, in every form that a resolver takes for one (inet_aton(3))."""
    plain = host.strip("[]").rstrip(".").partition("%")[0]
    try:
        found = ip_address(plain)
    except ValueError:
        try:
            return IPv4Address(socket.inet_aton(plain))  # such as 127.1 and 0x7f000001
        except (OSError, UnicodeError):
            return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found
