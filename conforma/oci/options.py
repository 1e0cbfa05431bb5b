"""Every setting of the registry client in one value, each with its unit."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from conforma import __version__
from conforma.oci.reference import is_loopback_host
from conforma.oci.retry import RetryPolicy

MEBIBYTE: Final = 1024 * 1024

Lane = Literal["small", "bulk"]
"""Which requests share a limit: blob bodies, or everything else."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long we wait for a server. All in seconds, ``slowest`` in bytes per second.

    ``head`` bounds the time from the end of the request to the end of the
    answer's head, ``read`` each wait for more of a body, and a body that over
    ``window`` seconds of waiting brought less than ``slowest`` is given up.
    """

    connect: float = 10.0
    head: float = 60.0
    read: float = 30.0
    window: float = 30.0
    slowest: int = 256


@dataclass(frozen=True, slots=True)
class RequestSeen:
    """One request as it went over the network; its URL holds no secret."""

    method: str
    url: str
    status: int | None
    """``None`` if no answer came; then ``problem`` says why."""
    seconds: float
    attempt: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """How a :class:`~conforma.oci.registry.Registry` behaves. Sizes in bytes, times in seconds."""

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    patience: Patience = field(default_factory=Patience)
    user_agent: str = f"conforma/{__version__}"
    insecure: frozenset[str] = frozenset()
    """Registries (``host`` or ``host:port``) spoken to without TLS, besides loopback."""
    encrypted: frozenset[str] = frozenset()
    """Loopback registries that are spoken to with TLS all the same."""
    bulk_transfers: int = max(4, 2 * (os.cpu_count() or 1))
    """Most blob bodies at once from one host."""
    small_requests: int = 32
    """Most other requests at once to one host."""
    largest_manifest: int = 4 * MEBIBYTE
    largest_config: int = 16 * MEBIBYTE
    remembered: int = 64 * MEBIBYTE
    """Manifests and small blobs kept in memory for the run."""
    most_pages: int = 1000
    """Pages of a tag or referrers list that are read before giving up."""
    offline: bool = False
    """Whether every request fails instead of being sent."""
    observer: Callable[[RequestSeen], None] | None = None
    """Called after every request, from the thread that made it."""
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """Where credentials, certificates and proxies are configured."""

    def scheme(self, registry: str) -> str:
        """``http`` for loopback and named insecure registries, ``https`` for all others."""
        if registry in self.encrypted:
            return "https"
        return "http" if registry in self.insecure or is_loopback_host(registry) else "https"
