"""Carrying out a plan: what many images wait for first, nothing twice, failures kept apart.

Two sets of threads take items from two queues, one for blobs and one for
everything small, so that a manifest never waits behind gigabytes. An item is
in a queue only when everything it needs is at the destination. ``_lock``
guards queues, states and counts; nothing slow happens under it.
"""

from __future__ import annotations

import heapq
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final, Literal

from conforma.cancellation import Cancellation
from conforma.errors import ConformaError, Interrupted
from conforma.mirror.destination import Destination
from conforma.mirror.plan import FINAL, Item, State, check_order
from conforma.mirror.staging import Staging
from conforma.mirror.tally import Tally
from conforma.oci.registry import Registry
from conforma.validate.exhaustion import explained

log = logging.getLogger(__name__)

_Lane = Literal["blobs", "small"]
_SMALL_AT_ONCE: Final = 8
_GRACE: Final = 0.8  # seconds for threads to notice that the run is to stop


class Run:
    """One plan on its way to one destination. Use once."""

    def __init__(
        self,
        tally: Tally,
        source: Registry,
        destination: Destination,
        staging: Staging,
        cancellation: Cancellation,
        *,
        at_once: int,
        fail_fast: bool = False,
    ) -> None:
        self._tally = tally
        self._items = tally.plan.items
        self._source = source
        self._destination = destination
        self._staging = staging
        self._cancellation = cancellation
        self._threads: dict[_Lane, int] = {"blobs": at_once, "small": _SMALL_AT_ONCE}
        self._fail_fast = fail_fast
        self._slots = threading.Semaphore(destination.at_once)
        self._staged = destination.at_once < at_once
        self._lock = threading.RLock()
        # An item that becomes ready wakes one thread of its lane, not everybody:
        # with 200,000 items the others would do nothing but wake up.
        self._ready: dict[_Lane, threading.Condition] = {
            "blobs": threading.Condition(self._lock),
            "small": threading.Condition(self._lock),
        }
        self._over = threading.Condition(self._lock)
        self._queues: dict[_Lane, list[tuple[int, int, int, Item]]] = {"blobs": [], "small": []}
        self._left = 0
        self._stopped = False
        self._running = 0

    def go(self) -> None:
        """Every item has a final state. Raises ``InputError`` for a plan that goes in circles."""
        waiting = [item for item in self._items if item.state not in FINAL]
        check_order(waiting)
        self._left = len(waiting)
        failed = [item for item in self._items if item.state in ("failed", "cancelled")]
        with self._lock:
            for item in waiting:
                if item.needs == 0:
                    self._enqueue(item)
        for item in failed:
            self._give_up_on(item)
        unregister = self._cancellation.on_cancel(self._stop)
        try:
            self._work(len(waiting))
        finally:
            unregister()
            self._cancel_the_rest()

    def _work(self, most: int) -> None:
        for lane, count in self._threads.items():
            for number in range(min(count, most)):
                with self._lock:
                    self._running += 1
                name = f"{lane}-{number}"
                threading.Thread(target=self._take, args=(lane,), name=name, daemon=True).start()
        with self._lock:
            self._over.wait_for(lambda: self._left == 0 or self._stopped)
            self._over.wait_for(lambda: self._running == 0, _GRACE)

    def _take(self, lane: _Lane) -> None:
        try:
            while (item := self._next(lane)) is not None:
                self._tally.started(item)
                self._finish(item, *self._outcome(item))
        finally:
            with self._lock:
                self._running -= 1
                self._over.notify_all()

    def _next(self, lane: _Lane) -> Item | None:
        with self._lock:
            queue = self._queues[lane]
            self._ready[lane].wait_for(lambda: queue or self._left == 0 or self._stopped)
            if self._stopped or not queue:
                return None
            item = heapq.heappop(queue)[-1]
            item.state = "active"
            return item

    def _enqueue(self, item: Item) -> None:
        lane: _Lane = "blobs" if item.kind == "blob" else "small"
        # Whom most images wait for goes first; of equals the largest, so that
        # no big one is left for the end, when there is nothing beside it to do.
        order = (-len(item.images), -item.size, id(item))
        heapq.heappush(self._queues[lane], (*order, item))
        self._ready[lane].notify()

    def _outcome(self, item: Item) -> tuple[State, str]:
        try:
            self._cancellation.raise_if_cancelled()
            return ("copied" if self._move(item) else "present"), ""
        except Interrupted:
            return "cancelled", ""
        except ConformaError as error:
            if self._cancellation.cancelled:
                return "cancelled", ""
            return "failed", error.message
        except Exception as error:
            # An item that never ends would keep the run waiting for ever.
            if (explanation := explained(error)) is not None:
                return "failed", explanation.message
            log.exception("internal error while mirroring %s", item)
            return "failed", f"internal error: {type(error).__name__}: {error}"

    def _move(self, item: Item) -> bool:
        """Bring the item to the destination; whether that took a change there."""
        if item.kind != "blob":
            with self._turn():
                return self._write(item)
        target, descriptor = item.target, item.descriptor
        if item.mount is not None and self._destination.mount(target, descriptor, item.mount):
            self._tally.mounted()
        elif self._staged:
            with self._staging.staged(descriptor, self._opener(item)) as staged, self._turn():
                self._destination.put_blob(target, descriptor, staged)
        else:
            self._destination.put_blob(target, descriptor, self._opener(item))
        return True

    def _write(self, item: Item) -> bool:
        destination = self._destination
        if item.kind == "referrers":
            return destination.list_referrers(item.target, item.wanted)
        put = destination.put_manifest if item.kind == "manifest" else destination.put_name
        put(item.target, item.descriptor, item.raw)
        return True

    def _turn(self) -> AbstractContextManager[object]:
        """The right to write, where the destination does not take all at once."""
        return self._slots if self._staged else nullcontext()

    def _opener(self, item: Item) -> Callable[[int], AbstractContextManager[Iterator[bytes]]]:
        if item.source is not None:
            return self._counted(item, item.source)
        mount = item.mount
        if mount is not None and mount != item.origin:
            # The destination has it; the source is not asked a second time.
            return lambda _offset: self._destination.open_blob(mount, item.descriptor)
        origin = item.origin
        assert origin is not None
        return self._counted(
            item, lambda offset: self._source.open_blob(origin, item.descriptor, offset=offset)
        )

    def _counted(
        self, item: Item, source: Callable[[int], AbstractContextManager[Iterator[bytes]]]
    ) -> Callable[[int], AbstractContextManager[Iterator[bytes]]]:
        @contextmanager
        def opened(offset: int) -> Iterator[Iterator[bytes]]:
            with source(offset) as chunks:
                yield self._passing(item, chunks, offset)

        return opened

    def _passing(self, item: Item, chunks: Iterable[bytes], position: int) -> Iterator[bytes]:
        for chunk in chunks:
            self._cancellation.raise_if_cancelled()
            position += len(chunk)
            self._tally.received(item, position, len(chunk))
            yield chunk

    def _finish(self, item: Item, state: State, reason: str) -> None:
        with self._lock:
            if item.state in FINAL:
                return  # the run was stopped meanwhile, and has said what became of it
            item.state, item.reason = state, reason
            self._left -= 1
            if state in ("copied", "present"):
                for fed in item.feeds:
                    fed.needs -= 1
                    if fed.needs == 0 and fed.state == "planned":
                        self._enqueue(fed)
            self._wake_if_over()
        self._tally.finished(item, was_active=True)
        if state == "failed":
            self._give_up_on(item)
            if self._fail_fast:
                self._cancellation.cancel()

    def _give_up_on(self, failed: Item) -> None:
        """What needs a failed item is skipped, and says because of what."""
        lost: list[Item] = []
        with self._lock:
            hopeless = list(failed.feeds)
            while hopeless:
                item = hopeless.pop()
                if item.state == "planned":
                    item.state = "skipped"
                    item.reason = f"needs {failed}, which {failed.state}"
                    self._left -= 1
                    lost.append(item)
                    hopeless.extend(item.feeds)
            self._wake_if_over()
        for item in lost:
            self._tally.finished(item, was_active=False)

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            self._wake_if_over()

    def _wake_if_over(self) -> None:
        if self._left == 0 or self._stopped:
            for condition in (*self._ready.values(), self._over):
                condition.notify_all()

    def _cancel_the_rest(self) -> None:
        rest: list[tuple[Item, bool]] = []
        with self._lock:
            self._stopped = True
            for item in self._items:
                if item.state not in FINAL:
                    rest.append((item, item.state == "active"))
                    item.state = "cancelled"
                    self._left -= 1
            self._wake_if_over()
        for item, was_active in rest:
            self._tally.finished(item, was_active=was_active)
