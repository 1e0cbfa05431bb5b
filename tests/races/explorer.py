"""Explores what callers, processes, upstreams, evictors and decay can do to one directory together.

A hypothesis state machine. Its model is a dictionary: what each layer contains,
which of them must be served without a request by now, and how many requests
each may have cost. Interleavings are forced: a download stands at a gate, a
process before a file-system step, while other things happen; nothing is left to
timing, and what an operation may legitimately wait for is known before it starts.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from conforma.cache.follow import HELD_BACK
from tests.cache.candidates import opened
from tests.cache.upstream import PATIENCE
from tests.oci.scenery import until
from tests.races.demands import Demand
from tests.races.fills import Fill, Filler
from tests.races.layers import LAYERS, Upstream, note_request

INSTANCES = 3
CAPS = (1, 400_000, 3_000_000)
VIEWS = ("compressed", "uncompressed", "stream", "contents")
DAMAGE = ("empty", "short", "long", "flipped", "symlink", "directory", "gone")
AREAS = ("blobs", "layers", "links", "tocs")
FINAL = re.compile(r"(?:sha256:)?([0-9a-f]{64})")

# Mostly two of them, so that operations meet.
layers = st.sampled_from([1, 1, 1, 2, 2, 2, *range(len(LAYERS))])
instances = st.integers(0, INSTANCES - 1)
gates = st.sampled_from([None, None, 0.0, 0.5, 0.95])
fates = st.sampled_from(["honest"] * 6 + list(Upstream.FATES))


class Explorer(RuleBasedStateMachine):
    """The safe cache; subclasses explore other kinds, or the same with a defect planted."""

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
        self.upstreams: list[
            tuple[int, int, Upstream]
        ] = []  # instance, layer, who may be at a gate
        self.readers: list[Demand] = []
        self.served: set[tuple[int, str]] = set()
        """Layer and view that must cost no request now."""
        self.budget: Counter[int] = Counter()
        """How many requests a layer may have cost so far."""
        self.standing: dict[int, Upstream] = {}
        """Whose download of a layer stands at its gate, for everybody to see what came before."""
        self.bad_leftovers: set[int] = set()
        self.touched: set[int] = set()
        self.damaged: set[tuple[int, int]] = set()
        self.seen: dict[tuple[int, int], tuple[int, int]] = {}

    @initialize(verify=st.sampled_from(["off", "always"]), warm=st.sets(layers, max_size=3))
    def open(self, verify: str, warm: set[int]) -> None:
        self.verify = verify
        self.caches = [self.opened() for _ in range(INSTANCES)]
        for number in sorted(warm):
            self.demand(0, number, "compressed", "honest", None, False)

    def opened(self, **options: Any) -> Any:
        changes = {"max_bytes": 0, "durable": False, "verify": self.verify, **options}
        return opened(self.kind, self.directory, **changes)

    # What may wait for what.

    def is_busy(self, number: int) -> bool:
        """Whether somebody who holds up this layer stands still, or may soon."""
        return any(n == number and u.is_held for _, n, u in self.upstreams) or any(
            f.number == number and f.armed for f in self.fills
        )

    def pending(self, number: int) -> list[Demand | Fill]:
        return [d for d in (*self.demands, *self.fills) if d.number == number]

    def disturb(self, number: int) -> None:
        """Something happened after which each who waits may have to ask upstream again."""
        waiting = self.pending(number)
        self.budget[number] += 2 * len(waiting)
        for one in waiting:
            if isinstance(one, Demand):
                one.undisturbed = False
        self.served -= {(number, view) for view in VIEWS}
        self.standing.pop(number, None)

    def expect(self, number: int, view: str) -> None:
        """Somebody comes who may have to ask; whoever comes while others are at it need not."""
        if not self.pending(number) and (number, view) not in self.served:
            self.budget[number] += 1 + (number in self.bad_leftovers)
            self.bad_leftovers.discard(number)
        self.budget[number] += 2 * len(self.lies(number))
        self.touched.add(number)

    def lies(self, number: int) -> list[str]:
        """How the downloads of this layer will go wrong that have not ended."""
        upstreams = [u for _, n, u in self.upstreams if n == number]
        upstreams += [d.upstream for d in self.demands if d.number == number]
        return [u.fate for u in dict.fromkeys(upstreams) if u.fate != "honest"]

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
        asked = sum(int(line.split()[0]) == number for line in self.log.read_text().splitlines())
        assert asked <= self.budget[number], (
            f"layer {number}: {asked} requests where {self.budget[number]} were needed"
        )
        self.budget[number] = asked

    def conclude(self, demand: Demand) -> None:
        demand.check()
        self.demands.remove(demand)
        self.totals[f"{demand.view} {demand.error or 'read'}"] += 1
        if demand.error is None and demand.undisturbed:
            self.served.add((demand.number, demand.view))
            if demand.view == "contents":
                self.served.add((demand.number, "uncompressed"))
        if demand.keep and demand.error is None:
            demand.inode = inode(self.final_name(demand))
            self.readers.append(demand)

    def final_name(self, demand: Demand) -> Path | None:
        """Where the bytes that a reader has open are kept."""
        what = LAYERS[demand.number]
        name = what.diff_id.hex if demand.view == "uncompressed" else what.layer.digest.hex
        return next((p for p in self.finals() if FINAL.fullmatch(p.name)[1] == name), None)  # type: ignore[index]

    # The rules.

    @rule(
        instance=instances, number=layers, view=st.sampled_from(VIEWS), fate=fates, gate=gates,
        keep=st.booleans(),
    )  # fmt: skip
    def demand(
        self, instance: int, number: int, view: str, fate: str, gate: float | None, keep: bool
    ) -> None:
        """A thread wants a view; if nothing stands in its way it must get it now."""
        moved = threading.Event()
        upstream = Upstream(
            LAYERS[number], fate, gate, lambda at: note_request(self.log, number, at), moved
        )
        alone = not self.pending(number) and not self.is_busy(number)
        self.expect(number, view)
        wanted = Demand(self.caches[instance], instance, number, view, upstream, moved)
        for other in (wanted, *self.pending(number)):
            other.allowed |= Upstream.FATES[fate]
        wanted.allowed.update(*(Upstream.FATES[lie] for lie in self.lies(number)))
        if fate != "honest":
            self.disturb(number)
            self.budget[number] += 2
        if gate is not None:
            self.upstreams.append((instance, number, upstream))
        self.demands.append(wanted)
        wanted.keep = keep and view != "contents"
        wanted.start()
        if alone:
            assert moved.wait(self.patience), f"{wanted} neither stands at its gate nor ends"
            if upstream.reached:
                self.standing[number] = upstream
        if view == "stream" and number in self.standing:
            self.follows(wanted, self.standing[number])
        self.settle(number)

    @rule(which=st.integers(0, 100), instance=instances, view=st.sampled_from(VIEWS))
    @precondition(lambda self: self.demands or self.fills)
    def join(self, which: int, instance: int, view: str) -> None:
        """Somebody else wants what is being waited for."""
        wanted = (*self.demands, *self.fills)
        self.demand(instance, wanted[which % len(wanted)].number, view, "honest", None, False)

    def follows(self, demand: Demand, upstream: Upstream) -> None:
        """What has come in is seen while the download stands still, by whomever it was started."""
        assert upstream.gate_at is not None
        visible = min(upstream.gate_at, len(LAYERS[demand.number].blob) - HELD_BACK)
        if visible > 0:
            assert demand.came(visible, self.patience), f"{demand} does not see {visible} bytes"
            self.totals["followed"] += 1

    @rule(which=st.integers(0, 100))
    @precondition(lambda self: self.upstreams)
    def release(self, which: int) -> None:
        """A download that stands at its gate goes on."""
        self.let_go(self.upstreams[which % len(self.upstreams)])

    def let_go(self, entry: tuple[int, int, Upstream]) -> None:
        _, number, upstream = entry
        if self.standing.get(number) is upstream:
            del self.standing[number]
        upstream.release()
        assert upstream.wait_idle(self.patience), "a download does not end"
        self.upstreams.remove(entry)
        self.settle(number)

    @rule(which=st.integers(0, 100))
    @precondition(lambda self: self.demands)
    def cancel(self, which: int) -> None:
        """One caller goes away, now, whatever everybody else waits for."""
        if self.kind != "safe":
            return
        demand = self.demands[which % len(self.demands)]
        self.disturb(demand.number)
        demand.allowed.add("Interrupted")
        demand.cancellation.cancel()
        assert demand.ended.wait(self.patience), f"{demand} was cancelled and stays"
        demand.keep = False
        demand.close()
        self.conclude(demand)

    @rule(number=layers, view=st.sampled_from(VIEWS[:3]), step=st.integers(1, 40))
    def fill(self, number: int, view: str, step: int) -> None:
        """Another process wants the layer, and will stand still before some step."""
        self.expect(number, view)
        fill = Fill(number, view)
        fill.allowed.update(*(Upstream.FATES[lie] for lie in self.lies(number)))
        self.fills.append(fill)
        self.filler.start(self.kind, self.directory, self.log, fill, step)
        if self.kind == "safe":
            assert fill.moved.wait(self.patience), "a process neither stands, nor waits, nor ends"

    @rule(which=st.integers(0, 100))
    @precondition(lambda self: self.fills)
    def go(self, which: int) -> None:
        """A process goes on from where it stands, or does not stop at all."""
        fill = self.fills[which % len(self.fills)]
        fill.go()
        self.settle(fill.number)

    @rule(which=st.integers(0, 100))
    @precondition(lambda self: self.fills)
    def kill(self, which: int) -> None:
        """A process is killed where it stands."""
        fill = self.fills.pop(which % len(self.fills))
        fill.kill()
        self.totals["killed"] += 1
        self.disturb(fill.number)
        self.settle(fill.number)

    # Whether there are readers may depend on who was first, so that must not decide what is drawn.

    @rule(at=st.floats(0, 1), length=st.integers(1, 100_000))
    def read_more(self, at: float, length: int) -> None:
        """What was opened stays readable, whatever has become of its name."""
        for reader in self.readers:
            reader.read_again(at, length)

    @rule(which=st.integers(0, 100))
    def close_reader(self, which: int) -> None:
        if self.readers:
            self.readers.pop(which % len(self.readers)).close()

    @rule(instance=instances, number=layers)
    @precondition(lambda self: self.kind == "safe")
    def get(self, instance: int, number: int) -> None:
        """What must be here is found; what is found is right."""
        what = LAYERS[number]
        layer = self.caches[instance].get(what.layer.digest)
        if layer is None:
            assert (number, "compressed") not in self.served, f"layer {number} is lost"
        else:
            with layer.compressed() as source:
                assert source.read() == what.blob

    @rule(instance=instances)
    @precondition(lambda self: self.kind == "safe")
    def reopen(self, instance: int) -> None:
        """As if one process had ended and another one begun."""
        if any(d.instance == instance for d in self.demands) or any(
            i == instance for i, _, _ in self.upstreams
        ):
            return
        self.close(self.caches[instance])
        self.caches[instance] = self.opened()

    @rule(cap=st.sampled_from(CAPS), grace=st.sampled_from([0.0, 3600.0]),
          way=st.sampled_from(["collect", "collect", "clear", "lose"]))  # fmt: skip
    @precondition(lambda self: self.kind == "safe")
    def make_room(self, cap: int, grace: float, way: str) -> None:
        """Entries go, or the whole directory is removed under everybody."""
        if way == "lose":
            shutil.rmtree(self.directory, ignore_errors=True)
        else:
            self.evict(cap, grace, clear=way == "clear")
        self.totals[way] += 1
        for number in range(len(LAYERS)):
            self.disturb(number)

    def evict(self, cap: int, grace: float, *, clear: bool) -> None:
        """Nothing that is being read goes, and everything else may."""
        at_rest = not (self.demands or self.fills or self.upstreams)
        if at_rest:
            self.rest()
        pinned = {r.inode for r in self.readers} - {None}
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
            assert clear or usage.bytes <= cap or after <= pinned, f"{usage} is over {cap}"
            assert usage.partials == 0 or not (clear or grace == 0), "a leftover was kept"

    @rule(which=st.integers(0, 100), damage=st.sampled_from(DAMAGE))
    @precondition(lambda self: self.kind == "safe")
    def decay(self, which: int, damage: str) -> None:
        """Something else writes to the directory: a bad disk, a bad restore, a bad person."""
        files = sorted(path for area in AREAS for path in self.entries(area))
        if not files:
            return
        path = files[which % len(files)]
        area, name = path.relative_to(self.directory / "v1").parts[0], path.name.partition(".")[0]
        if damage == "flipped" and self.verify == "off" and area in ("blobs", "layers"):
            damage = "short"  # only the length is promised to be looked at
        owners = [n for n, k in enumerate(LAYERS) if name in (k.layer.digest.hex, k.diff_id.hex)]
        if path.suffix == ".part":
            if any(self.pending(n) or self.is_busy(n) for n in owners):
                return  # a partial that is being written belongs to its writer
            self.rest(name)
            if not path.exists():
                return
        spoil(path, damage)
        if (changed := inode(path)) is not None:
            self.damaged.add(changed)
        self.totals[f"damaged in {area}"] += 1
        for number in owners:
            self.disturb(number)
            if path.suffix == ".part":
                self.bad_leftovers.add(number)

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

    # What holds at all times.

    @invariant()
    def final_names_tell_the_truth(self) -> None:
        """Read without anything of the cache's code."""
        for path in list(self.finals()):
            try:
                status = path.lstat()
                mark = (status.st_dev, status.st_ino)
                if mark in self.damaged or self.seen.get(mark) == (
                    status.st_mtime_ns,
                    status.st_size,
                ):
                    continue
                content = path.read_bytes()
            except OSError:
                continue
            name = FINAL.fullmatch(path.name)
            assert name is not None
            assert hashlib.sha256(content).hexdigest() == name[1], f"{path} holds something else"
            self.seen[mark] = (status.st_mtime_ns, status.st_size)

    def finals(self) -> Iterator[Path]:
        roots = [self.directory]
        if self.kind == "safe":
            roots = [self.directory / "v1" / area for area in ("blobs", "layers")]
        for root in roots:
            yield from (p for p in below(root) if FINAL.fullmatch(p.name))

    def teardown(self) -> None:
        try:
            if hasattr(self, "caches"):
                self.come_to_rest()
        finally:
            for _, _, upstream in self.upstreams:
                upstream.release()
            for fill in self.fills:
                fill.kill()
            for reader in self.readers:
                reader.close()
            for cache in getattr(self, "caches", []):
                self.close(cache)
            shutil.rmtree(self.place, ignore_errors=True)

    def come_to_rest(self) -> None:
        """Everybody goes on; then every layer is served, for one request at most."""
        self.totals["examples"] += 1
        for fill in list(self.fills):
            fill.go()
        for entry in list(self.upstreams):
            self.let_go(entry)
        for number in range(len(LAYERS)):
            self.settle(number)
        assert not self.demands
        assert not self.fills
        for number in sorted(self.touched):
            self.demand(number % INSTANCES, number, "uncompressed", "honest", None, False)
            self.demand((number + 1) % INSTANCES, number, "compressed", "honest", None, False)

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
