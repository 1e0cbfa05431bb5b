"""Verdict provenance: which content a run has used, where each came from, and when it was last hashed.

Fed from two sides. The registry client tells what came whole from where; the
cache tells what was read, and whether that moved any bytes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Literal

from msgspec import Struct, field

from conforma.cache.stats import Outcome
from conforma.oci.digest import Digest
from conforma.oci.options import Delivery

Source = Literal["registry", "mirror", "shared", "cache"]
_WEIGHT: Final[dict[Outcome, int]] = {"hits": 0, "coalesced": 1, "leaders": 2, "pass_through": 2}


class Origin(Struct, frozen=True):
    """One digest that was used. ``size`` is in bytes, ``uses`` counts reads.

    ``source`` is how it came into this run: from a ``registry`` or a ``mirror``
    (then ``place`` names it), by a download of another process (``shared``), or
    from the ``cache``. ``verified`` is when its bytes were last hashed, in
    seconds since the epoch, 0 if that is not known any more. ``images`` are the
    pinned references of the images it was read as a part of.
    """

    digest: Digest
    size: int
    media_type: str
    source: Source
    place: str
    verified: float
    uses: int
    images: tuple[str, ...]


class _Use(Struct):
    size: int
    media_type: str
    outcome: Outcome
    verified: float
    uses: int = 0
    images: set[str] = field(default_factory=set)


class Origins:
    """Collects over one run. Thread safe. ``clock`` gives the time."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._uses: dict[Digest, _Use] = {}
        self._deliveries: dict[Digest, tuple[Delivery, float, int]] = {}

    def delivered(self, delivery: Delivery) -> None:
        """The registry client has handed out whole content."""
        with self._lock:
            earlier = self._deliveries.get(delivery.digest)
            count = 1 if earlier is None else earlier[2] + 1
            # What came over the network once in this run is not said to come from before it.
            if earlier is not None and earlier[0].place and not delivery.place:
                delivery = earlier[0]
            self._deliveries[delivery.digest] = delivery, self._clock(), count

    def used(
        self, digest: Digest, size: int, media_type: str, outcome: Outcome, image: str
    ) -> None:
        """The cache has handed out a view of a layer or blob."""
        with self._lock:
            use = self._uses.get(digest)
            if use is None:
                use = self._uses[digest] = _Use(size, media_type, outcome, 0.0)
            if _WEIGHT[outcome] >= _WEIGHT[use.outcome]:
                use.outcome = outcome
            if outcome != "hits":
                use.verified = self._clock()
            use.size = max(use.size, size)
            use.uses += 1
            if image:
                use.images.add(image)

    def listed(self, verified_at: Callable[[Digest], float]) -> tuple[Origin, ...]:
        """Everything that was used, by digest. ``verified_at`` answers for what lay in the cache."""
        with self._lock:
            uses, deliveries = dict(self._uses), dict(self._deliveries)
        found = []
        for digest in sorted(uses.keys() | deliveries.keys()):
            use, delivery = uses.get(digest), deliveries.get(digest)
            if use is None:
                assert delivery is not None
                found.append(_delivered(*delivery))
            else:
                found.append(_read(digest, use, delivery, verified_at))
        return tuple(found)


def _delivered(delivery: Delivery, moment: float, count: int) -> Origin:
    return Origin(
        delivery.digest, delivery.size, "", _source(delivery), delivery.place, moment, count, ()
    )


def _read(
    digest: Digest,
    use: _Use,
    delivery: tuple[Delivery, float, int] | None,
    verified_at: Callable[[Digest], float],
) -> Origin:
    source: Source = "cache"
    place = ""
    if use.outcome != "hits":
        source = "shared"
        if delivery is not None and delivery[0].place:
            source, place = _source(delivery[0]), delivery[0].place
    size = use.size if delivery is None else delivery[0].size
    return Origin(
        digest,
        size,
        use.media_type,
        source,
        place,
        use.verified or verified_at(digest),
        use.uses,
        tuple(sorted(use.images)),
    )


def _source(delivery: Delivery) -> Source:
    if not delivery.place:
        return "cache"
    return "mirror" if delivery.mirror else "registry"
