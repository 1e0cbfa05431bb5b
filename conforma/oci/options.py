"""Every setting of the registry client in one value, each with its unit."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

from msgspec import Struct, field

from conforma import __version__
from conforma.oci.digest import Digest
from conforma.oci.limiter import Rate
from conforma.oci.reference import is_loopback_host
from conforma.oci.retry import RetryPolicy

if TYPE_CHECKING:
    from conforma.oci.mirrors import Mirror

MEBIBYTE: Final = 1024 * 1024

Lane = Literal["small", "bulk"]
"""Which requests share a limit: blob bodies, or everything else."""


class Patience(Struct, frozen=True):
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


Source = Literal["network", "memory", "store", "unchanged", "joined", "mirror"]
"""Where the answer to a question came from; ``unchanged`` is a 304, ``joined`` another thread's."""


class RequestSeen(Struct, frozen=True):
    """One request as it went over the network; its URL holds no secret. Times in seconds."""

    method: str
    url: str
    status: int | None
    """``None`` if no answer came; then ``problem`` says why."""
    seconds: float
    """Until the head of the answer was here, waits left out."""
    attempt: int
    problem: str = ""
    limiter: float = 0.0
    """Waiting for the rate limit, or because the host asked for a pause."""
    lane: float = 0.0
    """Waiting until fewer requests to the host were under way."""
    sent: int = 0
    received: int = 0
    """Bytes of the answer's body that were read."""
    started: float = 0.0
    """Seconds since the epoch."""
    whole: float = 0.0
    """Until the body was read or given up."""


class QuestionSeen(Struct, frozen=True):
    """One question to a registry, however it was answered. Times in seconds."""

    what: Literal["head", "manifest", "blob", "referrers"]
    name: str
    """The reference, or the blob's repository and digest."""
    source: Source
    seconds: float
    lock: float = 0.0
    """Waiting for another thread that asked the same."""


class Delivery(Struct, frozen=True):
    """Content that was handed out whole, and is hashed. ``size`` is in bytes."""

    digest: Digest
    size: int
    place: str
    """The registry or layout that gave it; empty for what an earlier run kept."""
    mirror: bool = False
    """Whether that stands in for the place that the reference names."""


class ContentStore(Protocol):
    """Content of earlier runs, by digest, and notes. Thread safe; troubles of its own are silent."""

    def get(self, digest: Digest) -> bytes | None:
        """Bytes that were stored under this digest; the caller verifies them."""

    def put(self, digest: Digest, data: bytes) -> None:
        """Keep verified bytes, if there is room."""

    def distrust(self, digest: Digest) -> None:
        """What is stored under this digest is something else."""

    def recall(self, name: str) -> str | None:
        """The note under this name."""

    def note(self, name: str, text: str) -> None:
        """Keep a short text, whose loss costs a request and nothing else."""


class RegistryOptions(Struct, frozen=True):
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
    remembered: int = 16 * MEBIBYTE
    """Manifests and small blobs kept in memory for the run."""
    most_pages: int = 1000
    """Pages of a tag or referrers list that are read before giving up."""
    offline: bool = False
    """Whether every request fails instead of being sent."""
    rates: Mapping[str, Rate] = field(default_factory=dict)
    """The rate we keep ourselves to, by registry; ``*`` is for all others."""
    state: Path | None = None
    """Directory in which processes agree about rates and pauses; ``None``: each for itself."""
    throttled: float = 120.0
    """A host that says "too many requests" for longer than this is given up."""
    sleep: Callable[[float], None] | None = None
    """Waits for the rate limit; ``None``: for so many seconds, or until the run is to stop."""
    mirrors: Mapping[str, Mirror] = field(default_factory=dict)
    """Where to read what belongs to a registry, by registry."""
    content: Callable[[], ContentStore | None] = lambda: None
    """What earlier runs have kept; asked when it is first needed."""
    observer: Callable[[RequestSeen], None] | None = None
    """Called after every request, from the thread that made it."""
    witness: Callable[[QuestionSeen], None] | None = None
    """Called after every question, from the thread that asked it."""
    delivered: Callable[[Delivery], None] | None = None
    """Called after content came whole, from the thread that read it."""
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """Where credentials, certificates and proxies are configured."""

    def scheme(self, registry: str) -> str:
        """``http`` for loopback and named insecure registries, ``https`` for all others."""
        if registry in self.encrypted:
            return "https"
        return "http" if registry in self.insecure or is_loopback_host(registry) else "https"
