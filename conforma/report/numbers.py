"""Numbers as people read them."""

from __future__ import annotations


def counted(number: int, thing: str, things: str = "") -> str:
    """Such as ``1 finding`` and ``2,000 findings``; ``things`` is a plural without that s."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"
