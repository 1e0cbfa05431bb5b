"""``python -m benchmarks`` lists the benchmarks; ``python -m benchmarks NAME…`` runs them.

``python -m benchmarks experiments`` says which of them shows which experiment and target.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

SUPPORT = {"__main__", "ledger_plot", "ledger_results", "measure", "processes", "slow_signer"}


def names() -> list[str]:
    """The benchmarks, each a module with a ``main(arguments)`` function."""
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(m.name for m in found if m.name not in SUPPORT)


def main() -> int:
    """Run what was named, passing on everything behind ``--``."""
    chosen, _, rest = " ".join(sys.argv[1:]).partition("--")
    wanted = chosen.split()
    if not wanted:
        for name in names():
            module = importlib.import_module(f"benchmarks.{name}")
            print(f"{name:20} {(module.__doc__ or '').strip().splitlines()[0]}")
        return 0
    unknown = [name for name in wanted if name not in names()]
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}", file=sys.stderr)
        return 2
    for name in wanted:
        importlib.import_module(f"benchmarks.{name}").main(rest.split())
    return 0


if __name__ == "__main__":
    sys.exit(main())
