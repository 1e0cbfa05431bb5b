"""Blobs that are on their way into the cache, and everybody who reads along.

Whoever asks for a blob that is not in the cache starts one download; whoever
asks while it runs follows it from the first byte, at a pace of its own. What
arrives is kept in an anonymous file, so nobody has to keep up with anybody.
The last bytes are held back until the digest was right: no client can take a
wrong blob for a complete one. The download goes on when its readers leave.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from conforma.cache.direct import DirectLayers
from conforma.cache.disk import Key
from conforma.cache.handles import SharedFile
from conforma.cache.safe_cache import SafeCache
from conforma.errors import RegistryUnreachable
from conforma.oci.digest import Digest
from conforma.oci.manifest import Descriptor

Fetch = Callable[[int], AbstractContextManager[Iterator[bytes]]]

HELD_BACK: Final = 64 * 1024


class Landing:
    """One download. Readers wait in :meth:`read_at` for the bytes they want, and no others."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._changed = threading.Condition()
        self._spool = _anonymous()
        self._arrived = 0
        self._whole: SharedFile | None = None
        self._error: BaseException | None = None
        self._followable = True
        self._restarted = False

    def __del__(self) -> None:
        os.close(self._spool)

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to ``count`` bytes from ``offset``, at least one before the end.

        Raises what the download raised, in every reader.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready(offset) > offset)
            if self._error is not None:
                raise self._error
            whole, ready = self._whole, self._ready(offset)
        if whole is not None:
            return whole.read_at(offset, min(count, whole.size - offset))
        return os.pread(self._spool, min(count, ready - offset), offset)

    def whole(self) -> SharedFile | None:
        """The blob in the cache, once it is there."""
        with self._changed:
            return self._whole

    def passing(self, fetch: Fetch) -> Fetch:
        """``fetch``, with everything that passes kept for the readers."""

        @contextmanager
        def noted(offset: int) -> Iterator[Iterator[bytes]]:
            with fetch(offset) as chunks:
                yield self._noted(chunks, offset)

        return noted

    def finish(self, whole: SharedFile | None, error: BaseException | None) -> None:
        """The download is over."""
        with self._changed:
            self._whole, self._error = whole, error
            if self._restarted and error is None:
                # What the first readers have may be another beginning.
                self._error = RegistryUnreachable("the download began anew", hint="try again")
            self._changed.notify_all()

    def _noted(self, chunks: Iterable[bytes], offset: int) -> Iterator[bytes]:
        with self._changed:
            # A download that continues an older one, or begins again, cannot
            # be followed from the first byte; its readers wait for the end.
            if offset != self._arrived:
                self._restarted = self._arrived > 0
                self._followable = False
        for chunk in chunks:
            if self._followable:
                view = memoryview(chunk)
                while view:
                    view = view[
                        os.pwrite(self._spool, view, self._arrived + len(chunk) - len(view)) :
                    ]
                with self._changed:
                    self._arrived += len(chunk)
                    self._changed.notify_all()
            yield chunk

    def _ready(self, offset: int) -> int:
        """How far readers may go; beyond ``offset`` also when it failed."""
        if self._error is not None:
            return offset + 1
        if self._whole is not None:
            return self._whole.size
        if not self._followable:
            return 0
        return min(self._arrived, self.size - HELD_BACK)


class Landings:
    """The downloads that are running, and what is in the cache. Thread safe."""

    def __init__(self, cache: SafeCache | DirectLayers) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._running: dict[Digest, Landing] = {}

    @property
    def running(self) -> int:
        """How many downloads run."""
        with self._lock:
            return len(self._running)

    def open(self, descriptor: Descriptor, fetch: Fetch, origin: str) -> SharedFile | Landing:
        """The blob if the cache has it, else its download, begun or joined."""
        if self._is_cached(descriptor):
            layer = self._cache.layer(descriptor, None, fetch, origin=origin)
            return self._cache.compressed(layer)
        with self._lock:
            landing = self._running.get(descriptor.digest)
            if landing is not None:
                return landing
            landing = self._running[descriptor.digest] = Landing(descriptor.size)
        threading.Thread(
            target=self._land,
            args=(landing, descriptor, fetch, origin),
            name=f"land {descriptor.digest}",
            daemon=True,
        ).start()
        return landing

    def _is_cached(self, descriptor: Descriptor) -> bool:
        if not isinstance(self._cache, SafeCache):
            return False
        key = Key.of("blobs", descriptor.digest)
        return self._cache.store.open(key, descriptor.size) is not None

    def _land(self, landing: Landing, descriptor: Descriptor, fetch: Fetch, origin: str) -> None:
        whole: SharedFile | None = None
        error: BaseException | None = None
        try:
            layer = self._cache.layer(descriptor, None, landing.passing(fetch), origin=origin)
            whole = self._cache.compressed(layer)
        except BaseException as caught:
            error = caught
        with self._lock:
            # Gone before anybody hears the outcome: who comes later asks the cache.
            del self._running[descriptor.digest]
        landing.finish(whole, error)


def _anonymous() -> int:
    with tempfile.TemporaryFile(prefix="conforma-", buffering=0) as file:
        return os.dup(file.fileno())
