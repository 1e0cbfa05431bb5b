"""The command line. Importing it loads nothing; ``main`` is the program."""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """Run the program with the arguments of the process and exit with its status."""
    import sys

    from conforma.cli.root import run

    sys.exit(run(sys.argv[1:]))
