"""Which repository is known to offer which content, where several credentials share one cache (LC-28).

To know a digest is not to be allowed to see what it names. With proofs, a
layer that lies in the cache is handed out for a repository only if

* the repository itself has once sent the whole content, which was hashed here; or
* its registry says, to the credentials of this run, that the repository has it,
  and that registry has sent the content before.

A registry that never sent the content is not believed on its word: anybody can
run one that claims to have everything. It must send the content once, which
proves that whoever put the image there could see it. What was proven is noted
in the directory; losing the notes costs requests and nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from conforma.cache.content import StoredContent
from conforma.cache.layers import UNKNOWN, Fetch
from conforma.cache.singleflight import Flight, SingleFlight
from conforma.cancellation import Cancellation
from conforma.errors import DigestMismatch, SizeMismatch
from conforma.oci.digest import Digest, Hasher

if TYPE_CHECKING:
    from conforma.cache.layers import SafeLayer

Offers = Callable[[], bool]
"""Asks a registry, with our credentials, whether the repository has the content."""

_KNOWN: Final = "offered"


class Proofs:
    """The proofs of one cache directory. Thread safe."""

    def __init__(self, notes: StoredContent) -> None:
        self._notes = notes
        self._lock = threading.Lock()
        self._known: set[tuple[str, Digest]] = set()
        self._questions: SingleFlight[None] = SingleFlight()

    def watched(self, fetch: Fetch, origin: str, digest: Digest) -> Fetch:
        """``fetch``, but whole and right content proves that ``origin`` offers it."""

        @contextmanager
        def fetched(offset: int) -> Iterator[Iterator[bytes]]:
            with fetch(offset) as chunks:
                # The end of a blob proves nothing: somebody else had its beginning.
                yield chunks if offset else self._hashed(chunks, origin, digest)

        return fetched

    def holds(self, layer: SafeLayer) -> bool:
        """Whether the layer's repository is known to offer it; no registry is asked.

        A layer without a repository belongs to whoever owns the cache.
        """
        return not layer.origin or self._is_known(layer.origin, layer.digest)

    def require(self, layer: SafeLayer, cancellation: Cancellation | None) -> None:
        """The layer's repository offers it, or an error is raised.

        Raises what the registry raises, among it ``NotFound`` from a repository
        that has no such content, and an ``IntegrityError`` if it sends other bytes.
        """
        if not self.holds(layer):
            self._questions.run(
                (layer.origin, layer.digest),
                lambda flight: self._prove(layer, flight),
                cancellation,
            )

    def _prove(self, layer: SafeLayer, flight: Flight[None]) -> None:
        host = layer.origin.partition("/")[0]
        if self._is_known(host, layer.digest) and layer.offers is not None and layer.offers():
            self._note(layer.origin, layer.digest)
            return
        with layer.fetch(0) as chunks:
            received = 0
            for chunk in chunks:
                flight.raise_if_abandoned()
                received += len(chunk)
                if layer.size != UNKNOWN and received > layer.size:
                    raise SizeMismatch(
                        f"blob {layer.digest}: {layer.origin} sends more than {layer.size} bytes"
                    )
        if not self.holds(layer):
            raise DigestMismatch(
                f"blob {layer.digest}: {layer.origin} sends other content than was promised",
                hint="the registry, or something between it and us, changed the content",
            )

    def _hashed(self, chunks: Iterator[bytes], origin: str, digest: Digest) -> Iterator[bytes]:
        hasher = Hasher(digest)
        for chunk in chunks:
            hasher.update(chunk)
            yield chunk
        if hasher.matches():
            self._note(origin, digest)
            self._note(origin.partition("/")[0], digest)

    def _is_known(self, place: str, digest: Digest) -> bool:
        with self._lock:
            if (place, digest) in self._known:
                return True
        if self._notes.recall(_name(place, digest)) != _KNOWN:
            return False
        with self._lock:
            self._known.add((place, digest))
        return True

    def _note(self, place: str, digest: Digest) -> None:
        with self._lock:
            self._known.add((place, digest))
        self._notes.note(_name(place, digest), _KNOWN)


def _name(place: str, digest: Digest) -> str:
    return f"offers {place} {digest}"
