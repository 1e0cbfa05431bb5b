"""Which bytes a ``Range`` header asks for (RFC 9110, section 14)."""

from __future__ import annotations

import re
from typing import Final

# Numbers beyond any size are no range we know, so they ask for everything.
_RANGE: Final = re.compile(r"bytes=([0-9]{0,30})-([0-9]{0,30})")


def wanted_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte of a single range; first > last if there is none; ``None`` for all."""
    match = _RANGE.fullmatch(header or "")
    if match is None or match[0] == "bytes=-":
        return None
    if not match[1]:
        return max(size - int(match[2]), 0), size - 1
    first = int(match[1])
    last = min(int(match[2]), size - 1) if match[2] else size - 1
    return first, last
