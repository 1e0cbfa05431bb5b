"""Where the engine's program is, and how much of the machine it may use."""

from __future__ import annotations

import os
from pathlib import Path

from msgspec import Struct, field

from conforma.errors import EngineError


class EngineLimits(Struct, frozen=True):
    """What policies may use up.

    ``memory_bytes`` is for all evaluations together; ``seconds`` is the time
    the engine itself may work on one evaluation, waiting for builtins excluded.
    """

    memory_bytes: int = field(default_factory=lambda: default_memory_bytes())
    seconds: float = 300.0


def find_engine() -> Path:
    """The engine's program: ``CONFORMA_ENGINE``, else the one built into the package.

    Raises ``EngineError`` if there is none.
    """
    chosen = os.environ.get("CONFORMA_ENGINE")
    path = Path(chosen) if chosen else Path(__file__).with_name("bin") / "conforma-opa"
    if not path.is_file():
        raise EngineError(
            f"there is no policy engine at {path}",
            hint="run `pip install .` (or `pip install -e .`) where Go or its package index can "
            "be reached, or name a prebuilt engine in CONFORMA_ENGINE",
        )
    return path


def default_memory_bytes() -> int:
    """Half of what this machine or container has, at most 4 GiB."""
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        group = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        group = "max"
    if group.isdigit():
        available = min(available, int(group))
    return min(available // 2, 4 << 30)
