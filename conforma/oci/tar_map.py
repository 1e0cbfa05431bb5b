"""The map before the content of a sparse file in pax format 1.0: where its pieces belong."""

from __future__ import annotations

from typing import Final

from conforma.errors import BadArchive, TooLarge
from conforma.oci.tar_entry import BLOCK
from conforma.oci.tar_fields import Fields

MOST_FRAGMENTS: Final = 20_000
_LONGEST_LINE: Final = 20
"""Bytes of a number below 2**63 with its newline."""


class PaxMap:
    """Collects the blocks of one map: a count, then a start and a length for each piece.

    ``room`` is how many bytes of the member are left for the map and what
    follows it. No more is held than a map of the announced count can need.
    """

    def __init__(self, fields: Fields, what: str, room: int) -> None:
        self.room = room
        self._fields = fields
        self._what = what
        self._text = bytearray()
        self._lines = 0
        self._wanted = 1

    def take(self, block: bytes) -> list[int] | None:
        """Starts and lengths in turn, once the last block of the map is here.

        Raises ``BadArchive`` for a map that is none, ``TooLarge`` for over
        ``MOST_FRAGMENTS`` pieces.
        """
        before = self._lines
        self._text += block
        self._lines += block.count(b"\n")
        self.room -= len(block)
        if self._lines and not before:
            count = self._number(bytes(self._text.partition(b"\n")[0]))
            if count > MOST_FRAGMENTS:
                raise TooLarge(f"{self._what}: a sparse file in over {MOST_FRAGMENTS} pieces")
            self._wanted = 1 + 2 * count
        if self.room < 0 or len(self._text) > self._wanted * _LONGEST_LINE + BLOCK:
            raise BadArchive(f"{self._what}: malformed sparse map")
        if self._lines < self._wanted:
            return None
        return [self._number(line) for line in bytes(self._text).split(b"\n")[1 : self._wanted]]

    def _number(self, line: bytes) -> int:
        return self._fields.decimal(line, "sparse map")
