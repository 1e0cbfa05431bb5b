"""gzip, zstd and plain streams in plain form, without trusting them.

Everything streams: a layer is never held in memory, and a bomb is stopped by
:class:`Limits` long before it fills a disk.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final, Protocol, cast

from msgspec import Struct

from conforma.errors import BadArchive, InputError, TooLarge

Bytes = bytes | memoryview

# For one thread alone 64 KiB in is best for isal (performance.md, 5); with a
# thread for each of several layers fewer, larger pieces win, see oci/wire.py.
# Limiting the output of one call to 1 MiB costs nothing and bounds memory
# against bombs.
PIECE_IN: Final = 256 * 1024
PIECE_OUT: Final = 1024 * 1024

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_GZIP_WINDOW: Final = 16 + 15
_TAR_MAGIC_AT: Final = 257


class Limits(Struct, frozen=True):
    """How much a layer may grow when it is inflated.

    ``max_bytes`` is absolute; ``max_ratio`` (plain : compressed) applies once
    the output is over ``ratio_floor`` bytes, as small layers of zeros are
    common and harmless. ``max_window`` is the memory zstd may use, in bytes.
    """

    max_bytes: int = 64 << 30
    max_ratio: int = 300
    ratio_floor: int = 256 << 20
    max_window: int = 128 << 20

    def check(self, read: int, written: int, what: str) -> None:
        """Raise ``TooLarge`` if ``written`` bytes out of ``read`` are beyond the limits."""
        if written > self.max_bytes:
            raise TooLarge(f"{what}: more than {self.max_bytes} bytes when decompressed")
        if written > self.ratio_floor and written > self.max_ratio * max(read, 1):
            raise TooLarge(
                f"{what}: expands to more than {self.max_ratio} times its size",
                hint="this looks like a decompression bomb",
            )


class _Decoder(Protocol):
    """What isal, zlib and our zstd wrapper have in common."""

    def feed(self, data: Bytes) -> Iterator[bytes]: ...

    def finish(self) -> None: ...


def inflated(
    chunks: Iterable[Bytes], media_type: str, limits: Limits | None = None, what: str = "layer"
) -> Iterator[bytes]:
    """The plain bytes of a layer, in pieces of at most 1 MiB, as its bytes come in.

    The form is recognised by its first bytes, because layers are mislabelled
    in the wild; but a layer that is called compressed must be, or be a tar.
    Concatenated gzip members and zstd frames are one stream. Raises
    ``BadArchive`` when the stream is malformed or ends early and ``TooLarge``
    beyond ``limits``; both name ``what``.
    """
    limits = limits or Limits()
    source = iter(chunks)
    head = b""
    for chunk in source:
        head += bytes(chunk)
        if len(head) >= _TAR_MAGIC_AT + 5:
            break
    decoder = _decoder(head, media_type, limits, what)
    read = written = 0
    for chunk in _chain(head, source):
        read += len(chunk)
        for piece in decoder.feed(chunk):
            written += len(piece)
            limits.check(read, written, what)
            yield piece
    decoder.finish()


def _chain(head: bytes, rest: Iterable[Bytes]) -> Iterator[Bytes]:
    for chunk in chain((head,) if head else (), rest):
        # Much larger inputs make the decoders slower, not faster (performance.md, 5):
        # what does not fit into their output is copied once for each MiB of it.
        if len(chunk) <= 2 * PIECE_IN:
            yield chunk
        else:
            view = memoryview(chunk)
            for start in range(0, len(view), PIECE_IN):
                yield view[start : start + PIECE_IN]


def _decoder(head: bytes, media_type: str, limits: Limits, what: str) -> _Decoder:
    if head.startswith(_GZIP):
        return _Gzip(what)
    if head.startswith(_ZSTD):
        return _Zstd(what, limits)
    if media_type.endswith(("gzip", "zstd")) and not looks_like_tar(head):
        form = "gzip" if media_type.endswith("gzip") else "zstd"
        raise BadArchive(
            f"{what}: declared as {media_type} but it is not {form}",
            hint="the image was pushed with the wrong media type or a broken layer",
        )
    return _Plain()


def suffix_of(head: bytes) -> str:
    """The ending of an OCI layer media type that fits the first bytes of a blob."""
    if head.startswith(_GZIP):
        return "+gzip"
    return "+zstd" if head.startswith(_ZSTD) else ""


def looks_like_tar(head: bytes) -> bool:
    """Whether the first bytes are a tar header or the zeros that end an empty tar."""
    return head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar" or (
        len(head) > _TAR_MAGIC_AT and not head.strip(b"\0")
    )


class _Plain:
    def feed(self, data: Bytes) -> Iterator[bytes]:
        yield bytes(data)

    def finish(self) -> None:
        """A plain stream may end anywhere; the walker and the DiffID judge it."""


def gzip_module() -> Any:
    """isal where there is a wheel for it, else zlib: the same interface, two to three times slower."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib
    return isal_zlib


