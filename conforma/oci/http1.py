"""HTTP/1.1 answers, read by hand: the head in one piece, the body as it is framed.

``http.client`` parses heads with the library for e-mail, which costs more than
everything else about a small request (RFC 9112; limits as in ``http.client``).
Whatever is not plainly an answer is refused, never guessed at.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from typing import Final, Protocol

Pairs = list[tuple[str, str]]
"""Header lines in order: name as sent, value without surrounding blanks."""

_LONGEST_HEAD: Final = 128 * 1024
_LONGEST_LINE: Final = 64 * 1024
_MOST_LINES: Final = 200
_MOST_INTERIM: Final = 10
# Small pieces are collected up to this before they go to the consumer; TLS
# hands over at most 16 KiB at a time.
_GATHER: Final = 64 * 1024
# But nobody waits for more of a slow body: what has come by then goes on.
_GATHERING: Final = 0.01
# The end of a line and an empty one; a CR before it stays with the line, whose blanks go later.
_END: Final = re.compile(rb"\n\r?\n")
_STATUS: Final = re.compile(r"HTTP/1\.([01]) +([0-9]{3})(?: (.*))?")
_LINES: Final = re.compile(r"^([!#$%&'*+.^_`|~0-9A-Za-z-]+):(.*)$", re.MULTILINE)
_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,15}")


class BadAnswer(Exception):
    """Bytes that are no answer of HTTP/1.0 or 1.1."""


class Source(Protocol):
    """Where an answer is read from."""

    def receive(self, most: int) -> bytes:
        """At least one byte, or none at the end. Raises ``OSError``."""

    def head_is_complete(self) -> None:
        """From now on the pace of the body counts."""


class Answer:
    """One answer: its head is here, its body is read by iterating, once.

    Reading raises ``OSError``, ``EOFError`` for a body that ends early, and
    :class:`BadAnswer`, always after everything that arrived before.
    """

    __slots__ = ("_buffer", "_keep", "_source", "chunked", "complete", "fields", "left", "pairs",
                 "reason", "status")  # fmt: skip

    def __init__(self, source: Source, method: str) -> None:
        self._source = source
        self._buffer = b""
        self.status = 100
        interim = 0
        while 100 <= self.status < 200:  # interim answers announce the real one
            head = self._head()
            if interim > _MOST_INTERIM:
                raise BadAnswer("too many interim answers")
            interim += 1
            minor, self.status, self.reason, self.pairs = _parse(head)
        source.head_is_complete()
        self.fields = fields = combined(self.pairs)
        self._keep = minor == "1" and "close" not in fields.get("connection", "").lower()
        self.chunked, self.left = _framing(fields, method, self.status)
        self.complete = self.left == 0

    @property
    def is_reusable(self) -> bool:
        """Whether another request may follow on this connection.

        Bytes beyond the end of the body would become the next answer's head.
        """
        return self.complete and self._keep and not self._buffer

    def __iter__(self) -> Iterator[bytes]:
        pieces: list[bytes] = []
        gathered = 0
        since = 0.0  # so the first piece goes on at once
        error: Exception | None = None
        source = self._chunks() if self.chunked else self._plain()
        try:
            for piece in source:
                if not pieces and len(piece) >= _GATHER:
                    yield piece
                    continue
                pieces.append(piece)
                gathered += len(piece)
                if gathered >= _GATHER or time.monotonic() - since > _GATHERING:
                    yield b"".join(pieces)
                    pieces, gathered = [], 0
                    since = time.monotonic()
        except (OSError, EOFError, BadAnswer) as cause:  # told below, after what came before it
            error = cause
        if pieces:
            yield pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if error is not None:
            raise error
        self.complete = True

    def _head(self) -> bytes:
        data = self._buffer
        searched = 0
        while (match := _END.search(data, searched)) is None:
            if len(data) > _LONGEST_HEAD:
                raise BadAnswer(f"a head of more than {_LONGEST_HEAD} bytes")
            searched = max(0, len(data) - 3)
            piece = self._source.receive(16 * 1024)
            if not piece:
                if data:
                    raise EOFError("the connection ended within the head of the answer")
                raise EOFError("the connection was closed without an answer")
            data = data + piece if data else piece
        self._buffer = data[match.end() :]
        return data[: match.start()]

    def _plain(self) -> Iterator[bytes]:
        piece, self._buffer = self._buffer, b""
        left = self.left
        while left != 0:
            if not piece:
                piece = self._source.receive(left if left is not None else _GATHER)
                if not piece:
                    if left is None:
                        return
                    raise EOFError(f"the connection ended {left} bytes early")
            if left is not None and len(piece) > left:
                piece, self._buffer = piece[:left], piece[left:]
            if left is not None:
                left -= len(piece)
            yield piece
            piece = b""

    def _chunks(self) -> Iterator[bytes]:
        while True:
            line = self._line().partition(b";")[0].strip()
            if _SIZE.fullmatch(line) is None:
                raise BadAnswer("a chunk without a size")
            left = int(line, 16)
            if left == 0:
                for _ in range(_MOST_LINES):  # trailers
                    if not self._line():
                        return
                raise BadAnswer("too many trailers")
            while left:
                if not self._buffer:
                    self._fill(left)
                piece, self._buffer = self._buffer[:left], self._buffer[left:]
                left -= len(piece)
                yield piece
            if self._line():
                raise BadAnswer("a chunk longer than its size")

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _LONGEST_LINE:
                raise BadAnswer(f"a line of more than {_LONGEST_LINE} bytes")
            self._fill(_GATHER)
        line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
        return line.removesuffix(b"\r")

    def _fill(self, most: int) -> None:
        piece = self._source.receive(max(most, 4096))
        if not piece:
            raise EOFError("the connection ended within a chunked body")
        self._buffer += piece


def combined(pairs: Pairs) -> dict[str, str]:
    """Values by lower-case name; those of one name joined, as RFC 9110 (5.3) allows."""
    fields: dict[str, str] = {}
    for name, value in pairs:
        name = name.lower()
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


def _parse(head: bytes) -> tuple[str, int, str, Pairs]:
    first, end, rest = head.decode("latin-1").partition("\n")
    match = _STATUS.fullmatch(first.rstrip("\r"))
    if match is None:
        raise BadAnswer(f"no HTTP/1 answer: starts with {first[:40]!r}")
    lines = rest.count("\n") + 1 if end else 0
    if lines > _MOST_LINES:
        raise BadAnswer(f"more than {_MOST_LINES} header lines")
    pairs: Pairs = [(name, value.strip()) for name, value in _LINES.findall(rest)]
    if len(pairs) != lines or len(rest) > _LONGEST_LINE:
        for line in rest.split("\n"):
            if _LINES.fullmatch(line) is None or len(line) > _LONGEST_LINE:
                raise BadAnswer(f"no header line: {line[:40]!r}")
    return match[1], int(match[2]), match[3] or "", pairs


def _framing(fields: Mapping[str, str], method: str, status: int) -> tuple[bool, int | None]:
    """Whether the body is chunked, and how many bytes it has, if that is known (RFC 9112, 6.3)."""
    if method == "HEAD" or status in (204, 304):
        return False, 0
    coding = fields.get("transfer-encoding", "").lower()
    if coding == "chunked":
        return True, None
    if coding and coding != "identity":
        raise BadAnswer(f"transfer coding {coding[:40]!r}")
    if "content-length" not in fields:
        return False, None
    lengths = {text.strip() for text in fields["content-length"].split(",")}
    (text,) = lengths if len(lengths) == 1 else ("",)
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise BadAnswer(f"Content-Length {fields['content-length'][:40]!r}")
    return False, int(text)
