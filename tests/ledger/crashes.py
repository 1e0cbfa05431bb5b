"""Kills a committer before each file-system step in turn, and looks at what is left.

``python -m tests.ledger.crashes DIRECTORY MODE`` prints one JSON line per
step. It has no threads, so that it may fork for each attempt. ``power`` as the
mode also drops what was not synced before the kill.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conforma.errors import StaleRight
from conforma.ledger.operation import Numbering
from tests.forking import in_child
from tests.ledger import witness
from tests.ledger.scenery import Place, queue


class Disk:
    """Follows the steps of a process and knows what a loss of power would undo."""

    def __init__(self, kill_before: int, *, power: bool) -> None:
        self.count = 0
        self._kill_before = kill_before
        self._power = power
        self._undo: list[tuple[Path, Callable[[], None]]] = []  # by the directory to be synced
        self._dirty: dict[Path, None] = {}

    def __call__(self, step: str, path: Path) -> None:
        self.count += 1
        if self.count == self._kill_before:
            if self._power:
                self._lose()
            os.kill(os.getpid(), signal.SIGKILL)
        if step == "create":
            self._dirty[path] = None
            self._undo.append((path.parent, lambda: path.unlink(missing_ok=True)))
        elif step == "sync":
            self._dirty.pop(path, None)
        elif step == "sync_directory":
            self._undo = [(where, undo) for where, undo in self._undo if where != path]
        elif step in ("rename", "unlink"):
            before = path.read_bytes() if path.is_file() else None
            if before is not None:
                self._undo.append((path.parent, lambda: _restore(path, before)))

    def _lose(self) -> None:
        for path in self._dirty:
            if path.exists():
                path.write_bytes(path.read_bytes()[:3])
        for _, undo in reversed(self._undo):
            undo()


def _restore(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def main() -> None:
    base, mode = Path(sys.argv[1]), sys.argv[2]
    pristine = Place(base / "pristine")
    pristine.make(bins=4)
    with pristine.open(parallel=1) as ledger:
        numbering = Numbering()
        queue(ledger, numbering, "p/sha256-old.json", b"old")
        pristine.committer(ledger).commit()
        for number in range(3):
            queue(ledger, numbering, f"p/sha256-{number}.json", b"new%d" % number)
        queue(ledger, numbering, "p/sha256-old.json", b"replaced")
    root = (pristine.directory / "metadata/1.root.json").read_bytes()
    for step in range(1, 1000):
        place = Place(base / f"step-{step}")
        shutil.copytree(pristine.base, place.base, copy_function=shutil.copy2)
        status = in_child(lambda place=place, step=step: commit(place, step, mode))
        report = {"step": step, "finished": status == 0, **after(place, root)}
        print(json.dumps(report), flush=True)
        shutil.rmtree(place.base)
        if status == 0:
            return


def commit(place: Place, step: int, mode: str) -> None:
    disk = Disk(step, power=mode == "power")
    with place.open(before=disk, parallel=1) as ledger:
        record = place.committer(ledger).commit()
        assert record is not None and len(record.outcomes) == 4


def after(place: Place, root: bytes) -> dict[str, Any]:
    """What a reader sees at once, and what the next holder makes of it."""
    seen_version, seen = witness.current(place.directory, root)
    queued = len(place.files("work/inbox"))
    with place.open(parallel=1) as ledger:
        committer = place.committer(ledger)
        try:
            recovered = committer.commit()
        except StaleRight:
            # Power took the dead claim, but not what it had made: seen once, then cleaned up.
            recovered = committer.commit()
        queue(ledger, Numbering(), "p/sha256-next.json", b"next")
        last = committer.commit()
    version, found = witness.current(place.directory, root)
    records = place.records()
    ids = [one for record in records for one in record.outcomes]
    return {
        "seen": seen_version,
        "seen_all": len(seen) == 4,
        "queued": queued,
        "recovered": recovered is not None,
        "version": version,
        "right": found
        == {
            "p/sha256-old.json": b"replaced",
            "p/sha256-0.json": b"new0",
            "p/sha256-1.json": b"new1",
            "p/sha256-2.json": b"new2",
            "p/sha256-next.json": b"next",
        },
        "versions": [record.version for record in records],
        "doubled": len(ids) - len(set(ids)),
        "left": len(place.files("work/inbox")) + len(place.files("work/claims")),
        "next": last is not None,
    }


if __name__ == "__main__":
    main()
