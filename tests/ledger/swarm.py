"""Many publishers that die at random steps, and a reader that checks every state it sees.

``python -m tests.ledger.swarm DIRECTORY KILLS SEED`` prints one JSON line with
totals. Publishers are forked from a process without threads; each kills itself
before a random file-system step, and another takes its place, until there
were so many kills; the last generation finishes in peace.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from tests.forking import fork
from tests.ledger import witness
from tests.ledger.scenery import Place

WORKERS = 4
EACH = 25


def main() -> None:
    base, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    chance = random.Random(seed)
    place = Place(base).make(bins=8, rest=0.1)
    root = (place.directory / "metadata/1.root.json").read_bytes()
    reader = fork(lambda: watch(place, root, base))

    def start(number: int) -> int:
        step = chance.randint(1, 400)
        return fork(lambda: publish(place, base, number, step))

    alive = {start(number): number for number in range(WORKERS)}
    died, generation = 0, WORKERS
    while alive:
        pid, status = os.wait()
        if pid == reader:
            sys.exit("the reader stopped: " + (base / "reader").read_text())
        alive.pop(pid)
        if os.WIFSIGNALED(status):
            died += 1
        elif os.WEXITSTATUS(status):
            sys.exit("a publisher failed")
        if died < kills:
            alive[start(generation)] = generation
            generation += 1
    # What nobody waits for any more is still queued; whoever comes next commits it.
    alive[fork(lambda: publish(place, base, generation, 0))] = generation
    os.waitpid(next(iter(alive)), 0)
    (base / "stop").touch()
    _, status = os.waitpid(reader, 0)
    looks = json.loads((base / "reader").read_text())
    print(json.dumps(totals(place, base, root) | {"kills": died, "reader": status, **looks}))


def publish(place: Place, base: Path, number: int, kill_before: int) -> None:
    steps = 0

    def step(name: str, path: Path) -> None:
        nonlocal steps
        steps += 1
        if steps == kill_before:
            os.kill(os.getpid(), signal.SIGKILL)

    def say(kind: str, text: str) -> None:
        descriptor = os.open(base / kind, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, f"{text}\n".encode())
        os.close(descriptor)

    with place.open(before=step) as ledger, place.publisher(ledger) as publisher:
        tickets = []
        for count in range(EACH):
            path = f"p/sha256-{number}-{count % 20}.json"  # some are published twice
            content = f"{number} {count}"
            tickets.append((path, content, publisher.publish(path, content.encode())))
        for path, content, ticket in tickets:
            say("acked", json.dumps([path, content, ticket.result(60), ticket.operation.id]))


def watch(place: Place, root: bytes, base: Path) -> None:
    """Check every state until told to stop; versions never go back."""
    looks, latest, states = 0, 0, 0
    try:
        while not (base / "stop").exists():
            version, _ = witness.current(place.directory, root)
            assert version >= latest, f"{version} after {latest}"
            states += version > latest
            looks, latest = looks + 1, version
    except BaseException:
        (base / "reader").write_text(traceback.format_exc())
        raise
    (base / "reader").write_text(json.dumps({"looks": looks, "states": states}))


def totals(place: Place, base: Path, root: bytes) -> dict[str, Any]:
    version, found = witness.current(place.directory, root)
    acked = [json.loads(line) for line in (base / "acked").read_text().splitlines()]
    records = place.records()
    committed = Counter(one for record in records for one in record.outcomes)
    where = {one: record.version for record in records for one in record.outcomes}
    lost = [line for line in acked if where.get(line[3]) != line[2]]
    # Of each path the last operation acknowledged, or a later one, is what readers see.
    order = {content: int(content.split()[1]) for _, content, _, _ in acked}
    stale = [line for line in acked if order[line[1]] > int(found[line[0]].decode().split()[1])]
    return {
        "version": version,
        "versions": [record.version for record in records] == list(range(2, version + 1)),
        "acked": len(acked),
        "committed": len(committed),
        "doubled": sum(count > 1 for count in committed.values()),
        "lost": len(lost),
        "stale": len(stale),
        "queued": len(place.files("work/inbox")),
    }


if __name__ == "__main__":
    main()
