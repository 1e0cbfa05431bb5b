"""What a run has done so far, for those who watch it: per image, in bytes, and exactly.

Bytes are those of distinct blobs; a blob that several images need is credited
to each of them. Nothing ever goes down. Thread safe.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable

from msgspec import Struct

from conforma.mirror.plan import FINAL, Item, Plan, State
from conforma.oci.digest import Digest


class ImageProgress(Struct, frozen=True):
    """One image at one moment."""

    label: str
    bytes_done: int
    bytes_total: int
    items_left: int
    active: int
    state: State
    """``active`` once something of it moves, at the end the worst of what became of its items."""


class Totals(Struct, frozen=True):
    """All items and bytes at one moment."""

    planned: int
    by_state: dict[State, int]
    bytes_total: int
    bytes_done: int
    bytes_moved: int
    """Bytes read from the source; what was present or mounted costs none."""
    mounted: int

    @property
    def complete(self) -> bool:
        """Whether everything planned is where it should be."""
        return self.by_state["failed"] == self.by_state["cancelled"] == 0


class _Share:
    """One distinct blob: how much of it is done and which images wait for it."""

    __slots__ = ("done", "images", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.done = 0
        self.images: set[int] = set()


class _Image:
    __slots__ = ("active", "done", "left", "total", "worst")

    def __init__(self) -> None:
        self.total = self.done = self.left = self.active = 0
        self.worst: State = "present"


_BADNESS: dict[State, int] = {
    "present": 0, "skipped": 0, "copied": 1, "cancelled": 2, "failed": 3,
}  # fmt: skip

Listener = Callable[[Item], None]


class Tally:
    """The account of one plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._listener: Listener | None = None
        self._lock = threading.Lock()
        self._counts: Counter[State] = Counter()
        self._images = [_Image() for _ in plan.images]
        self._shares: dict[Digest, _Share] = {}
        self._moved = self._mounted = self._done = self._total = 0
        for item in plan.items:
            self._expect(item)

    def listen(self, listener: Listener | None) -> None:
        """Let ``listener`` hear of every item that begins or ends from now on."""
        self._listener = listener

    def started(self, item: Item) -> None:
        """The item is being worked on."""
        with self._lock:
            self._counts["active"] += 1
            for number in item.images:
                self._images[number].active += 1
        if self._listener is not None:
            self._listener(item)

    def received(self, item: Item, position: int, fresh: int) -> None:
        """``fresh`` bytes of a blob have been read; ``position`` is how far it is now."""
        with self._lock:
            self._moved += fresh
            self._credit(item.descriptor.digest, position)

    def mounted(self) -> None:
        """A blob was taken over inside the destination."""
        with self._lock:
            self._mounted += 1

    def finished(self, item: Item, *, was_active: bool) -> None:
        """The item has its final state."""
        with self._lock:
            self._settle(item)
            if was_active:
                self._counts["active"] -= 1
                for number in item.images:
                    self._images[number].active -= 1
        if self._listener is not None:
            self._listener(item)

    def totals(self) -> Totals:
        """The account now; exact once every item is final."""
        with self._lock:
            return Totals(
                planned=len(self.plan.items),
                by_state={state: self._counts[state] for state in FINAL},
                bytes_total=self._total,
                bytes_done=self._done,
                bytes_moved=self._moved,
                mounted=self._mounted,
            )

    def images(self) -> tuple[ImageProgress, ...]:
        """Every image now, in the order of the plan."""
        with self._lock:
            return tuple(
                ImageProgress(
                    planned.label, image.done, image.total, image.left, image.active, _state(image)
                )
                for planned, image in zip(self.plan.images, self._images, strict=True)
            )

    def _expect(self, item: Item) -> None:
        for number in item.images:
            self._images[number].left += 1
        if item.kind == "blob" and item.state != "skipped":
            share = self._shares.get(item.descriptor.digest)
            if share is None:
                share = self._shares[item.descriptor.digest] = _Share(item.size)
                self._total += item.size
            for number in item.images - share.images:
                share.images.add(number)
                self._images[number].total += item.size
        if item.state in FINAL:
            self._settle(item)

    def _settle(self, item: Item) -> None:
        self._counts[item.state] += 1
        for number in item.images:
            image = self._images[number]
            image.left -= 1
            image.worst = max(image.worst, item.state, key=lambda state: _BADNESS[state])
        if item.kind == "blob" and item.state in ("copied", "present"):
            self._credit(item.descriptor.digest, item.size)

    def _credit(self, digest: Digest, position: int) -> None:
        share = self._shares.get(digest)
        if share is None or position <= share.done:
            return  # a repetition; what was shown stays
        gained = min(position, share.size) - share.done
        share.done += gained
        self._done += gained
        for number in share.images:
            self._images[number].done += gained


def _state(image: _Image) -> State:
    if image.left == 0 or image.worst == "failed":
        return image.worst
    return "active" if image.active or image.done else "planned"


def affected(plan: Plan, items: Iterable[Item]) -> list[str]:
    """The labels of the images that need any of the items, in the order of the plan."""
    numbers = {number for item in items for number in item.images}
    return [plan.images[number].label for number in sorted(numbers)]
