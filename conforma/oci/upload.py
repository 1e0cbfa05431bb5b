"""Large blobs into a registry: mounted where possible, else in pieces that can be repeated.

Source: distribution-spec, "Pushing blobs in chunks" and "Mounting a blob from
another repository". A piece lies in memory, so a broken connection costs that
piece and nothing is asked of the source again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from conforma.errors import BadResponse, ConformaError
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.exchange import Answer, Exchange
from conforma.oci.manifest import Descriptor
from conforma.oci.push import Pusher
from conforma.oci.reference import Reference
from conforma.oci.sender import Ask

if TYPE_CHECKING:
    import httpx

Open = Callable[[int], AbstractContextManager[Iterator[bytes]]]
"""Opens a blob at a byte offset and yields its bytes from there."""

PIECE: Final = 8 * 1024 * 1024
_WRITE: Final = "pull,push"
_LIMIT: Final = 64 * 1024
_SMALL: Final = 64 * 1024


def from_memory(content: bytes) -> Open:
    """A blob that is here already."""

    @contextlib.contextmanager
    def opened(offset: int) -> Iterator[Iterator[bytes]]:
        yield iter((content[offset:],))

    return opened


class Uploader:
    """Writes blobs of any size. Thread safe."""

    def __init__(self, exchange: Exchange, pusher: Pusher) -> None:
        self._exchange = exchange
        self._pusher = pusher

    def mount(self, reference: Reference, digest: Digest, source: str) -> bool:
        """Whether the registry took the blob over from its own repository ``source``.

        It need not be able to; then nothing has changed.
        """
        path = f"blobs/uploads/?mount={digest}&from={quote(source, safe='')}"
        ask = self._ask("POST", reference, path, {201, 202}, {"Content-Length": "0"})
        answer = self._exchange.fetch(ask, _LIMIT)
        if answer.status == 202:
            self._give_up(reference, self._next(reference, ask, answer))
        return answer.status == 201

    def upload(self, reference: Reference, descriptor: Descriptor, source: Open) -> None:
        """The repository has the blob. Raises what reading the source raises, and nothing is kept."""
        with source(0) as chunks:
            pieces = _pieces(chunks, PIECE)
            first = next(pieces, b"")
            if len(first) < PIECE:
                self._pusher.put(reference, first, descriptor.digest)
                return
            self._in_pieces(reference, descriptor.digest, first, pieces)

    def _in_pieces(
        self, reference: Reference, digest: Digest, piece: bytes | None, rest: Iterator[bytes]
    ) -> None:
        ask = self._ask("POST", reference, "blobs/uploads/", {202}, {"Content-Length": "0"})
        url = self._next(reference, ask, self._exchange.fetch(ask, _LIMIT))
        offset = 0
        try:
            while piece is not None:
                headers = {
                    "Content-Type": media_types.OCTETS,
                    "Content-Range": f"{offset}-{offset + len(piece) - 1}",
                }
                ask = self._ask("PATCH", reference, str(url), {202, 204, 416}, headers, piece)
                answer = self._exchange.fetch(ask, _LIMIT)
                offset += len(piece)
                # A repetition is out of order when only the first answer was lost.
                if answer.status == 416 and answer.headers.get("range") != f"0-{offset - 1}":
                    raise BadResponse(f"{reference}: the registry lost its place in an upload")
                url = self._next(reference, ask, answer)
                piece = next(rest, None)
            final = str(url.copy_add_param("digest", str(digest)))
            self._exchange.fetch(
                self._ask("PUT", reference, final, {201, 204}, {"Content-Length": "0"}), _LIMIT
            )
        except ConformaError:
            self._give_up(reference, url)
            raise

    def _give_up(self, reference: Reference, url: httpx.URL) -> None:
        # A courtesy: registries forget abandoned uploads by themselves.
        with contextlib.suppress(ConformaError):
            self._exchange.fetch(
                self._ask("DELETE", reference, str(url), {200, 202, 204, 404, 405}), _LIMIT
            )

    def _next(self, reference: Reference, ask: Ask, answer: Answer) -> httpx.URL:
        return self._pusher.upload_url(reference, ask, answer.headers.get("location"))

    def _ask(
        self,
        method: str,
        reference: Reference,
        path: str,
        expected: Iterable[int],
        headers: dict[str, str] | None = None,
        content: bytes | None = None,
    ) -> Ask:
        return Ask(
            method,
            reference,
            path,
            headers or {},
            content,
            expected=frozenset(expected),
            actions=_WRITE,
            lane="bulk" if content is not None and len(content) > _SMALL else "small",
        )


def _pieces(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of exactly ``size``, the last one shorter and never empty."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)
