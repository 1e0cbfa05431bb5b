"""Kills a filling process before each file-system step in turn, and looks at what is left.

``python -m tests.races.crashes DIRECTORY MODE`` prints one JSON line per step.
It has no threads of its own, so that it may fork for each attempt; ``power``
as the mode drops what was not synced before the kill, as a loss of power does.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

# Imported before the forks, so that each attempt costs milliseconds.
import filelock  # noqa: F401
import isal.isal_zlib  # noqa: F401

from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from tests.cache.upstream import Sample, Upstream, sample
from tests.forking import in_child

VIEWS = ("compressed", "uncompressed")


def main() -> None:
    base, mode = Path(sys.argv[1]), sys.argv[2]
    what = sample("crash", 200_000)
    number = 0
    while True:
        number += 1
        directory = base / f"{mode}-{number}"
        status = in_child(lambda d=directory, n=number: fill(d, what, n, mode))
        finished = os.waitstatus_to_exitcode(status) == 0
        found = inspect(directory, what)
        report: dict[str, Any] = {"step": number, "finished": finished, **found}
        report |= read_again(directory, what)
        print(json.dumps(report), flush=True)
        shutil.rmtree(directory)
        if finished:
            return


def fill(directory: Path, what: Sample, fatal: int, mode: str) -> None:
    """Read both views; die before step number ``fatal``."""
    disk = UnsyncedData()
    count = 0

    def before(name: str, path: Path) -> None:
        nonlocal count
        if name == "open":
            return  # reading changes nothing
        count += 1
        if count == fatal:
            if mode == "power":
                disk.lose()
            os.kill(os.getpid(), signal.SIGKILL)
        disk.note(name, path)

    cache = SafeCache.open(CacheOptions(directory), before_step=before)
    upstream = Upstream(what)
    layer = cache.layer(what.descriptor, what.diff_id, upstream.fetch)
    for view in VIEWS:
        getattr(layer, view)().read()


class UnsyncedData:
    """Which files have data that only the page cache knows, by inode."""

    def __init__(self) -> None:
        self._dirty: dict[int, Path] = {}

    def note(self, name: str, path: Path) -> None:
        if name == "write":
            self._dirty[path.stat().st_ino] = path
        elif name == "sync":
            self._dirty.pop(path.stat().st_ino, None)

    def lose(self) -> None:
        """Zero what was never synced, wherever it is named now: the length survives, the data not."""
        for path in list(self._dirty.values()):
            for found in path.parent.parent.parent.parent.rglob("*"):
                if found.is_file() and found.stat().st_ino in self._dirty:
                    found.write_bytes(bytes(found.stat().st_size))


def inspect(directory: Path, what: Sample) -> dict[str, Any]:
    """Look at the files with nothing of the cache's own code."""
    names = [p for p in directory.rglob("*") if p.is_file()]
    bad = []
    for path in names:
        if path.suffix == ".part" or "locks" in path.parts:
            continue
        area = path.relative_to(directory / "v1").parts[0]
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        if area in ("blobs", "layers") and content != path.name:
            bad.append(area)
    return {"bad": bad, "partials": sum(p.suffix == ".part" for p in names)}


def read_again(directory: Path, what: Sample) -> dict[str, Any]:
    """A fresh process reads both views, as if the system had been started again."""
    reading, writing = os.pipe()

    def read() -> None:
        from conforma.cache import derive

        derive.current_boot = lambda: "another boot"
        cache = SafeCache.open(CacheOptions(directory))
        upstream = Upstream(what)
        layer = cache.layer(what.descriptor, what.diff_id, upstream.fetch)
        right = layer.uncompressed().read() == what.plain and layer.compressed().read() == what.blob
        os.write(writing, json.dumps({"right": right, "requests": upstream.requests}).encode())

    in_child(read)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer: dict[str, Any] = json.loads(pipe.read() or b'{"right": false}')
    return answer


if __name__ == "__main__":
    main()
