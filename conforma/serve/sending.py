"""Writes one answer to a socket: the quick way, or wrongly in the way a fault asks for."""

from __future__ import annotations

import http
import socket
import struct
import time
from collections.abc import Iterator, Mapping

from conforma.serve.bodies import Body
from conforma.serve.faults import Fault
from conforma.serve.log import Entry

PIECE = 64 * 1024
SMALL = 16 * 1024


class Sender:
    """Sends one answer and tells the log entry what was sent."""

    def __init__(self, connection: socket.socket, entry: Entry) -> None:
        self._connection = connection
        self._entry = entry

    def before(self, fault: Fault) -> None:
        """Hang or hesitate as the fault says, before anything is answered."""
        if fault.hang is not None:
            fault.hang.stop_here()
        if fault.latency:
            time.sleep(fault.latency)

    def send(
        self,
        status: int,
        headers: Mapping[str, str],
        body: Body,
        *,
        head_only: bool,
        keep: bool,
        fault: Fault | None,
    ) -> bool:
        """Write head and body; whether the connection may serve another request."""
        if fault is not None:
            return self._send_wrongly(status, headers, body, head_only, keep, fault)
        # Neither has a body, and they may not promise one (RFC 9110, 8.6).
        length = {} if status in (204, 304) else {"Content-Length": str(body.size)}
        lines = {**length, **headers}
        if not keep:
            lines["Connection"] = "close"
        head = _head("HTTP/1.1", status, lines)
        self._entry.answered(status)
        if head_only or body.size == 0:
            self._connection.sendall(head)
        elif body.size <= SMALL:
            # One segment for a small answer: half the system calls, no delayed ACK.
            data = body.read(0, body.size)
            self._connection.sendall(head + data)
            self._count(len(data))
        else:
            self._connection.sendall(head)
            body.send(self._connection, 0, body.size, self._count)
        return keep

    def _send_wrongly(
        self,
        status: int,
        headers: Mapping[str, str],
        body: Body,
        head_only: bool,
        keep: bool,
        fault: Fault,
    ) -> bool:
        chunked = fault.chunked or fault.endless
        lines: dict[str, str] = dict(headers)
        if chunked:
            lines["Transfer-Encoding"] = "chunked"
        elif not fault.http10:
            length = body.size + len(fault.extra)
            lines["Content-Length"] = str(
                length if fault.content_length is None else fault.content_length
            )
        for name, value in fault.headers.items():
            lines = {n: v for n, v in lines.items() if n.lower() != name.lower()}
            if value is not None:
                lines[name] = value
        keep = keep and not fault.http10 and not fault.endless and fault.content_length is None
        if not keep:
            lines["Connection"] = "close"
        version = "HTTP/1.0" if fault.http10 else "HTTP/1.1"
        self._entry.answered(status)
        self._connection.sendall(_head(version, status, lines))
        if head_only:
            return keep
        if not self._send_body(body, fault, chunked):
            return False
        if chunked and not fault.endless:
            self._connection.sendall(b"0\r\n\r\n")
        return keep

    def _send_body(self, body: Body, fault: Fault, chunked: bool) -> bool:
        """Send the pieces up to the place where the fault ends them; False if it did."""
        for offset, piece in _pieces(body, fault):
            if offset == fault.hold_at and fault.gate is not None:
                fault.gate.stop_here()
            if offset == fault.truncate_at:
                return False
            if offset == fault.reset_at:
                linger = struct.pack("ii", 1, 0)
                self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return False
            if not piece:
                continue
            frame = b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece
            self._connection.sendall(frame)
            self._count(len(piece))
            if fault.drip is not None:
                time.sleep(fault.drip[1])
        return True

    def _count(self, sent: int) -> None:
        self._entry.sent += sent


def _pieces(body: Body, fault: Fault) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of each piece, cut where the fault acts; an empty one at the end."""
    total = body.size + len(fault.extra)
    step = fault.drip[0] if fault.drip is not None else PIECE
    acts = (fault.hold_at, fault.truncate_at, fault.reset_at)
    cuts = sorted({place for place in acts if place is not None and place < total} | {total})
    offset = 0
    for cut in cuts:
        while offset < cut:
            count = min(step, cut - offset)
            piece = body.read(offset, count)
            if len(piece) < count:
                start = offset + len(piece) - body.size
                piece += fault.extra[start : start + count - len(piece)]
            if fault.flip_at is not None and offset <= fault.flip_at < offset + count:
                flipped = bytearray(piece)
                flipped[fault.flip_at - offset] ^= 1
                piece = bytes(flipped)
            yield offset, piece
            offset += count
    yield offset, b""


def phrase(status: int) -> str:
    """What HTTP calls a status."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _head(version: str, status: int, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{version} {status} {phrase(status)}\r\n{lines}\r\n".encode("latin-1")
