"""How long people wait before the program says anything.

Baselines: the bare interpreter (``python -c pass``) and ``import click``, in
the same environment, in the same rounds.
"""

from __future__ import annotations

import sys

from benchmarks.measure import child, medians, python, table

ROUNDS = 15


def main(_arguments: list[str]) -> None:
    """Print the ratios of start-up times to their baselines."""
    program = [sys.executable, "-m", "conforma"]
    times = medians(
        {
            "bare": lambda: child(python("pass")).wall,
            "click": lambda: child(python("import click")).wall,
            "version": lambda: child([*program, "version"]).wall,
            "help": lambda: child([*program, "validate", "image", "--help"]).wall,
        },
        ROUNDS,
    )
    table(
        "start-up",
        [
            ("conforma version : python -c pass", f"{times['version'] / times['bare']:.2f}", "< 5"),
            (
                "validate image --help : import click",
                f"{times['help'] / times['click']:.2f}",
                "< 1.5",
            ),
            ("python -c pass", f"{times['bare'] * 1000:.1f} ms", "baseline"),
        ],
    )
