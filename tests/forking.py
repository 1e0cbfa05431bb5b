"""Work in forked children, for programs that have no threads."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable


def fork(work: Callable[[], object]) -> int:
    """Begin the work in a child; its process id. The child exits with 1 if the work fails."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid


def in_child(work: Callable[[], object]) -> int:
    """Do the work in a child; its wait status: 0, or the signal that killed it.

    Raises ``RuntimeError`` if the work failed.
    """
    _, status = os.waitpid(fork(work), 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"the child failed with {os.WEXITSTATUS(status)}")
    return status
