"""Explores what callers, processes, upstreams, evictors and decay can do to one directory together.

A hypothesis state machine. Its model is a dictionary: what each layer contains,
which of them must be served without a request by now, and how many requests
each may have cost. Interleavings are forced: a download stands at a gate, a
process before a file-system step, while other things happen; nothing is left to
timing, and what an operation may legitimately wait for is known before it starts.
"""

from __future__ import annotations

import hashlib
import shutil
import threading

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tests.races.demands import Demand
from tests.races.fills import Fill
from tests.races.layers import LAYERS, Upstream, note_request
from tests.races.model import FINAL, VIEWS, World, inode, spoil

INSTANCES = 3
CAPS = (1, 400_000, 3_000_000)
DAMAGE = ("empty", "short", "long", "flipped", "symlink", "directory", "gone")
AREAS = ("blobs", "layers", "links", "tocs")

# Mostly two of them, so that operations meet.
layers = st.sampled_from([1, 1, 1, 2, 2, 2, *range(len(LAYERS))])
instances = st.integers(0, INSTANCES - 1)
gates = st.sampled_from([None, None, 0.0, 0.5, 0.95])
fates = st.sampled_from(["honest"] * 6 + list(Upstream.FATES))


class Explorer(World, RuleBasedStateMachine):
    """The safe cache; subclasses explore other kinds, or the same with a defect planted."""

    @initialize(verify=st.sampled_from(["off", "always"]), warm=st.sets(layers, max_size=3))
    def open(self, verify: str, warm: set[int]) -> None:
        self.verify = verify
        self.caches = [self.opened() for _ in range(INSTANCES)]
        for number in sorted(warm):
            self.demand(0, number, "compressed", "honest", None, False)

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
        wanted.allowed |= self.errors(number, view)
        if fate != "honest":
            self.liars.append((number, upstream))
            self.disturb(number)
            self.budget[number] += 2
        if gate is not None:
            self.upstreams.append((instance, number, upstream))
        self.demands.append(wanted)
        wanted.keep = keep and view != "contents"
        wanted.start()
        if alone:
            assert moved.wait(self.patience), f"{wanted} neither stands at its gate nor ends"
            if upstream.reached is not None:
                self.standing[number] = self.caches[instance], upstream
        if view == "stream" and number in self.standing:
            self.follows(wanted)
        self.settle(number)

    @rule(which=st.integers(0, 100), instance=instances, view=st.sampled_from(VIEWS))
    @precondition(lambda self: self.demands or self.fills)
    def join(self, which: int, instance: int, view: str) -> None:
        """Somebody else wants what is being waited for."""
        wanted = (*self.demands, *self.fills)
        self.demand(instance, wanted[which % len(wanted)].number, view, "honest", None, False)

    @rule(which=st.integers(0, 100))
    @precondition(lambda self: self.upstreams)
    def release(self, which: int) -> None:
        """A download that stands at its gate goes on."""
        self.let_go(self.upstreams[which % len(self.upstreams)])

    def let_go(self, entry: tuple[int, int, Upstream]) -> None:
        _, number, upstream = entry
        if number in self.standing and self.standing[number][1] is upstream:
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
        fill.allowed |= self.errors(number, view)
        self.fills.append(fill)
        self.filler.start(self.kind, self.directory, self.verify, self.log, fill, step)
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
        if fill.number in self.diverging:
            self.bad_leftovers.add(fill.number)  # it may have copied damaged bytes into its own
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

    @rule(which=st.integers(0, 100), damage=st.sampled_from(DAMAGE))
    @precondition(lambda self: self.kind == "safe")
    def decay(self, which: int, damage: str) -> None:
        """Something else writes to the directory: a bad disk, a bad restore, a bad person."""
        files = sorted(path for area in AREAS for path in self.entries(area))
        if not files:
            return
        path = files[which % len(files)]
        area, name = path.relative_to(self.directory / "v1").parts[0], path.name.partition(".")[0]
        if self.verify == "off" and area in ("blobs", "layers"):
            # Only the length is promised to be looked at, so it must be another one.
            if inode(path) in self.damaged:
                damage = "empty"
            elif damage == "flipped":
                damage = "short"
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
                self.diverging.add(number)

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
