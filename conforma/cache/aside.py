"""Work on the pieces of a layer beside their making, while a core has nothing else to do.

To inflate a layer takes about as long as to hash, list and write what comes of it, so
one layer alone is made sooner by a thread for each. Where several are on their way, their
own threads keep the cores busy; more would only take the interpreter from each other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, Self

_BATCH: Final = 512 << 10
"""Bytes to hand over at a time: each time costs both threads the interpreter lock."""
_AHEAD: Final = 4
"""Batches that wait or are worked on. With the next one, 3 to 7 MiB are held."""
_WORTH: Final = 1 << 20
"""So many bytes are worked on before a thread would have begun."""


class Aside:
    """Does ``work`` on pieces, one after the other, in a thread of its own while ``spare`` says so.

    Otherwise their maker works on each at once. For one thread to use; after
    leaving, nothing is worked on any more.
    """

    def __init__(self, work: Callable[[bytes], None], spare: Callable[[], bool]) -> None:
        self._work = work
        self._spare = spare
        self._thread: threading.Thread | None = None
        self._refused = False  # there was no thread to be had
        self._fed = 0
        self._batch: list[bytes] = []
        self._batched = 0
        self._waiting: SimpleQueue[list[bytes] | None] = SimpleQueue()
        self._places: SimpleQueue[None] = SimpleQueue()
        self._error: BaseException | None = None
        self._stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped = True  # what waits need not be worked on
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()

    def feed(self, piece: bytes) -> None:
        """Have ``piece`` worked on, now or soon. Raises what that, or an earlier one, raised."""
        self._fed += len(piece)
        if self._fed <= _WORTH or not self._spare() or not self._has_thread():
            self.finish()
            self._work(piece)
            return
        self._batch.append(piece)
        self._batched += len(piece)
        if self._batched >= _BATCH:
            self._hand_over()

    def finish(self) -> None:
        """All pieces have been worked on. Raises what that raised."""
        if self._thread is None:
            return
        self._hand_over()
        for _ in range(_AHEAD):
            self._places.get()
        for _ in range(_AHEAD):
            self._places.put(None)
        self._raise()

    def _has_thread(self) -> bool:
        """Whether there is a thread to work; it is started when it is first wanted."""
        if self._thread is None and not self._refused:
            thread = threading.Thread(target=self._run, name="aside", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # it goes more slowly without
                self._refused = True
                return False
            for _ in range(_AHEAD):
                self._places.put(None)
            self._thread = thread
        return not self._refused

    def _hand_over(self) -> None:
        if self._batch:
            self._places.get()
            self._raise()
            self._waiting.put(self._batch)
            self._batch, self._batched = [], 0

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (batch := self._waiting.get()) is not None:
            try:
                for piece in batch:
                    if self._stopped:
                        break
                    self._work(piece)
            except BaseException as error:
                self._error, self._stopped = error, True
            self._places.put(None)
