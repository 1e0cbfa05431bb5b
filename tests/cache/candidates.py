"""The cache we ship and the bad examples, opened and watched in one way."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from conforma.cache.disk import Key
from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.oci.digest import Digest
from tests.cache.coarse import CoarseCache
from tests.cache.forwarding import ForwardingCache
from tests.cache.tee import TeeCache

BAD_EXAMPLES: Final[dict[str, type[Any]]] = {
    "tee": TeeCache,
    "forwarding": ForwardingCache,
    "coarse": CoarseCache,
}
KINDS: Final = ("safe", *BAD_EXAMPLES)


def opened(kind: str, directory: Path, before_step: Any = None, **options: Any) -> Any:
    """A cache of that kind; only the real one has options and steps."""
    if kind in BAD_EXAMPLES:
        return BAD_EXAMPLES[kind](directory)
    steps = {"before_step": before_step} if before_step else {}
    return SafeCache.open(CacheOptions(directory, **options), **steps)


def final_name(cache: Any, digest: Digest) -> Path:
    """Where the cache keeps the complete blob."""
    if isinstance(cache, SafeCache):
        return cache.store.path(Key.of("blobs", digest))
    name: Path = cache.final_name(digest)
    return name


def waiting(cache: Any) -> int:
    """How many callers wait for a download that another one has started."""
    if not isinstance(cache, SafeCache):
        number: int = cache.waiting
        return number
    # Followers read while others wait; whoever started a flight waits for his own.
    return sum(max(0, len(f.waiters) - len(f.followers) - 1) for f in flights(cache))


def is_busy(cache: Any) -> bool:
    """Whether the cache fetches something, or waits for somebody else who does."""
    return bool(flights(cache)) if isinstance(cache, SafeCache) else waiting(cache) > 0


def flights(cache: SafeCache) -> list[Any]:
    """What the cache is fetching or inflating now."""
    groups = (cache._blobs._entries.flights, cache._plains._entries.flights)
    return [flight for group in groups for flight in list(group._flights.values())]
