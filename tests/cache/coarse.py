"""The bad example: one lock around everything, over all threads and processes.

Its bytes are right and nothing is fetched twice, which makes it tempting. But
whoever wants another digest waits as well, for as long as the slowest download
takes, each who waited for a failure repeats it, and nobody who waits can leave.
"""

from __future__ import annotations

import fcntl
import gzip
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from conforma.cancellation import Cancellation
from conforma.oci.digest import DiffID, Digest, Hasher
from conforma.oci.manifest import Descriptor


class CoarseCache:
    """A directory with a lock. ``waiting`` is how many callers of this object wait for it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.waiting = 0
        directory.mkdir(parents=True, exist_ok=True)

    def layer(
        self, descriptor: Descriptor, diff_id: DiffID | None, fetch: Callable[[int], Any]
    ) -> CoarseLayer:
        return CoarseLayer(self, descriptor, fetch)

    def final_name(self, digest: Digest) -> Path:
        return self.directory / str(digest)

    @contextmanager
    def locked(self) -> Iterator[None]:
        with (self.directory / "lock").open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.waiting += 1
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def close(self) -> None:
        pass


class CoarseLayer:
    """One layer of a :class:`CoarseCache`."""

    def __init__(
        self, cache: CoarseCache, descriptor: Descriptor, fetch: Callable[[int], Any]
    ) -> None:
        self._cache = cache
        self._descriptor = descriptor
        self._fetch = fetch
        self._path = cache.final_name(descriptor.digest)

    def compressed(self, cancellation: Cancellation | None = None) -> BinaryIO:
        with self._cache.locked():
            if not self._path.exists():
                self._download()
            return self._path.open("rb")

    def _download(self) -> None:
        partial = self._path.with_name(f"{os.getpid()}.download")
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
