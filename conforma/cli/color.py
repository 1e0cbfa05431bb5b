"""How text for people is shown: in colour or not, and how much of it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from conforma.cli.options import ImageOptions
    from conforma.report.formats import Options

_NEVER: Final = ("EC_NO_COLOR", "EC_NO_COLOUR", "NO_COLOR", "NO_COLOUR")
_ALWAYS: Final = ("EC_FORCE_COLOR", "EC_FORCE_COLOUR", "FORCE_COLOR", "FORCE_COLOUR")


def color_wanted(*, no_color: bool, color: bool, stdout: TextIO) -> bool:
    """Whether text reports are coloured: flag, environment, then whether stdout is a terminal."""
    if no_color or any(os.environ.get(name) for name in _NEVER):
        return False
    if color or any(os.environ.get(name) for name in _ALWAYS):
        return True
    return stdout.isatty()


def report_options(options: ImageOptions) -> Options:
    """What every report of a run shows unless its ``--output`` says otherwise."""
    from conforma.report.formats import Options

    return Options(
        show_successes=options.show_successes,
        show_warnings=options.show_warnings,
        show_policy_docs_link=options.show_policy_docs_link,
        color=color_wanted(no_color=options.no_color, color=options.color, stdout=sys.stdout),
    )
