"""What an answer carries: bytes in memory, or a file that goes from disk to socket."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from conforma.cache.handles import SharedFile

PIECE = 1024 * 1024


class Body(Protocol):
    """Bytes of a known size that can be sent from any offset."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def read(self, offset: int, count: int) -> bytes:
        """These bytes; fewer only at the end."""

    def send(
        self, connection: socket.socket, offset: int, count: int, sent: Callable[[int], None]
    ) -> None:
        """Write these bytes to a blocking socket, reporting each part once it is written."""


class MemoryBody:
    """A body held in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self._data)

    def read(self, offset: int, count: int) -> bytes:
        """These bytes; fewer only at the end."""
        return self._data[offset : offset + count]

    def send(
        self, connection: socket.socket, offset: int, count: int, sent: Callable[[int], None]
    ) -> None:
        """Write these bytes without copying them."""
        view = memoryview(self._data)[offset : offset + count]
        while view:
            written = connection.send(view[:PIECE])
            sent(written)
            view = view[written:]


class FileBody:
    """A body on disk. The file is opened for each answer and must not shrink meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = path.stat().st_size

    @property
    def size(self) -> int:
        """Length in bytes when the body was made."""
        return self._size

    def read(self, offset: int, count: int) -> bytes:
        """These bytes; fewer only at the end."""
        with self._path.open("rb") as file:
            file.seek(offset)
            return file.read(count)

    def send(
        self, connection: socket.socket, offset: int, count: int, sent: Callable[[int], None]
    ) -> None:
        """Have the kernel copy the file to the socket; over TLS in large pieces."""
        with self._path.open("rb") as file:
            if isinstance(connection, ssl.SSLSocket):
                file.seek(offset)
                while count and (piece := file.read(min(count, PIECE))):
                    connection.sendall(piece)
                    sent(len(piece))
                    count -= len(piece)
                return
            while count:
                written = os.sendfile(connection.fileno(), file.fileno(), offset, count)
                if written == 0:
                    raise OSError(f"{self._path} is shorter than it was")
                sent(written)
                offset += written
                count -= written


class HandleBody:
    """A complete file of the layer cache, pinned while the answer is under way."""

    def __init__(self, file: SharedFile) -> None:
        self._file = file

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._file.size

    def read(self, offset: int, count: int) -> bytes:
        """These bytes; fewer only at the end."""
        return self._file.read_at(offset, count)

    def send(
        self, connection: socket.socket, offset: int, count: int, sent: Callable[[int], None]
    ) -> None:
        """Have the kernel copy the file to the socket; over TLS in large pieces."""
        if isinstance(connection, ssl.SSLSocket):
            send_pieces(self.read, connection, offset, count, sent)
            return
        while count:
            written = os.sendfile(connection.fileno(), self._file.fileno(), offset, count)
            if written == 0:
                raise OSError("a cached file is shorter than it was")
            sent(written)
            offset += written
            count -= written


def send_pieces(
    read: Callable[[int, int], bytes],
    connection: socket.socket,
    offset: int,
    count: int,
    sent: Callable[[int], None],
) -> None:
    """Write what ``read`` gives, piece by piece."""
    while count:
        piece = read(offset, min(count, PIECE))
        if not piece:
            raise OSError("a body ended early")
        connection.sendall(piece)
        sent(len(piece))
        offset += len(piece)
        count -= len(piece)


class Slice:
    """A part of another body, as a range request wants it."""

    def __init__(self, body: Body, offset: int, count: int) -> None:
        self._body = body
        self._offset = offset
        self._count = count

    @property
    def size(self) -> int:
        """Length of the part in bytes."""
        return self._count

    def read(self, offset: int, count: int) -> bytes:
        """These bytes of the part."""
        return self._body.read(self._offset + offset, min(count, self._count - offset))

    def send(
        self, connection: socket.socket, offset: int, count: int, sent: Callable[[int], None]
    ) -> None:
        """Write these bytes of the part."""
        self._body.send(connection, self._offset + offset, count, sent)
