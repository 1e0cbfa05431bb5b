"""What is going on, shown on a terminal while the components are validated.

One line for each running component and one with the totals, on stderr, gone
when the report appears. Without a terminal there is nothing at all.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from conforma.report.wrapping import harmless_line
from conforma.validate.result import ComponentResult
from conforma.validate.run import Watcher
from conforma.validate.snapshot import Component

if TYPE_CHECKING:
    from rich.text import Text

    from conforma.cache.stats import CacheStats

_MOST_LINES: Final = 16
_MIB: Final = 1024 * 1024


@contextmanager
def shown(total: int, stats: Callable[[], CacheStats], *, quiet: bool) -> Iterator[Watcher | None]:
    """A watcher whose display is visible while inside, or none if nobody is looking."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.live import Live

    board = Board(total, stats)
    console = Console(stderr=True)
    with Live(console=console, get_renderable=board.render, refresh_per_second=8, transient=True):
        yield board


class Board:
    """The running components and the totals; ``_lock`` guards them."""

    def __init__(
        self,
        total: int,
        stats: Callable[[], CacheStats],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total
        self._stats = stats
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[int, tuple[Component, float]] = {}
        self._passed = self._failed = self._undecided = 0

    def started(self, component: Component) -> None:
        """Give the component a line."""
        with self._lock:
            self._running[threading.get_ident()] = (component, self._clock())

    def finished(self, result: ComponentResult) -> None:
        """Count the component and give its line back."""
        with self._lock:
            self._running.pop(threading.get_ident(), None)
            if result.error is not None:
                self._undecided += 1
            elif result.success:
                self._passed += 1
            else:
                self._failed += 1

    def lines(self) -> list[str]:
        """The display as plain lines, totals last."""
        with self._lock:
            running = sorted(self._running.values(), key=lambda entry: entry[1])
            done = self._passed + self._failed + self._undecided
            counts = [f"{done}/{self._total} done", f"{self._passed} passed"]
            if self._failed:
                counts.append(f"{self._failed} failed")
            if self._undecided:
                counts.append(f"{self._undecided} undecided")
        now = self._clock()
        lines = [
            f"  {now - since:5.1f}s  {harmless_line(component.name or component.container_image)}"
            for component, since in running[:_MOST_LINES]
        ]
        if len(running) > _MOST_LINES:
            lines.append(f"          and {len(running) - _MOST_LINES} more")
        stats = self._stats()
        if stats.requests:
            counts.append(
                f"layers: {stats.hits + stats.coalesced} of {stats.requests} from the cache, "
                f"{stats.network_bytes / _MIB:.0f} MiB fetched"
            )
        return [*lines, ", ".join(counts)]

    def render(self) -> Text:
        """The display for rich; nothing in it is markup."""
        from rich.text import Text

        return Text("\n".join(self.lines()), no_wrap=True, overflow="ellipsis")