class _Gzip:
    """Any number of gzip members, one after the other (RFC 1952, 2.2)."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._module = gzip_module()
        self._stream = self._module.decompressobj(_GZIP_WINDOW)
        self._begun = False
        self._members = 0

    def feed(self, data: Bytes) -> Iterator[bytes]:
        pending: Bytes = data
        draining = False  # all input is taken, but output may be waiting inside
        while len(pending) or draining:
            if not self._begun and self._members:
                # Zero bytes may pad the end (tape blocks); anything else must
                # be another member.
                pending = bytes(pending).lstrip(b"\0")
                if not pending:
                    return
            self._begun = True
            piece = self._decompress(pending)
            if piece:
                yield piece
            draining = len(piece) == PIECE_OUT
            pending = self._stream.unconsumed_tail
            if self._stream.eof:
                pending = self._stream.unused_data
                self._stream = self._module.decompressobj(_GZIP_WINDOW)
                self._begun = draining = False
                self._members += 1

    def finish(self) -> None:
        if self._begun or not self._members:
            raise BadArchive(f"{self._what}: gzip stream ends early")

    def _decompress(self, data: Bytes) -> bytes:
        try:
            return cast(bytes, self._stream.decompress(data, PIECE_OUT))
        except (zlib.error, self._module.error) as cause:
            raise BadArchive(f"{self._what}: broken gzip stream: {cause}") from cause


class _Zstd:
    """Any number of zstd frames (RFC 8878); needs the optional ``zstandard`` package."""

    def __init__(self, what: str, limits: Limits) -> None:
        try:
            import zstandard
        except ImportError as cause:
            raise InputError(
                f"{what}: compressed with zstd, which needs another package",
                hint="pip install 'conforma[zstd]'",
            ) from cause
        self._what = what
        self._error = zstandard.ZstdError
        self._new = zstandard.ZstdDecompressor(max_window_size=limits.max_window).decompressobj
        self._stream = self._new(write_size=PIECE_OUT)
        self._begun = False
        self._frames = 0

    def feed(self, data: Bytes) -> Iterator[bytes]:
        # 4 bytes of zstd can hold 128 KiB; small inputs bound what one call makes.
        view = memoryview(data)
        for start in range(0, len(view), 1024):
            pending: bytes = bytes(view[start : start + 1024])
            while pending:
                self._begun = True
                try:
                    piece = self._stream.decompress(pending)
                except self._error as cause:
                    raise BadArchive(f"{self._what}: broken zstd stream: {cause}") from cause
                if piece:
                    yield piece
                if not self._stream.eof:
                    break
                pending = self._stream.unused_data
                self._stream = self._new(write_size=PIECE_OUT)
                self._begun = False
                self._frames += 1

    def finish(self) -> None:
        if self._begun or not self._frames:
            raise BadArchive(f"{self._what}: zstd stream ends early")
