"""A publisher in a process of its own, told line by line what to do.

``publish PATH`` answers ``dropped`` and later ``acknowledged``; ``hold`` takes
the commit right and answers ``holding``, and keeps it until it is killed.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

from tests.ledger.scenery import Place


def say(**event: object) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def main() -> None:
    place = Place(Path(sys.argv[1]))
    with place.open() as ledger:
        publisher = place.publisher(ledger)
        for line in sys.stdin:
            word, *rest = line.split()
            if word == "hold":
                ledger.right.acquire()
                say(event="holding")
                threading.Event().wait()
            ticket = publisher.publish(rest[0], b"theirs")
            say(event="dropped")
            say(event="acknowledged", version=ticket.result(60))
        publisher.close()


if __name__ == "__main__":
    main()
