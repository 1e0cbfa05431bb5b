"""The command line. Importing it loads nothing; ``main`` is the program."""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """Run the program with the arguments of the process and exit with its status."""
    import sys

    try:
        _tune()
        from conforma.cli import streams

        streams.complete()
        from conforma.cli.root import run

        status = run(sys.argv[1:])
        streams.settle()
    except KeyboardInterrupt:  # while the program was still being loaded
        status = 130
    _leave_memory()
    sys.exit(status)


def _tune() -> None:
    """Set up the interpreter for one run of the program; whoever imports conforma keeps their own."""
    import gc
    import sys

    # A run makes many small values and few cycles; looking for cycles after
    # every 700 allocations took a twentieth of its time.
    gc.set_threshold(200_000, 20, 50)
    # httpx imports its command line, and with it rich and pygments, whenever they
    # are installed: a third of its start-up time, for nothing.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]


def _leave_memory() -> None:
    """Let the interpreter end without looking for cycles in memory that the system takes back.

    Everything that has to be closed is closed by now; the search took a tenth of a short run.
    """
    import gc

    gc.freeze()
