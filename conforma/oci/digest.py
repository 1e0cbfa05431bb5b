"""Content digests, and checking bytes against them while they stream.

Invariant: a ``Digest`` or ``DiffID`` that came from ``parse`` or ``of`` is well
formed, so its text may become part of a path or a URL.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Final, Self, final

from msgspec import Struct

from conforma.errors import BadDigest, DigestMismatch, SizeMismatch

# The registered algorithms of OCI image-spec descriptor.md, with hex lengths.
ALGORITHMS: Final = {"sha256": 64, "sha384": 96, "sha512": 128}
_HEX: Final = re.compile(r"[0-9a-f]+")


class _ContentHash(Struct, frozen=True, order=True):
    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``algorithm:hex``. Raises ``BadDigest``, also for upper-case or short hex."""
        algorithm, colon, encoded = text.partition(":")
        length = ALGORITHMS.get(algorithm)
        if not colon or length is None:
            raise BadDigest(
                f"{text[:200]!r} is not a digest: unsupported algorithm",
                hint=f"a digest looks like sha256:<64 hex digits>; known are {', '.join(ALGORITHMS)}",
            )
        if len(encoded) != length or not _HEX.fullmatch(encoded):
            raise BadDigest(
                f"{text[:200]!r} is not a digest: {algorithm} takes {length} lower-case hex digits"
            )
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview, algorithm: str = "sha256") -> Self:
        """The digest of ``data``."""
        return cls(algorithm, hashlib.new(algorithm, data, usedforsecurity=True).hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


@final
class Digest(_ContentHash, frozen=True, order=True):
    """The digest of bytes as they are stored in a registry."""


@final
class DiffID(_ContentHash, frozen=True, order=True):
    """The digest of a layer's uncompressed tar, as an image configuration lists it."""


@final
class Hasher:
    """Hashes bytes as they pass and tells whether they are the ones expected."""

    __slots__ = ("_hash", "expected", "size")

    def __init__(self, expected: Digest | DiffID) -> None:
        self.expected = expected
        self.size = 0
        self._hash = hashlib.new(expected.algorithm)

    def update(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take the next bytes into account."""
        self._hash.update(chunk)
        self.size += len(chunk)

    @property
    def hex(self) -> str:
        """Hex digest of all bytes so far."""
        return self._hash.hexdigest()

    def matches(self) -> bool:
        """Whether the bytes so far are exactly those of the expected digest."""
        return self._hash.hexdigest() == self.expected.hex

    def check(self, what: str) -> None:
        """Raise ``DigestMismatch`` naming ``what`` unless the bytes match."""
        if not self.matches():
            raise DigestMismatch(
                f"{what}: digest mismatch: expected {self.expected}, "
                f"got {self.expected.algorithm}:{self.hex}",
                hint="the registry, or something between it and us, changed the content",
            )


def verified(
    chunks: Iterable[bytes], expected: Digest, size: int | None, what: str
) -> Iterator[bytes]:
    """Pass ``chunks`` through and raise at the end unless they are what was promised.

    Never yields a byte beyond ``size`` (bytes; ``None`` if unknown). What was
    yielded may be acted on only after the iterator ended without an error.
    Raises ``SizeMismatch`` or ``DigestMismatch``, both naming ``what``.
    """
    hasher = Hasher(expected)
    for chunk in chunks:
        if size is not None and hasher.size + len(chunk) > size:
            raise SizeMismatch(f"{what}: more bytes than the {size} that were declared")
        hasher.update(chunk)
        yield chunk
    if size is not None and hasher.size != size:
        raise SizeMismatch(f"{what}: got {hasher.size} bytes where {size} were declared")
    hasher.check(what)
