"""What the explorer knows about one directory: a dictionary, and who stands where.

The model says what each layer contains, which views must be served without a
request by now, how many requests a layer may have cost, which errors somebody
may be told, and who may have to wait for whom.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from conforma.cache.follow import HELD_BACK
from tests.cache.candidates import opened
from tests.cache.upstream import PATIENCE
from tests.oci.scenery import until
from tests.races.demands import Demand
from tests.races.fills import Fill, Filler
from tests.races.layers import LAYERS, Upstream

VIEWS = ("compressed", "uncompressed", "stream", "contents")
FINAL = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


class World:
    """One directory, those who use it, and what must be true of them."""

    base: ClassVar[Path]
    kind: ClassVar[str] = "safe"
    patience: ClassVar[float] = PATIENCE
    totals: ClassVar[Counter[str]]
    filler: ClassVar[Filler]

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(dir=self.base))
        self.directory = self.place / "cache"
        self.log = self.place / "requests"
        self.log.touch()
        self.demands: list[Demand] = []
        self.fills: list[Fill] = []
        self.upstreams: list[tuple[int, int, Upstream]] = []
        """Instance and layer of each who may stand at a gate."""
        self.readers: list[Demand] = []
        self.served: set[tuple[int, str]] = set()
        """Layer and view that must cost no request now."""
        self.budget: Counter[int] = Counter()
        """How many requests a layer may have cost so far."""
        self.liars: list[tuple[int, Upstream]] = []
        """Layer and upstream of downloads that go wrong, or went wrong since all was at rest."""
        self.standing: dict[int, tuple[Any, Upstream]] = {}
        """Cache and upstream of a download that stands at its gate: all may see what came before."""
        self.doubtful: set[int] = set()
        """Layers whose running downloads may be unable to leave anything behind."""
        self.bad_leftovers: set[int] = set()
        """Layers for which the next download may resume from damaged bytes, and start anew."""
        self.diverging: set[int] = set()
        """Layers of which a stream may have read such bytes before that is noticed."""
        self.touched: set[int] = set()
        self.damaged: set[tuple[int, int]] = set()
        self.seen: dict[tuple[int, int], tuple[int, int]] = {}

    def opened(self, **options: Any) -> Any:
        changes = {"max_bytes": 0, "durable": False, "verify": self.verify, **options}
        return opened(self.kind, self.directory, **changes)

    def is_busy(self, number: int) -> bool:
        """Whether somebody who holds up this layer stands still, or may soon."""
        return any(n == number and u.is_held for _, n, u in self.upstreams) or any(
            f.number == number and f.armed for f in self.fills
        )

    def pending(self, number: int) -> list[Demand | Fill]:
        return [d for d in (*self.demands, *self.fills) if d.number == number]

    def disturb(self, number: int) -> None:
        """Something happened after which each who waits may have to ask upstream again."""
        self.budget[number] += 2 * len(self.pending(number))
        if self.pending(number) or self.is_busy(number):
            self.doubtful.add(number)
        self.served -= {(number, view) for view in VIEWS}
        self.standing.pop(number, None)

    def expect(self, number: int, view: str) -> None:
        """Somebody comes who may have to ask; whoever comes while others are at it need not."""
        if not self.pending(number) and (number, view) not in self.served:
            self.budget[number] += 1 + (number in self.bad_leftovers)
            self.bad_leftovers.discard(number)
        self.budget[number] += 2 * len(self.lies(number))
        self.touched.add(number)

    def errors(self, number: int, view: str) -> set[str]:
        """What somebody who comes now may be told."""
        errors: set[str] = set().union(*(Upstream.FATES[lie] for lie in self.lies(number)))
        if view == "stream" and number in self.diverging:
            errors.add("Diverged")
        return errors

    def lies(self, number: int) -> list[str]:
        """How the downloads of this layer go wrong that may not have ended.

        One goes on for those who joined it, even if the caller that brought it was cancelled.
        """
        return [u.fate for n, u in self.liars if n == number]

    def settle(self, number: int) -> None:
        """If nothing holds them up, all who want this layer must get it, or be told why not."""
        if self.is_busy(number):
            return
        for fill in [f for f in self.fills if f.number == number]:
            assert fill.ended.wait(self.patience), "a process hangs"
            fill.check()
            self.fills.remove(fill)
        for demand in [d for d in self.demands if d.number == number]:
            assert demand.ended.wait(self.patience), f"{demand} hangs"
            self.conclude(demand)
        # What nobody wants any more ends by itself, but not at once, and may have asked meanwhile.
        self.rest(LAYERS[number].layer.digest.hex)
        asked = sum(int(line.split()[0]) == number for line in self.log.read_text().splitlines())
        assert asked <= self.budget[number], (
            f"layer {number}: {asked} requests where {self.budget[number]} were needed"
        )
        self.budget[number] = asked
        self.doubtful.discard(number)
        if "wrong middle" in self.lies(number):
            # A download that everybody has left may have left what it had so far.
            self.bad_leftovers.add(number)
            self.diverging.add(number)
        self.liars = [(n, u) for n, u in self.liars if n != number]

    def conclude(self, demand: Demand) -> None:
        demand.check()
        self.demands.remove(demand)
        self.totals[f"{demand.view} {demand.error or 'read'}"] += 1
        if demand.error is None and demand.number not in self.doubtful:
            self.served.add((demand.number, demand.view))
            if demand.view == "contents":
                self.served.add((demand.number, "uncompressed"))
        if demand.keep and demand.error is None:
            self.rest(LAYERS[demand.number].layer.digest.hex)  # a stream ends before it has a name
            demand.inode = inode(self.final_name(demand))
            demand.pins = demand.number not in self.doubtful
            self.readers.append(demand)

    def final_name(self, demand: Demand) -> Path | None:
        """Where the bytes that a reader has open are kept."""
        what = LAYERS[demand.number]
        name = what.diff_id.hex if demand.view == "uncompressed" else what.layer.digest.hex
        return next((p for p in self.finals() if FINAL.fullmatch(p.name)[1] == name), None)  # type: ignore[index]

    def follows(self, demand: Demand) -> None:
        """What has come in is seen while the download stands still, by whomever; no more is."""
        number = demand.number
        cache, upstream = self.standing[number]
        assert upstream.reached is not None
        what = LAYERS[number]
        visible = min(upstream.reached, len(what.blob) - HELD_BACK)
        if visible > 0:
            assert demand.came(visible, self.patience), f"{demand} does not see {visible} bytes"
            layer = cache.layer(what.descriptor, what.diff_id, upstream.fetch)
            with layer.stream() as source:
                seen = len(source.read1(len(what.blob)))
            assert seen <= visible, f"layer {number}: {seen} bytes are shown, {visible} may be"
            self.totals["followed"] += 1

    def evict(self, cap: int, grace: float, *, clear: bool) -> None:
        """Nothing that is being read goes, and everything else may."""
        at_rest = not (self.demands or self.fills or self.upstreams)
        if at_rest:
            self.rest()
        pinned = {r.inode for r in self.readers if r.pins} - {None}
        perhaps = {r.inode for r in self.readers}
        before = {inode(path) for path in self.finals()}
        with contextlib.closing(self.opened(max_bytes=cap, grace=grace)) as evictor:
            if clear:
                evictor.upkeep().clear()
            else:
                evictor.collect()
            usage = evictor.usage()
        after = {inode(path) for path in self.finals()}
        assert pinned & before <= after, "an entry that is being read was removed"
        if at_rest:
            assert clear or usage.bytes <= cap or after <= perhaps, f"{usage} is over {cap}"
            assert usage.partials == 0 or not (clear or grace == 0), "a leftover was kept"

    def rest(self, name: str = "") -> None:
        """What nobody waits for any more is still named after its reader has it; wait for that."""
        until(
            lambda: (
                not any(
                    t.name.startswith("fill ") and t.name.endswith(name)
                    for t in threading.enumerate()
                )
            ),
            PATIENCE,
        )

    def entries(self, area: str) -> list[Path]:
        """The files of an area, complete ones and leftovers, directories among them if damaged."""
        return [p for p in below(self.directory / "v1" / area) if len(p.name) >= 64]

    def finals(self) -> Iterator[Path]:
        roots = [self.directory]
        if self.kind == "safe":
            roots = [self.directory / "v1" / area for area in ("blobs", "layers")]
        for root in roots:
            yield from (p for p in below(root) if FINAL.fullmatch(p.name))

    def close(self, cache: Any) -> None:
        """End the use of a cache, whose counters must add up by then."""
        cache.close()
        if self.kind == "safe":
            stats = cache.stats
            ended = stats.hits + stats.leaders + stats.coalesced + stats.pass_through
            assert stats.requests == ended, stats
            for name in ("resumed_bytes", "takeovers", "quarantines", "coalesced", "followers"):
                self.totals[name] += getattr(stats, name)


def below(directory: Path) -> Iterator[Path]:
    """All that is there; unlike ``rglob`` it minds nobody who removes things meanwhile."""
    for parent, directories, files in os.walk(directory):
        yield from (Path(parent, name) for name in (*directories, *files))


def inode(path: Path | None) -> tuple[int, int] | None:
    """Device and inode; ``None`` if it is not there."""
    try:
        status = path.lstat() if path is not None else None
    except OSError:
        return None
    return None if status is None else (status.st_dev, status.st_ino)


def spoil(path: Path, damage: str) -> None:
    """Put something else under the name, all at once; who has the old file open keeps it."""
    other = path.with_name("spoilt")
    if damage == "directory":
        other.mkdir()
    elif damage == "symlink":
        other.symlink_to("/dev/null")
    elif damage != "gone":
        content = (path.read_bytes() if path.is_file() else b"") or b"nothing"
        half = len(content) // 2
        flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        spoilt = {"empty": b"", "short": content[:-1], "long": content + b"!", "flipped": flipped}
        other.write_bytes(spoilt[damage])
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    elif damage in ("gone", "directory"):
        path.unlink()
    if damage != "gone":
        other.rename(path)
