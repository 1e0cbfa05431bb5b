"""A source of one blob that counts, stops and fails where a test says so."""

from __future__ import annotations

import gzip
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from conforma.oci import media_types
from conforma.oci.digest import DiffID, Digest
from conforma.oci.manifest import Descriptor

PIECE = 16 * 1024
PATIENCE = 20.0  # seconds after which a test that hangs fails instead


@dataclass(frozen=True)
class Sample:
    """A layer in both forms."""

    plain: bytes = field(repr=False)
    blob: bytes = field(repr=False)
    media_type: str = media_types.OCI_LAYER_GZIP

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, Digest.of(self.blob), len(self.blob))

    @property
    def diff_id(self) -> DiffID:
        return DiffID.of(self.plain)


def sample(seed: object = 0, size: int = 300_000) -> Sample:
    plain = random.Random(str(seed)).randbytes(size)
    return Sample(plain, gzip.compress(plain, 1, mtime=0))


class Gate:
    """A place where a transfer stops until the test lets it go on."""

    def __init__(self) -> None:
        self._reached, self._open = threading.Event(), threading.Event()

    def pass_through(self) -> None:
        self._reached.set()
        assert self._open.wait(PATIENCE), "nobody opened the gate"

    def wait_reached(self) -> None:
        assert self._reached.wait(PATIENCE), "nobody came to the gate"

    def open(self) -> None:
        self._open.set()


class Upstream:
    """Serves ``sample.blob`` in pieces.

    ``content`` is what is really sent. ``hold`` maps an offset to a gate that
    stops the transfer there; ``fail_at`` maps one to an error raised there.
    """

    def __init__(self, sample: Sample, content: bytes | None = None) -> None:
        self.sample = sample
        self.content = sample.blob if content is None else content
        self.hold: dict[int, Gate] = {}
        self.fail_at: dict[int, Callable[[], BaseException]] = {}
        self.offsets: list[int] = []
        self.sent = 0
        self.ended = threading.Event()
        self._lock = threading.Lock()

    @property
    def requests(self) -> int:
        return len(self.offsets)

    @contextmanager
    def fetch(self, offset: int) -> Iterator[Iterator[bytes]]:
        with self._lock:
            self.offsets.append(offset)
        try:
            yield self._pieces(offset)
        finally:
            self.ended.set()

    def _pieces(self, offset: int) -> Iterator[bytes]:
        stops = sorted({*self.hold, *self.fail_at, len(self.content)})
        while True:
            if offset in self.hold:
                self.hold[offset].pass_through()
            if offset in self.fail_at:
                raise self.fail_at[offset]()
            if offset >= len(self.content):
                return
            end = min([offset + PIECE, *(s for s in stops if s > offset)])
            with self._lock:
                self.sent += end - offset
            yield self.content[offset:end]
            offset = end


def together(count: int, work: Callable[[int], Any], *, wait: bool = True) -> Joined:
    """Run ``work(0..count-1)`` in threads that start at the same moment."""
    joined = Joined(count, work)
    return joined.join() if wait else joined


class Joined:
    """Threads whose results and errors are not lost."""

    def __init__(self, count: int, work: Callable[[int], Any]) -> None:
        self.results: list[Any] = [None] * count
        barrier = threading.Barrier(count)

        def run(number: int) -> None:
            barrier.wait(PATIENCE)
            try:
                self.results[number] = work(number)
            except BaseException as error:
                self.results[number] = error

        self._count = count
        self._threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def join(self) -> Joined:
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a caller hangs"
        return self

    @property
    def ended(self) -> int:
        """How many have their result by now."""
        return self._count - sum(thread.is_alive() for thread in self._threads)

    @property
    def errors(self) -> list[BaseException]:
        return [r for r in self.results if isinstance(r, BaseException)]
