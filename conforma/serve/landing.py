"""Blobs of the cache as bodies of answers, also while they are on their way into it.

Whoever asks for a blob that is not in the cache starts a download or joins
the one that runs, here or in another process, and follows it from the first
byte at a pace of its own. The cache holds the last bytes back until the
digest was right, and an answer promises its length: a client that got all of
it has the right blob, and of a wrong one nobody gets all.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from conforma.cache.direct import DirectLayers
from conforma.cache.disk import Key
from conforma.cache.layers import SafeLayer
from conforma.cache.safe_cache import SafeCache
from conforma.cancellation import Cancellation
from conforma.errors import ConformaError
from conforma.oci.manifest import Descriptor
from conforma.serve.bodies import Body, HandleBody

Fetch = Callable[[int], AbstractContextManager[Iterator[bytes]]]


class Landings:
    """Opens blobs. ``following`` answers read along with a download now. Thread safe."""

    def __init__(self, cache: SafeCache | DirectLayers, cancellation: Cancellation) -> None:
        self._cache = cache
        self._cancellation = cancellation
        self._lock = threading.Lock()
        self.following = 0

    def open(self, descriptor: Descriptor, fetch: Fetch, origin: str) -> Body:
        """The blob. Raises what its download raises before the first byte is here."""
        layer = self._cache.layer(descriptor, None, fetch, origin=origin)
        if self._is_cached(descriptor):
            return HandleBody(self._cache.compressed(layer))
        body = _LandingBody(layer, self._cancellation, self._count)
        body.wait_for_the_first_byte()
        return body

    def _is_cached(self, descriptor: Descriptor) -> bool:
        if not isinstance(self._cache, SafeCache):
            return False
        key = Key.of("blobs", descriptor.digest)
        return self._cache.store.open(key, descriptor.size) is not None

    def _count(self, change: int) -> None:
        with self._lock:
            self.following += change


class _LandingBody:
    """A blob that is still arriving: sent as far as it is here, until it is all here."""

    def __init__(
        self, layer: SafeLayer, cancellation: Cancellation, count: Callable[[int], None]
    ) -> None:
        self._layer = layer
        self._count = count
        # Readers of a range want no more than their bytes, hence no large buffer to fill.
        self._stream = layer.stream(cancellation)

    @property
    def size(self) -> int:
        """Length in bytes, known before the first of them is here."""
        return self._layer.size

    def wait_for_the_first_byte(self) -> None:
        """A download that fails before it can still be told as what it is."""
        try:
            self._stream.peek(1)
        except BaseException:
            self._stream.close()
            raise

    def read(self, offset: int, count: int) -> bytes:
        """These bytes, once they are here."""
        self._stream.seek(offset)
        return self._stream.read(count)

    def send(
        self, connection: socket.socket, offset: int, count: int, sent: Callable[[int], None]
    ) -> None:
        """Write as they arrive; the connection breaks where the download does."""
        self._count(1)
        try:
            with self._stream as stream:
                stream.seek(offset)
                for block in stream.blocks() if count else ():
                    piece = memoryview(block)[:count]
                    connection.sendall(piece)
                    sent(len(piece))
                    count -= len(piece)
                    if not count:
                        return
                if count:
                    raise ConnectionAbortedError("the download ended early")
        except ConformaError as cause:
            # The head promised a length, so falling short of it is the way to tell.
            raise ConnectionAbortedError(cause.message) from cause
        finally:
            self._count(-1)
