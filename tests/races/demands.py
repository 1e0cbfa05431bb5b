"""One caller of the cache in a thread of its own, and what came of it."""

from __future__ import annotations

import threading
import traceback
from typing import Any

from conforma.cache.follow import HELD_BACK
from conforma.cancellation import Cancellation
from tests.races.layers import FILE, LAYERS, Upstream

_BITE = 20_000


class Demand:
    """Wants a view of a layer. Nothing here outlives the thread but plain values and a handle."""

    def __init__(
        self,
        cache: Any,
        instance: int,
        number: int,
        view: str,
        upstream: Upstream,
        moved: threading.Event,
    ) -> None:
        self._cache = cache
        self.instance, self.number, self.view, self.upstream = instance, number, view, upstream
        self.allowed: set[str] = set()
        """Errors that it may end with, because of what some download in its time met."""
        self.keep = False
        self.cancellation = Cancellation()
        self.error: str | None = None
        self.handle: Any = None
        self.inode: tuple[int, int] | None = None
        """The file that has the entry's name when it was read, if there is one."""
        self.pins = False
        """Whether that must be the one that is open here."""
        self.moved = moved
        self.ended = threading.Event()
        self._trace = ""
        self._content = bytearray()
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __str__(self) -> str:
        return f"the {self.view} view of layer {self.number} by instance {self.instance}"

    def start(self) -> None:
        self._thread.start()

    def came(self, length: int, seconds: float) -> bool:
        """Whether so many bytes were read, or are within that time."""
        with self._more:
            return self._more.wait_for(lambda: len(self._content) >= length, seconds)

    def check(self) -> None:
        """What was read is the layer; an error is one that somebody has met meanwhile."""
        self.cancellation.close()
        expected = LAYERS[self.number].expected(self.view)
        if self.error is None:
            assert self._content == expected, f"{self}: read wrong bytes"
            return
        assert self.error in self.allowed, f"{self}: {self._trace}"
        if self.view == "stream":
            proven = max(0, len(expected) - HELD_BACK)
            assert len(self._content) <= proven, f"{self}: the end was told before it was proven"

    def read_again(self, at: float, length: int) -> None:
        """The kept handle still reads what it should."""
        expected = LAYERS[self.number].expected(self.view)
        start = int(at * len(expected))
        self.handle.seek(start)
        assert self.handle.read(length) == expected[start : start + length]

    def close(self) -> None:
        if self.handle is not None:
            self.handle.close()

    def _run(self) -> None:
        try:
            self._read()
        except BaseException as error:
            # Kept as text: a traceback would hold handles, and with them files, open.
            self.error = type(error).__name__
            self._trace = "".join(traceback.format_exception(error))
        self._cache = None
        self.ended.set()
        self.moved.set()

    def _read(self) -> None:
        what = LAYERS[self.number]
        layer = self._cache.layer(what.descriptor, what.diff_id, self.upstream.fetch)
        if self.view == "contents" and hasattr(layer, "contents"):
            contents = layer.contents(self.cancellation)
            row = contents.toc.row(contents.toc.find(FILE.replace("/", "\0").encode()))
            self._content += contents.read(row, FILE, 1 << 20)
            return
        if self.view == "contents":
            self._content += what.file
            return
        handle = getattr(layer, self.view)(self.cancellation)
        try:
            # In bites that a buffered reader hands on as soon as they are there.
            while piece := handle.read1(_BITE) if self.view == "stream" else handle.read():
                with self._more:
                    self._content += piece
                    self._more.notify_all()
        except BaseException:
            handle.close()
            raise
        if self.keep:
            self.handle = handle
        else:
            handle.close()
