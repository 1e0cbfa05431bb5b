"""What the server of ``conforma serve`` puts on a socket and takes from it, around h11."""

from __future__ import annotations

import contextlib
import io
import socket
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

import h11

from conforma.oci.wire import set_patience
from conforma.serve.bodies import Body, MemoryBody
from conforma.serve.httpd import Incoming, RequestBody, Response
from conforma.serve.sending import phrase

READ: Final = 64 * 1024
_SMALL: Final = 16 * 1024
_LINGERING: Final = 1024 * 1024
_LINGERING_SECONDS: Final = 10.0


class _Placeholder:
    """Stands for a body in h11's account; the bytes themselves go past it."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


def incoming_of(request: h11.Request, client: str = "") -> Incoming:
    """A request of h11 as handlers see it, its body still empty."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in request.headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    target = request.target.decode("latin-1")
    url = urlsplit(target)
    return Incoming(
        request.method.decode("latin-1"),
        unquote(url.path),
        dict(parse_qsl(url.query, keep_blank_values=True)),
        headers,
        RequestBody(io.BytesIO(), {}),
        target,
        f"HTTP/{request.http_version.decode()}",
        client,
    )


def send_answer(
    connection: socket.socket,
    protocol: h11.Connection,
    response: Response,
    *,
    head_only: bool,
    sent: Callable[[int], None] = lambda _more: None,
) -> None:
    """Write the answer; bodies of files go from the kernel to the socket, and h11 is told."""
    body: Body = response.body
    headers = [("Content-Length", str(body.size)), *response.headers.items()]
    if response.close:
        headers.append(("Connection", "close"))
    # Optional (RFC 9112, 4), but people who read along with curl expect the words.
    words = phrase(response.status).encode()
    head = protocol.send(h11.Response(status_code=response.status, headers=headers, reason=words))
    assert head is not None
    if head_only or body.size == 0:
        connection.sendall(head)
    elif body.size <= _SMALL and isinstance(body, MemoryBody):
        # One segment for a small answer.
        connection.sendall(head + body.read(0, body.size))
        sent(body.size)
    else:
        connection.sendall(head)
        body.send(connection, 0, body.size, sent)
    if not head_only and body.size:
        # The type says bytes; h11 documents any object that has a length.
        protocol.send_with_data_passthrough(h11.Data(data=_Placeholder(body.size)))  # type: ignore[arg-type]
    protocol.send(h11.EndOfMessage())


def linger(connection: socket.socket, most: int = _LINGERING) -> None:
    """Take what is still coming: closing before that would reset the answer away (RFC 9112, 9.6).

    Up to ``most`` bytes (a mebibyte at least), for a few seconds.
    """
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_WR)  # not that of TLS: we go on reading
        set_patience(connection, socket.SO_RCVTIMEO, 1.0)
        left = max(most, _LINGERING)
        due = time.monotonic() + _LINGERING_SECONDS
        while left > 0 and time.monotonic() < due and (piece := connection.recv(READ)):
            left -= len(piece)
