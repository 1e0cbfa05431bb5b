"""Blobs on their way to a destination that takes few at a time.

They are fetched in parallel, verified, and then handed over one after the
other: small ones from memory, others from a temporary file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from conforma.cancellation import Cancellation
from conforma.errors import DestinationUnusable
from conforma.mirror.layout_writer import write_verified
from conforma.oci.digest import verified
from conforma.oci.manifest import Descriptor
from conforma.oci.upload import Open, from_memory

_IN_MEMORY: Final = 1 << 20
_PIECE: Final = 1 << 20


class Staging:
    """Temporary places below ``directory``; ``None`` for that of the system."""

    def __init__(self, directory: Path | None, cancellation: Cancellation) -> None:
        self._directory = directory
        self._cancellation = cancellation

    @contextmanager
    def staged(self, descriptor: Descriptor, source: Open) -> Iterator[Open]:
        """The blob, verified, on this machine, until the context ends."""
        if descriptor.size <= _IN_MEMORY:
            what = f"blob {descriptor.digest}"
            with source(0) as chunks:
                data = b"".join(verified(chunks, descriptor.digest, descriptor.size, what))
            yield from_memory(data)
            return
        try:
            with tempfile.TemporaryDirectory(prefix=".conforma-", dir=self._directory) as name:
                path = Path(name) / descriptor.digest.hex
                write_verified(path, descriptor, source, self._cancellation)
                yield lambda offset: _read(path, offset)
        except OSError as cause:
            raise DestinationUnusable(f"cannot stage a blob: {cause.strerror}") from cause


@contextmanager
def _read(path: Path, offset: int) -> Iterator[Iterator[bytes]]:
    with path.open("rb") as file:
        file.seek(offset)
        yield iter(lambda: file.read(_PIECE), b"")
