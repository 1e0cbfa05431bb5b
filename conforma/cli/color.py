"""Whether text for people is coloured."""

from __future__ import annotations

import os
from typing import Final, TextIO

_NEVER: Final = ("EC_NO_COLOR", "EC_NO_COLOUR", "NO_COLOR", "NO_COLOUR")
_ALWAYS: Final = ("EC_FORCE_COLOR", "EC_FORCE_COLOUR", "FORCE_COLOR", "FORCE_COLOUR")


def color_wanted(*, no_color: bool, color: bool, stdout: TextIO) -> bool:
    """Whether text reports are coloured: flag, environment, then whether stdout is a terminal."""
    if no_color or any(os.environ.get(name) for name in _NEVER):
        return False
    if color or any(os.environ.get(name) for name in _ALWAYS):
        return True
    return stdout.isatty()
