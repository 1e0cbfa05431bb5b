"""The fields of a tar header: numbers in two notations, text, and the checksum."""

from __future__ import annotations

import re
import zlib
from typing import Final

from conforma.errors import BadArchive

_OCTAL: Final = re.compile(rb"[0-7]+")


class Fields:
    """Reads header fields; each method raises ``BadArchive`` naming ``what``."""

    def __init__(self, what: str) -> None:
        self._what = what

    def check_sum(self, block: bytes) -> None:
        """Raise unless the header's own checksum fits it."""
        digits = block[148:156].strip(b" \0")
        stated = int(digits, 8) if _OCTAL.fullmatch(digits) else -1
        # Adler-32's lower half is the sum of the bytes plus one, modulo 65521,
        # thirty times as fast as adding them up here.
        adler = zlib.adler32(block[156:], zlib.adler32(b"        ", zlib.adler32(block[:148])))
        if (adler & 0xFFFF) == (stated + 1) % 65521:
            return
        signed = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + block[156:])
        if signed + 256 != stated:  # some old tars added signed bytes
            raise BadArchive(f"{self._what}: not a tar archive, or a damaged one (bad checksum)")

    def number(self, field: bytes) -> int:
        """An octal or base-256 field that is not negative."""
        if field[0] & 0x80:  # base-256, as GNU writes large numbers
            value = int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
            if field[0] & 0x40 or value >= 1 << 63:
                raise BadArchive(f"{self._what}: a number in a tar header is out of range")
            return value
        digits = field.strip(b" \0").partition(b"\0")[0]
        if not digits:
            return 0
        if not _OCTAL.fullmatch(digits):
            raise BadArchive(f"{self._what}: a number in a tar header is malformed")
        return int(digits, 8)

    def owner(self, field: bytes) -> tuple[int, int, int]:
        """Mode bits, user and group, which stand one after the other."""
        return self.number(field[:8]) & 0o7777, self.number(field[8:16]), self.number(field[16:24])

    def time(self, field: bytes) -> int:
        """Seconds since 1970. Times decide nothing here, so an odd one is 0 and no error."""
        try:
            return self.number(field)
        except BadArchive:
            return 0

    def decimal(self, text: bytes, name: str) -> int:
        """A decimal number in an extension record, called ``name`` in the error."""
        if not text.isdigit() or len(text) > 19 or int(text) >= 1 << 63:
            raise BadArchive(f"{self._what}: {name} in a tar extension is malformed")
        return int(text)


def text(field: bytes) -> bytes:
    """A field up to its first NUL."""
    return field.partition(b"\0")[0]
