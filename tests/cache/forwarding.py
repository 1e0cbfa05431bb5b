"""The bad example: one download for all who ask, and everybody waits for its end.

This is the idea of a registry that fetches on demand (zot's synchronisation as
it is today): a channel for each key, a complete file before the first byte
goes out, an error that reaches one of those who wait, and no word to other
processes.
"""

from __future__ import annotations

import gzip
import io
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from conforma.cancellation import Cancellation
from conforma.oci.digest import DiffID, Digest, Hasher
from conforma.oci.manifest import Descriptor


class ForwardingCache:
    """Stores, then forwards. ``waiting`` is how many wait for somebody else's download."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.waiting = 0
        self.lock = threading.Lock()
        self.channels: dict[str, queue.SimpleQueue[BaseException | None]] = {}
        directory.mkdir(parents=True, exist_ok=True)

    def layer(
        self, descriptor: Descriptor, diff_id: DiffID | None, fetch: Callable[[int], Any]
    ) -> ForwardingLayer:
        return ForwardingLayer(self, descriptor, fetch)

    def final_name(self, digest: Digest) -> Path:
        return self.directory / str(digest)

    def close(self) -> None:
        pass


class ForwardingLayer:
    """One layer of a :class:`ForwardingCache`."""

    def __init__(
        self, cache: ForwardingCache, descriptor: Descriptor, fetch: Callable[[int], Any]
    ) -> None:
        self._cache = cache
        self._descriptor = descriptor
        self._fetch = fetch
        self._path = cache.final_name(descriptor.digest)

    def compressed(self, cancellation: Cancellation | None = None) -> BinaryIO:
        if self._path.exists():
            return self._path.open("rb")
        name = str(self._descriptor.digest)
        with self._cache.lock:
            channel = self._cache.channels.get(name)
            leads = channel is None
            if channel is None:
                channel = self._cache.channels[name] = queue.SimpleQueue()
            else:
                self._cache.waiting += 1
        if leads:
            self._lead(name, channel)
        else:
            error = channel.get()
            channel.put(None)  # a closed channel: everybody else reads no error
            if error is not None:
                raise error
        return self._path.open("rb")

    def _lead(self, name: str, channel: queue.SimpleQueue[BaseException | None]) -> None:
        error: BaseException | None = None
        try:
            self._download()
        except BaseException as caught:
            error = caught
            raise
        finally:
            with self._cache.lock:
                del self._cache.channels[name]
            channel.put(error)

    def _download(self) -> None:
        partial = self._path.with_name(f"{os.getpid()}-{threading.get_ident()}.upload")
        hasher = Hasher(self._descriptor.digest)
        with partial.open("wb", buffering=0) as file, self._fetch(0) as pieces:
            for piece in pieces:
                hasher.update(piece)
                file.write(piece)
        hasher.check("blob")
        partial.rename(self._path)

    def uncompressed(self, cancellation: Cancellation | None = None) -> BinaryIO:
        with self.compressed() as source:
            content = source.read()
        return io.BytesIO(gzip.decompress(content) if content[:1] == b"\x1f" else content)

    stream = compressed
