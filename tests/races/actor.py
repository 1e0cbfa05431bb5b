"""A process of its own that reads layers through the cache, told what to do by a test.

``python -m tests.races.actor`` takes one JSON document as its argument and
answers with one JSON line per event: ``ready``, ``holding`` (the transfer
stands still until a line comes in), and one ``result`` per thread.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conforma.cache.locks import EntryLock, Note
from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.errors import ConformaError, RegistryUnreachable
from conforma.oci.digest import DiffID, Digest
from conforma.oci.manifest import Descriptor

_says = threading.Lock()


def say(**event: Any) -> None:
    with _says:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()


def fetch_of(task: dict[str, Any]) -> Any:
    """A fetch that reads a file, notes each request in a log, and stops or fails where told."""
    held = threading.Event()

    @contextmanager
    def fetch(offset: int) -> Iterator[Iterator[bytes]]:
        with Path(task["log"]).open("a") as log:  # O_APPEND: one write, one line
            log.write(f"{offset}\n")
        yield pieces(offset)

    def pieces(offset: int) -> Iterator[bytes]:
        data = Path(task["blob"]).read_bytes()
        hold, fail = task.get("hold_at"), task.get("fail_at")
        while True:
            if hold is not None and offset >= hold and not held.is_set():
                held.set()
                say(event="holding", offset=offset)
                if not sys.stdin.readline():
                    os._exit(3)  # the test is gone
            if offset >= task.get("fork_at", offset + 1):
                del task["fork_at"]
                pid = os.fork()
                if pid == 0:
                    signal.pause()
                say(event="forked", pid=pid)
            if fail is not None and offset >= fail:
                raise RegistryUnreachable("registry.test/app: went away", hint="come back")
            if offset >= len(data):
                return
            piece = data[offset : offset + 16 * 1024]
            offset += len(piece)
            yield piece

    return fetch


def announce_watching() -> None:
    """Say so when this process has first seen that another one is at it."""
    read_note = EntryLock.note
    seen = threading.Event()

    def note(lock: EntryLock) -> Note | None:
        found = read_note(lock)
        if found is not None and not found.failed and not seen.is_set():
            seen.set()
            say(event="watching")
        return found

    EntryLock.note = note  # type: ignore[method-assign]


def main() -> None:
    announce_watching()
    task = json.loads(sys.argv[1])
    options = CacheOptions(Path(task["directory"]), **task.get("options", {}))
    cache = SafeCache.open(options)
    layer = cache.layer(
        Descriptor(task["media_type"], Digest.parse(task["digest"]), task["size"]),
        DiffID.parse(task["diff_id"]),
        fetch_of(task),
    )
    say(event="ready", pid=os.getpid())
    if task.get("wait_for_go"):
        sys.stdin.readline()

    def work(number: int) -> None:
        view = task["views"][number % len(task["views"])]
        try:
            with getattr(layer, view)() as source:
                content = source.read(task.get("read_first", 0))
                say(event="began", view=view)
                content += source.read()
                say(event="result", view=view, sha256=hashlib.sha256(content).hexdigest())
        except ConformaError as error:
            say(event="result", view=view, error=type(error).__name__, message=error.message)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(task.get("threads", 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.close()
    stats = cache.stats
    say(event="end", stats={name: getattr(stats, name) for name in stats.__slots__})


if __name__ == "__main__":
    main()
