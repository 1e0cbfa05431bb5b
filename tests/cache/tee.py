"""The bad example: a cache that writes under the final name while others read it.

This is the idea of the reference's cache, which was deleted because of it
(conforma/cli issue 1109). It lives here so that the contract is known to
notice the difference.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from conforma.cancellation import Cancellation
from conforma.oci.digest import DiffID, Digest
from conforma.oci.manifest import Descriptor


class TeeCache:
    """Opens the final name, fills it while its first reader reads, and trusts what it finds."""

    waiting = 0  # nobody ever waits for anybody

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def layer(
        self, descriptor: Descriptor, diff_id: DiffID | None, fetch: Callable[[int], Any]
    ) -> TeeLayer:
        return TeeLayer(self.directory, descriptor, fetch)

    def final_name(self, digest: Digest) -> Path:
        return self.directory / str(digest)

    def close(self) -> None:
        pass


class TeeLayer:
    """One layer of a :class:`TeeCache`."""

    def __init__(
        self, directory: Path, descriptor: Descriptor, fetch: Callable[[int], Any]
    ) -> None:
        self._path = directory / str(descriptor.digest)
        self._fetch = fetch

    def compressed(self, cancellation: Cancellation | None = None) -> BinaryIO:
        if self._path.exists():
            return self._path.open("rb")
        out = io.BytesIO()
        with self._path.open("wb", buffering=0) as file, self._fetch(0) as pieces:
            for piece in pieces:
                file.write(piece)
                out.write(piece)
        out.seek(0)
        return out

    def uncompressed(self, cancellation: Cancellation | None = None) -> BinaryIO:
        with self.compressed() as source:
            content = source.read()
        return io.BytesIO(gzip.decompress(content) if content[:1] == b"\x1f" else content)

    stream = compressed
