"""Blob bodies: streamed as they arrive, checked to the last byte, resumed when they break.

Invariant: whoever reads a stream to its end without an error has exactly the
bytes of the digest, however often the connection broke in between.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from conforma.errors import BadResponse, RegistryUnreachable, SizeMismatch, TooLarge
from conforma.oci import broken
from conforma.oci.attempts import Attempts
from conforma.oci.digest import Digest, Hasher
from conforma.oci.exchange import Exchange
from conforma.oci.meter import Meter
from conforma.oci.options import Delivery, Lane
from conforma.oci.reference import Reference
from conforma.oci.sender import Ask, Response

# A reader resumes with Range; a server that starts over instead costs this much at most.
_MOST_DISCARDED: Final = 8 * 1024 * 1024
_FRUITLESS_REQUESTS: Final = 3
# A connection that brought less counts as fruitless, or a server that drips
# could hold us for as long as it likes.
_WORTHWHILE: Final = 64 * 1024
_MOST_RESUMPTIONS: Final = 100
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class BlobStream:
    """One blob from ``offset`` on. Iterate once, then close. For one thread at a time.

    ``size`` is the size of the whole blob, if known. When ``offset`` is 0 the
    digest is checked, unless ``verify`` leaves that to the reader; one that
    starts later checks it with the bytes it has.
    """

    def __init__(
        self,
        exchange: Exchange,
        meter: Meter,
        reference: Reference,
        digest: Digest,
        size: int | None,
        offset: int = 0,
        lane: Lane = "bulk",
        verify: bool = True,
    ) -> None:
        self._exchange = exchange
        self._meter = meter
        self._reference = reference
        self._what = f"{reference.repository_name}@{digest}"
        self._digest = digest
        self._size = size
        self._position = offset
        self._hasher = Hasher(digest) if offset == 0 and verify else None
        self._lane: Lane = lane
        self._may_discard = True
        self._resumptions = 0
        self._attempts: Attempts = exchange.attempts(None if offset == 0 else _FRUITLESS_REQUESTS)
        self._place = ("", False)
        self._response: Response | None = None
        if size is None or offset < size:
            self._response = self._open()

    def __iter__(self) -> Iterator[bytes]:
        """The bytes. Raises ``RegistryError``, ``SizeMismatch`` or ``DigestMismatch``."""
        started_at = self._position
        try:
            while self._response is not None:
                yield from self._until_it_breaks(self._response)
        finally:
            self._meter.add(received_bytes=self._position - started_at)
        if self._hasher is not None:
            self._hasher.check(self._what)
        self._exchange.delivered(Delivery(self._digest, self._position, *self._place))

    def close(self) -> None:
        """Give the connection back, or cut it if the body was not read to its end."""
        response, self._response = self._response, None
        if response is not None:
            response.close()

    def _until_it_breaks(self, response: Response) -> Iterator[bytes]:
        opened_at = self._position
        try:
            for chunk in self._body(response):
                if self._size is not None and self._position + len(chunk) > self._size:
                    raise SizeMismatch(
                        f"{self._what}: more bytes than the {self._size} that were declared"
                    )
                if self._hasher is not None:
                    self._hasher.update(chunk)
                self._position += len(chunk)
                if self._position - opened_at >= _WORTHWHILE:
                    self._attempts = self._exchange.attempts(_FRUITLESS_REQUESTS)
                yield chunk
        except broken.TransportError as cause:
            if self._is_whole():
                self.close()  # only the end of the answer is missing, and the digest decides
            else:
                self._resume(cause)
        else:
            if self._size is None or self._position >= self._size:
                self.close()
            else:
                # A server that speaks HTTP/1.0, or sends less than the range
                # it was asked for, cannot say so in a better way.
                self._resume(broken.RemoteProtocolError("the body ended early"))

    def _is_whole(self) -> bool:
        if self._size is not None:
            return self._position >= self._size
        return self._hasher is not None and self._hasher.matches()

    def _arrived(self) -> str:
        whole = "an unknown number of" if self._size is None else str(self._size)
        return f"{self._position} of {whole} bytes"

    def _resume(self, cause: broken.TransportError) -> None:
        self.close()
        error = self._exchange.explained(self._ask(), cause)
        error.message = f"{error.message}, after {self._arrived()} of the blob"
        self._resumptions += 1
        if self._resumptions > _MOST_RESUMPTIONS:
            raise error from cause
        self._attempts.failed(error, cause)
        self._meter.add(resumed=1)
        self._response = self._open()

    def _ask(self) -> Ask:
        resuming = self._position > 0
        return Ask(
            "GET",
            self._reference,
            f"blobs/{self._digest}",
            {"Range": f"bytes={self._position}-"} if resuming else {},
            expected=frozenset({200, 206, 416} if resuming else {200}),
            lane=self._lane,
        )

    def _open(self) -> Response:
        response = self._exchange.respond(self._ask(), self._attempts)
        self._place = (response.place, response.mirror)
        try:
            self._check_head(response)
        except BaseException:
            response.close()
            raise
        return response

    def _check_head(self, response: Response) -> None:
        expected = None
        if response.status_code == 206:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
            if match is None or int(match[1]) != self._position:
                raise BadResponse(
                    f"{self._what}: asked for bytes from {self._position}, was offered "
                    f"{response.headers.get('content-range', 'no range')[:100]!r}"
                )
            if match[3] != "*" and self._size is not None and int(match[3]) != self._size:
                raise SizeMismatch(
                    f"{self._what}: the registry has {match[3]} bytes where {self._size} were declared"
                )
            return
        if response.status_code == 416:
            # Of a blob that the registry has as a torso there is nothing more to come.
            raise RegistryUnreachable(
                f"{self._what}: the registry's answer broke off after {self._arrived()}, "
                "and it says that there are no more",
                hint="try again; if it stays so, the registry has lost a part of the blob: push it again",
            )
        if self._position > 0:
            if not self._may_discard or self._position > _MOST_DISCARDED:
                raise RegistryUnreachable(
                    f"{self._what}: broke off after {self._arrived()}, and the registry "
                    "cannot continue from there",
                    hint="try again",
                )
            self._may_discard = False
        length = response.headers.get("content-length", "")
        expected = int(length) if length.isascii() and length.isdigit() else None
        if self._size is None:
            self._size = expected
        elif expected is not None and expected != self._size:
            raise SizeMismatch(
                f"{self._what}: the registry has {expected} bytes where {self._size} were declared"
            )

    def _body(self, response: Response) -> Iterator[bytes]:
        """The chunks from the current position on, whichever way the server answered."""
        surplus = self._position if response.status_code == 200 else 0
        for chunk in response.chunks():
            if surplus >= len(chunk):
                surplus -= len(chunk)
                continue
            yield chunk[surplus:] if surplus else chunk
            surplus = 0


def read_all(stream: BlobStream, limit: int, what: str) -> bytes:
    """Everything a stream has. Raises ``TooLarge`` beyond ``limit`` bytes, and what it raises."""
    body = bytearray()
    try:
        for chunk in stream:
            body += chunk
            if len(body) > limit:
                raise TooLarge(f"{what}: larger than the limit of {limit} bytes")
    finally:
        stream.close()
    return bytes(body)
