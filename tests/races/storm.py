"""One process of the storm: threads that want random layers in random ways while everything fails.

Prints one line of JSON with its totals. The content of a digest is computed,
so every byte that comes back can be judged without any file.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.errors import ConformaError, RegistryUnreachable
from tests.cache.upstream import Sample, sample

DIGESTS = 40
PIECE = 16 * 1024
VIEWS = ("compressed", "uncompressed", "stream", "contents")


def samples() -> list[Sample]:
    return [sample(f"storm {n}", 20_000 + 17_000 * n) for n in range(DIGESTS)]


def fetching(what: Sample, dice: random.Random) -> Any:
    """A fetch that fails, cuts off or lies now and then."""

    @contextmanager
    def fetch(offset: int) -> Iterator[Iterator[bytes]]:
        yield pieces(offset, dice.random())

    def pieces(offset: int, fate: float) -> Iterator[bytes]:
        content = what.blob
        if fate < 0.05:
            raise RegistryUnreachable("registry.test/app: gone")
        if fate < 0.10:
            content = content[: len(content) * 2 // 3]
        elif fate < 0.15:
            content = content[:-9] + bytes(9)
        while offset < len(content):
            yield content[offset : offset + PIECE]
            offset += PIECE
        if fate > 0.95:
            raise RegistryUnreachable("registry.test/app: gone at the end")

    return fetch


def main() -> None:
    directory, number, threads, seconds, cap = sys.argv[1], *map(float, sys.argv[2:])
    known = samples()
    plain = [hashlib.sha256(what.plain).digest() for what in known]
    packed = [hashlib.sha256(what.blob).digest() for what in known]
    totals: Counter[str] = Counter()
    lock = threading.Lock()
    options = CacheOptions(Path(directory), max_bytes=int(cap), durable=False, grace=5.0)
    deadline = time.monotonic() + seconds

    def work(thread: int) -> None:
        dice = random.Random(f"{number} {thread}")
        mine: Counter[str] = Counter()
        while time.monotonic() < deadline:
            index = dice.randrange(DIGESTS)
            what = known[index]
            layer = cache.layer(what.descriptor, what.diff_id, fetching(what, dice))
            view = dice.choice(VIEWS[:3])
            try:
                with getattr(layer, view)() as source:
                    if view == "stream" and dice.random() < 0.3:
                        source.read(dice.randrange(len(what.blob)))
                        mine["left early"] += 1
                        continue
                    content = hashlib.sha256(source.read()).digest()
                mine["read"] += 1
                right = plain if view == "uncompressed" else packed
                mine["wrong"] += content != right[index]
            except ConformaError as error:
                mine[type(error).__name__] += 1
            except Exception as error:
                mine[f"UNEXPECTED {type(error).__name__}: {error}"] += 1
        with lock:
            totals.update(mine)

    with SafeCache.open(options) as cache:
        workers = [threading.Thread(target=work, args=(n,)) for n in range(int(threads))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(seconds + 60)
        hanging = sum(worker.is_alive() for worker in workers)
    stats = cache.stats
    print(
        json.dumps(
            {
                "totals": totals,
                "hanging": hanging,
                "stats": {name: getattr(stats, name) for name in stats.__slots__},
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
