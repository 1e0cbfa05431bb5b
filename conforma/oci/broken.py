"""How a request can fail to get a complete answer.

The names are those of httpx, whose meaning of them is kept; importing httpx
itself takes longer than many runs need for all their requests.
"""

from __future__ import annotations


class TransportError(Exception):
    """There is no complete answer. What a socket or TLS said is the cause, if it said anything."""


class Timeout(TransportError):
    """Something took too long."""


class ConnectTimeout(Timeout):
    """No connection in time."""


class ReadTimeout(Timeout):
    """The answer did not come, or not fast enough."""


class WriteTimeout(Timeout):
    """The request was not taken."""


class PoolTimeout(Timeout):
    """No place in the pool in time."""


class ConnectError(TransportError):
    """No connection."""


class ReadError(TransportError):
    """The connection broke within the answer."""


class WriteError(TransportError):
    """The connection broke within the request."""


class RemoteProtocolError(TransportError):
    """What came is no answer."""


class LocalProtocolError(TransportError):
    """What was to be sent is no request."""


class ProxyError(TransportError):
    """The proxy refused."""


class UnsupportedProtocol(TransportError):
    """Neither http nor https."""
