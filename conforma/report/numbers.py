"""Numbers as people read them."""

from __future__ import annotations


def counted(number: int, thing: str, things: str = "") -> str:
    """Such as ``1 finding`` and ``2,000 findings``; ``things`` is a plural without that s."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def binary_size(count: int) -> str:
    """A number of bytes, such as ``512 B`` and ``1.5 MiB``."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
