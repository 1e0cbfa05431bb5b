"""How many threads questions are worth: more as long as those that run mostly wait.

Threads of one interpreter hand its lock around. Where answers come nearly as
soon as questions are put, a few threads keep the interpreter busy and more
only cost; where they take milliseconds, many wait for free. Little's law says
how many: threads that keep the processor busy for a share of the time may be
as many times more as that share goes into one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

# Above this share of one processor more threads would take the interpreter from each other.
# 4000 HEAD requests to a server without latency on the same machine, microseconds each
# (processor time in brackets): 1 thread 196 (102), 2 145 (122), 4 117 (105), 6 106 (99),
# 8 145 (131), 16 180 (166); wrk, 101.
_BUSY: Final = 0.7
# Answers do not come evenly: with so many threads more, somebody nearly always has one.
_SPARE: Final = 2
# In seconds. The first look sees dozens of questions to a server next door. A short one
# may see a moment in which the machine was busy with something else, and no thread is ever
# taken away, so the next ones are longer unless it is plain that we only wait.
_FIRST_LOOK: Final = 0.005
_LAST_LOOK: Final = 0.1
# When we look first, no answer may be here yet: not all threads at once.
_STEP: Final = 4


class Growth:
    """Decides, look by look, how many threads are to run; it never takes one away.

    ``now`` and ``used`` are clocks in seconds: of the world, and of the
    processor time of this process.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = time.process_time,
    ) -> None:
        self._now = now
        self._used = used
        self._last = now(), used()
        self.pause = _FIRST_LOOK
        """Seconds until the next look."""

    def wanted(self, running: int) -> int:
        """How many threads should run, if ``running`` did since the last look."""
        last_now, last_used = self._last
        self._last = now, used = self._now(), self._used()
        busy = (used - last_used) / max(now - last_now, 1e-9)
        if busy * _STEP < 1:
            self.pause = _FIRST_LOOK
            return _STEP * running
        self.pause = min(2 * self.pause, _LAST_LOOK)
        if busy >= _BUSY:
            return running
        return min(math.ceil(running / busy) + _SPARE, _STEP * running)
