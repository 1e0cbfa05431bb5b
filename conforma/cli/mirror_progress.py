"""How far a mirror run is: a display, plain lines, or events; always on stderr.

The display has one line for each image, with what is shared credited to each
that waits for it, and one with the totals. All modes read the same account,
so they cannot disagree, and only one thread writes.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TextIO

from conforma.mirror.plan import FINAL, Item
from conforma.mirror.tally import ImageProgress, Listener, Tally, Totals
from conforma.report.wrapping import harmless_line

if TYPE_CHECKING:
    from rich.console import RenderableType

_PLAIN_EVERY: Final = 5.0
_EVENTS_EVERY: Final = 0.5
_BAR: Final = 24
_MARKS: Final = {
    "planned": " ", "active": "↓", "copied": "✓", "present": "✓",
    "skipped": "-", "failed": "✗", "cancelled": "✗",
}  # fmt: skip


@contextmanager
def shown(tally: Tally, mode: str, *, quiet: bool) -> Iterator[Listener | None]:
    """Show the account while inside; what is yielded wants to hear of every item."""
    if mode == "auto":
        mode = "display" if sys.stderr.isatty() else "plain"
    if mode == "none" or (quiet and mode != "json"):
        yield None
    elif mode == "display":
        with _display(tally):
            yield None
    elif mode == "json":
        events = Events(tally, sys.stderr)
        with _repeating(events.tick, _EVENTS_EVERY):
            yield events.item
        events.end()
    else:
        _line(sys.stderr, plain_line(tally.totals()))
        with _repeating(lambda: _line(sys.stderr, plain_line(tally.totals())), _PLAIN_EVERY):
            yield None


def size_text(count: int) -> str:
    """A number of bytes for people."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"


def plain_line(totals: Totals) -> str:
    """The totals in one line."""
    done = sum(totals.by_state.values())
    text = (
        f"{size_text(totals.bytes_done)} of {size_text(totals.bytes_total)}, "
        f"{done} of {totals.planned} items"
    )
    for state in ("failed", "cancelled"):
        if count := totals.by_state[state]:
            text += f", {count} {state}"
    return text


class Events:
    """One JSON object for each thing that happens, in the order in which it does."""

    def __init__(self, tally: Tally, out: TextIO) -> None:
        self._tally = tally
        self._out = out
        self._lock = threading.Lock()
        self._ended: set[int] = set()
        self._started = time.monotonic()
        totals = tally.totals()
        self._say(
            "plan",
            items=totals.planned,
            bytes=totals.bytes_total,
            present=totals.by_state["present"],
            images=[{"image": i.label, "bytes": i.bytes_total} for i in tally.images()],
        )

    def item(self, item: Item) -> None:
        """An item began or ended."""
        labels = [self._tally.plan.images[number].label for number in sorted(item.images)]
        details: dict[str, Any] = {"state": item.state, "kind": item.kind}
        details |= {"digest": str(item.descriptor.digest), "size": item.size, "images": labels}
        if item.target.registry:
            details["target"] = str(item.target)
        if item.reason:
            details["reason"] = item.reason
        self._say("item", **details)

    def tick(self) -> None:
        """Tell how far everything is, and which images came to their end."""
        self._finished_images()
        totals = self._tally.totals()
        self._say("progress", done=totals.bytes_done, total=totals.bytes_total)

    def end(self) -> None:
        """The last line."""
        self._finished_images()
        totals = self._tally.totals()
        self._say(
            "end",
            planned=totals.planned,
            **totals.by_state,
            done=totals.bytes_done,
            total=totals.bytes_total,
            moved=totals.bytes_moved,
        )

    def _finished_images(self) -> None:
        for number, image in enumerate(self._tally.images()):
            if image.items_left == 0 and number not in self._ended:
                self._ended.add(number)
                self._say("image", image=image.label, state=image.state, bytes=image.bytes_total)

    def _say(self, event: str, **details: Any) -> None:
        seconds = round(time.monotonic() - self._started, 3)
        with self._lock:
            _line(self._out, json.dumps({"event": event, "seconds": seconds, **details}))


class Board:
    """The display as lines, for a terminal of any size."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._started = time.monotonic()

    def lines(self, height: int) -> list[str]:
        """One line per image as far as they fit, those that move first to stay; then the totals."""
        images = self._tally.images()
        room = max(1, height - 3)
        chosen = sorted(range(len(images)), key=lambda n: (_rank(images[n]), n))[:room]
        width = max((len(images[n].label) for n in chosen), default=0)
        lines = [image_line(images[n], min(width, 40)) for n in sorted(chosen)]
        if len(images) > room:
            done = sum(image.items_left == 0 for image in images)
            lines.append(f"  … {len(images) - room} more, {done} of {len(images)} images are done")
        totals = self._tally.totals()
        elapsed = max(time.monotonic() - self._started, 0.001)
        speed = size_text(int(totals.bytes_moved / elapsed))
        lines.append(
            f"{_bar(totals.bytes_done, totals.bytes_total)}  {plain_line(totals)}, {speed}/s"
        )
        return lines


def image_line(image: ImageProgress, width: int) -> str:
    """One image: what becomes of it, how much of it is there, its name."""
    label = harmless_line(image.label)
    if len(label) > width:
        label = f"…{label[1 - width :]}"
    sizes = f"{size_text(image.bytes_done):>8} of {size_text(image.bytes_total):>8}"
    bar = _bar(image.bytes_done, image.bytes_total)
    note = image.state if image.state in ("failed", "cancelled") else ""
    return f"{_MARKS[image.state]} {label:{width}}  {bar}  {sizes}  {note}".rstrip()


def _rank(image: ImageProgress) -> int:
    """Failures are never pushed off the screen; what is done goes first."""
    if image.state in ("failed", "cancelled"):
        return 0
    if image.state in FINAL:
        return 3
    return 1 if image.active or image.bytes_done else 2


def _bar(done: int, total: int) -> str:
    share = 1.0 if total == 0 else done / total
    filled = int(share * _BAR)
    return f"[{'━' * filled}{' ' * (_BAR - filled)}] {int(share * 100):3}%"


@contextmanager
def _display(tally: Tally) -> Iterator[None]:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    board = Board(tally)
    console = Console(stderr=True)

    def render() -> RenderableType:
        text = "\n".join(board.lines(console.height))
        return Text(text, no_wrap=True, overflow="ellipsis")

    with Live(console=console, get_renderable=render, refresh_per_second=10):
        yield


@contextmanager
def _repeating(action: Callable[[], None], seconds: float) -> Iterator[None]:
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(seconds):
            action()

    thread = threading.Thread(target=repeat, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    action()


def _line(out: TextIO, text: str) -> None:
    out.write(f"{text}\n")
    out.flush()
