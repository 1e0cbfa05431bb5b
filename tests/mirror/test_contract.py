"""The contract of a parallel mirror, PM-1 to PM-14, with the servers' logs as witnesses."""

from __future__ import annotations

import errno
import json
import threading
from pathlib import Path

import pytest

from conforma.cancellation import Cancellation
from conforma.cli.mirror_progress import Board
from conforma.errors import InputError
from conforma.mirror.archive_writer import ArchiveDestination
from conforma.mirror.plan import Item, Plan, PlannedImage, Shape
from conforma.mirror.run import Run
from conforma.mirror.staging import Staging
from conforma.mirror.tally import Tally
from conforma.oci.digest import Digest
from conforma.oci.manifest import Descriptor
from conforma.oci.options import RegistryOptions
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry
from conforma.oci.upload import from_memory
from conforma.serve.faults import Fault, Gate
from conforma.serve.images import artifact_of, image_of, index_of, layer_of, random_member
from conforma.serve.registry import RegistryServer
from conforma.serve.signing import tag_of
from tests.mirror.scene import Outcome, Scene, exact, stored, uploads

pytestmark = pytest.mark.slow


def test_pm_01_each_blob_is_read_once_and_written_once_per_destination(
    scene: Scene, destination: RegistryServer
) -> None:
    scene.publish(12)
    done = scene.mirror(f"{destination.host}/copy")
    assert (done.status, done.err) == (0, "")
    assert scene.source.log.blob_downloads() == dict.fromkeys(scene.blobs, 1)
    assert uploads(destination.log) == dict.fromkeys(scene.blobs, 1)
    assert done.summary["mounted"] == 2 * 11
    assert done.summary["moved"] == sum(scene.blobs.values())
    for name, image in scene.images.items():
        repository, _, tag = name.partition("/")[2].rpartition(":")
        assert stored(destination, f"copy/{repository}", tag) == image.manifest


def test_pm_01_without_mounts_the_destination_is_read_not_the_source(scene: Scene) -> None:
    scene.publish(4)
    with RegistryServer(mounts=False) as destination:
        assert scene.mirror(f"{destination.host}/copy").status == 0
        assert set(scene.source.log.blob_downloads().values()) == {1}
        assert max(destination.log.blob_downloads().values()) == 3


def test_pm_02_one_digest_is_never_uploaded_twice_at_a_time(
    scene: Scene, destination: RegistryServer
) -> None:
    scene.publish(12, repository="shop/one")  # the same repository: nothing to mount from
    done = scene.mirror(destination.host, "--parallel=16")
    assert done.status == 0
    refused = [r for r in destination.log if r.status == 409]
    assert not refused
    for digest in scene.blobs:
        assert destination.log.concurrency("PUT", f"digest={digest}") <= 1


def test_pm_03_children_come_before_parents_and_tags_last(
    scene: Scene, destination: RegistryServer
) -> None:
    images = [image_of([layer_of([random_member("f", 5000, n)])]) for n in range(3)]
    index = index_of(images)
    digest = index.put(scene.source.store, "shop/multi", "latest")
    note = artifact_of("a/note", [(b"note", "text/plain", {})], subject=images[0].descriptor)
    note.put(scene.source.store, "shop/multi")
    signature = image_of([layer_of([random_member("sig", 100, "sig")])])
    signature.put(scene.source.store, "shop/multi", tag_of(digest, "sig"))
    # The server refuses a manifest whose children are missing, so 0 proves the order.
    done = scene.mirror(destination.host, images=[f"{scene.source.host}/shop/multi:latest"])
    assert done.status == 0, done.err
    puts = [r.path.rpartition("/")[2] for r in destination.log.matching("PUT", "/manifests/")]
    assert puts[-1] == "latest"
    for image in (*images, signature, note):
        assert puts.index(str(image.digest)) < puts.index("latest")
    assert puts.index(tag_of(digest, "sig")) < puts.index("latest")
    with Registry(RegistryOptions(), Cancellation()) as registry:
        there = Reference.parse(f"{destination.host}/shop/multi").pinned(images[0].digest)
        assert [found.digest for found in registry.referrers(there)] == [note.digest]


def test_pm_03_circles_are_errors() -> None:
    one, two = _item(b"1"), _item(b"2")
    one.before(two)
    two.before(one)
    with pytest.raises(InputError, match="waits for itself"):
        _run(Plan([PlannedImage("x", one.target, one.target)], [one, two]), _Counting())


def test_pm_04_a_destination_that_is_not_thread_safe_is_written_one_by_one(
    scene: Scene, tmp_path: Path
) -> None:
    """The archive checks itself: its members are whole only if no two calls met."""
    scene.publish(12)
    gate = Gate()
    scene.source.faults.add(Fault(hang=gate), method="GET", path="/blobs/", times=None)
    outcome: list[Outcome] = []
    place = f"oci-archive:{tmp_path / 'all.tar'}"
    thread = threading.Thread(
        target=lambda: outcome.append(scene.mirror(place, "--parallel=16", "--verify"))
    )
    thread.start()
    # Fetching is parallel all the same: before the first blob is here, more are asked for.
    scene.source.log.wait_for(4, "GET", "/blobs/")
    gate.release()
    thread.join(60)
    (done,) = outcome
    assert done.status == 0, done.err
    assert done.summary["verified"]["problems"] == []
    assert scene.source.log.blob_downloads() == dict.fromkeys(scene.blobs, 1)
    assert ArchiveDestination(tmp_path / "all.tar", Cancellation()).at_once == 1


def test_pm_04_calls_never_overlap_where_the_destination_says_so() -> None:
    items = [_item(bytes([n])) for n in range(40)]
    destination = _Counting(at_once=1)
    _run(Plan([PlannedImage("x", items[0].target, items[0].target)], items), destination)
    assert destination.most == 1
    assert len(destination.written) == 40


def test_pm_05_no_more_blobs_move_at_once_than_allowed(
    scene: Scene, destination: RegistryServer
) -> None:
    scene.publish(10)
    gate = Gate()
    scene.source.faults.add(Fault(hang=gate), method="GET", path="/blobs/", times=None)
    thread = threading.Thread(
        target=lambda: outcome.append(scene.mirror(destination.host, "--parallel=3"))
    )
    outcome: list[object] = []
    thread.start()
    scene.source.log.wait_for(3, "GET", "/blobs/")
    gate.release()
    thread.join(60)
    assert scene.source.log.concurrency("GET", "/blobs/") == 3


def test_pm_06_the_account_closes_whatever_happens(
    scene: Scene, destination: RegistryServer
) -> None:
    scene.publish(6)
    first = scene.mirror(destination.host, images=list(scene.images)[:2]).summary
    assert exact(first) and first["present"] == 0
    broken = next(iter(scene.images.values()))
    digest = json.loads(broken.manifest)["layers"][2]["digest"]
    destination.store.repository("shop/app0").delete_manifest(str(broken.digest))
    destination.store.repository("shop/app0").unlink_blob(Digest.parse(digest))
    scene.source.faults.add(Fault(status=500), path=digest, times=None)
    done = scene.mirror(destination.host)
    assert done.status == 3
    assert exact(done.summary)
    assert done.summary["failed"] == 1
    assert done.summary["skipped"] == 2  # the manifest and the tag that need the blob
    assert done.summary["cancelled"] == 0


def test_pm_06_nothing_to_do_is_a_success_at_once(tmp_path: Path, scene: Scene) -> None:
    done = scene.mirror(
        f"oci:{tmp_path / 'a'}", f"--from={_empty_layout(tmp_path / 'b')}", images=[]
    )
    assert done.status == 0
    assert done.summary["planned"] == 0


@pytest.mark.parametrize("how", ["cancel", "fail-fast"])
def test_pm_07_stopping_waits_for_no_registry(
    scene: Scene, destination: RegistryServer, how: str
) -> None:
    scene.publish(8)
    gate = Gate()
    digests = [json.loads(image.manifest)["layers"][2]["digest"] for image in scene.images.values()]
    scene.source.faults.add(
        Fault(hold_at=50_000, gate=gate), path="|".join(digests[1:]), times=None
    )
    plan_images = [
        PlannedImage(name, Reference.parse(name), Reference.parse(name)) for name in scene.images
    ]
    cancellation = Cancellation()
    items = []
    for number, (digest, name) in enumerate(zip(digests, scene.images, strict=True)):
        size = scene.blobs[digest]
        origin = Reference.parse(name)
        item = Item("blob", origin.pinned(Digest.parse(digest)),
                    Descriptor("", Digest.parse(digest), size), origin, images={number})  # fmt: skip
        items.append(item)
    if how == "fail-fast":
        scene.source.faults.add(Fault(status=404), path=digests[0], times=None)
    with Registry(RegistryOptions(bulk_transfers=8), cancellation) as registry:
        tally = Tally(Plan(plan_images, items))
        run = Run(tally, registry, _Counting(at_once=99), Staging(None, cancellation), cancellation,
                  at_once=8, fail_fast=how == "fail-fast")  # fmt: skip
        thread = threading.Thread(target=run.go)
        thread.start()
        gate.wait_reached()
        if how == "cancel":
            cancellation.cancel()
        thread.join(15)  # the client itself would wait for twice as long
        assert not thread.is_alive()
        assert cancellation.cancelled
    gate.release()
    totals = tally.totals()
    assert totals.by_state["cancelled"] >= 7 - totals.by_state["copied"]
    assert sum(totals.by_state.values()) == 8


def test_pm_08_failures_stay_with_their_images_and_a_shared_blob_names_all_of_them(
    scene: Scene, destination: RegistryServer
) -> None:
    scene.publish(3, repository="shop/good{}")
    good = dict(scene.images)
    scene.publish(3, repository="shop/bad{}")
    shared = layer_of([random_member("shared", 10_000, "doomed")])
    for number in range(2):
        image = image_of([shared, layer_of([random_member("x", 100, number)])])
        image.put(scene.source.store, f"shop/doomed{number}", "v")
        scene.images[f"{scene.source.host}/shop/doomed{number}:v"] = image
    scene.source.faults.add(Fault(status=404), path=str(shared.digest), times=None)
    done = scene.mirror(destination.host)
    assert done.status == 3
    assert str(shared.digest) in done.err
    assert "needed by doomed0:v, doomed1:v" in done.err
    for name, image in good.items():
        repository, _, tag = name.partition("/")[2].rpartition(":")
        assert stored(destination, repository, tag) == image.manifest
    assert destination.store.existing("shop/doomed0") is None or not (
        destination.store.repository("shop/doomed0").tags
    )


def test_pm_09_a_second_run_moves_only_what_is_missing(
    scene: Scene, destination: RegistryServer, tmp_path: Path
) -> None:
    scene.publish(5)
    for to in (destination.host, f"oci:{tmp_path / 'dir'}", f"oci-archive:{tmp_path / 'a.tar'}"):
        assert scene.mirror(to).status == 0
        scene.source.log.clear()
        destination.log.clear()
        again = scene.mirror(to)
        assert again.status == 0
        assert again.summary["copied"] == 0 and again.summary["moved"] == 0
        assert again.summary["present"] == again.summary["planned"]
        assert not scene.source.log.blob_downloads()
        assert not destination.log.matching("PUT") and not destination.log.matching("POST")
    scene.publish(6)  # one more, of the same layers
    more = scene.mirror(f"oci-archive:{tmp_path / 'a.tar'}", "--verify")
    own = json.loads(list(scene.images.values())[-1].manifest)
    assert set(scene.source.log.blob_downloads()) == {
        own["config"]["digest"], own["layers"][2]["digest"]
    }  # fmt: skip
    assert more.status == 0 and more.summary["verified"]["problems"] == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("a bug"), "internal error: ValueError: a bug"),
        (OSError(errno.EMFILE, "Too many open files"), "too many open files"),
    ],
)
def test_pm_08_a_failure_that_nobody_foresaw_is_told_and_ends_no_other(
    error: Exception, reason: str
) -> None:
    items = [_item(bytes([n])) for n in range(4)]
    digests = [item.descriptor.digest for item in items]
    destination = _Failing(digests[0], error)
    _run(Plan([PlannedImage("x", items[0].target, items[0].target)], items), destination)
    assert [item.state for item in items] == ["failed", *["copied"] * 3]
    assert items[0].reason == reason
    assert sorted(destination.written) == sorted(digests[1:])


def test_pm_09_two_runs_do_not_write_one_archive(tmp_path: Path) -> None:
    place = tmp_path / "a.tar"
    items = [_item(bytes([n])) for n in range(2)]

    def write(destination: ArchiveDestination, item: Item) -> None:
        destination.put_blob(item.target, item.descriptor, from_memory(bytes([items.index(item)])))

    first = ArchiveDestination(place, Cancellation())
    early = ArchiveDestination(place, Cancellation())  # before there is anything to lock
    write(first, items[0])
    for begin in (
        lambda: ArchiveDestination(place, Cancellation()),
        lambda: write(early, items[1]),
    ):
        with pytest.raises(InputError, match=r"a\.tar: another run is writing to it"):
            begin()
    first.finish()
    after = ArchiveDestination(place, Cancellation())
    write(after, items[1])
    after.finish()
    last = ArchiveDestination(place, Cancellation())
    assert all(last.has_blob(item.target, item.descriptor) for item in items)


def test_pm_09_a_dropped_connection_is_invisible(scene: Scene, destination: RegistryServer) -> None:
    scene.publish(4)
    for digest, size in scene.blobs.items():
        fault = Fault(truncate_at=size * 2 // 3)
        scene.source.faults.add(fault, method="GET", path=f"/blobs/{digest}")
    done = scene.mirror(destination.host, "--retry-max-retry=3", "--retry-duration=10ms")
    assert (done.status, done.err) == (0, "")
    assert done.summary["moved"] == sum(scene.blobs.values()), "resumed, not begun again"


def test_pm_09_a_partial_blob_is_continued_by_the_next_run(scene: Scene, tmp_path: Path) -> None:
    scene.publish(1, size=3_000_000)
    digest, size = max(scene.blobs.items(), key=lambda item: item[1])
    scene.source.faults.add(Fault(truncate_at=5_000_000), path=digest, times=1)
    scene.source.faults.add(Fault(status=404), path=digest, times=1)
    first = scene.mirror(f"oci:{tmp_path / 'dir'}")
    assert first.status == 3
    scene.source.log.clear()
    second = scene.mirror(f"oci:{tmp_path / 'dir'}", "--verify")
    assert second.status == 0
    (request,) = [r for r in scene.source.log if digest in r.path]
    assert request.header("range") == "bytes=5000000-"
    assert second.summary["moved"] < size + 200_000 - 5_000_000 + 6_000_000
    assert second.summary["verified"]["problems"] == []


def test_pm_10_progress_is_known_before_shared_between_images_and_never_falls(
    scene: Scene, destination: RegistryServer
) -> None:
    scene.publish(5)
    done = scene.mirror(destination.host, "--progress=json")
    events = done.events
    plan, end = events[0], events[-1]
    total = sum(scene.blobs.values())
    assert plan["event"] == "plan" and plan["bytes"] == total
    image_bytes = [
        sum(layer["size"] for layer in (d["config"], *d["layers"]))
        for d in (json.loads(image.manifest) for image in scene.images.values())
    ]
    assert [image["bytes"] for image in plan["images"]] == image_bytes
    assert sum(image_bytes) > total, "what is shared counts for each image"
    assert end["event"] == "end" and end["done"] == end["total"] == end["moved"] == total
    progress = [event["done"] for event in events if event["event"] == "progress"]
    assert progress == sorted(progress)
    finished = [event["image"] for event in events if event["event"] == "image"]
    assert sorted(finished) == sorted(image["image"] for image in plan["images"])
    shared = [e for e in events if e["event"] == "item" and len(e["images"]) == 5]
    assert {e["kind"] for e in shared} == {"blob"}


def test_pm_10_every_image_shows_its_share_of_what_another_one_fetches() -> None:
    shared, own = _item(b"x" * 80), _item(b"y" * 20)
    shared.images, own.images = {0, 1}, {1}
    target = shared.target
    tally = Tally(
        Plan([PlannedImage("a", target, target), PlannedImage("b", target, target)], [shared, own])
    )
    tally.received(shared, 40, 40)
    tally.received(shared, 20, 20)  # a repetition: nothing goes back
    first, second = tally.images()
    assert (first.bytes_done, first.bytes_total) == (40, 80)
    assert (second.bytes_done, second.bytes_total) == (40, 100)
    assert (tally.totals().bytes_done, tally.totals().bytes_total) == (40, 100)
    lines = Board(tally).lines(24)
    assert [line.split()[1] for line in lines[:2]] == ["a", "b"] and len(lines) == 3
    assert " 50%" in lines[0] and " 40%" in lines[1] and "40 B of 100 B" in lines[2]


def test_pm_10_a_small_terminal_keeps_failures_and_what_moves_in_sight() -> None:
    items = [_item(bytes([n]) * 10) for n in range(10)]
    for number, item in enumerate(items):
        item.images = {number}
    images = [PlannedImage(f"image{n}", i.target, i.target) for n, i in enumerate(items)]
    tally = Tally(Plan(images, items))
    for number, state in ((0, "copied"), (8, "failed")):
        items[number].state = state  # type: ignore[assignment]
        tally.finished(items[number], was_active=False)
    tally.started(items[9])
    lines = Board(tally).lines(height=6)
    assert len(lines) == 5, "three images, what is not shown, the totals"
    assert [line[2:8] for line in lines[:3]] == ["image1", "image8", "image9"]
    assert lines[1].startswith("✗") and lines[1].endswith("failed")
    assert lines[3] == "  … 7 more, 2 of 10 images are done"


def test_pm_10_without_a_terminal_there_are_plain_lines(
    scene: Scene, destination: RegistryServer
) -> None:
    scene.publish(2)
    done = scene.mirror(destination.host, "--progress=auto")
    lines = done.err.splitlines()
    assert lines[0].startswith("0 B of ") and lines[-1].endswith("items")
    assert "\x1b" not in done.err and "\r" not in done.err


def test_pm_11_what_most_images_wait_for_goes_first_then_what_is_large(
    scene: Scene, tmp_path: Path
) -> None:
    scene.publish(4)
    assert scene.mirror(f"oci:{tmp_path / 'dir'}", "--parallel=1").status == 0
    order = [r.path.rpartition("/")[2] for r in scene.source.log.matching("GET", "/blobs/")]
    fan_out = {
        digest: sum(digest in image.manifest.decode() for image in scene.images.values())
        for digest in order
    }
    assert order == sorted(order, key=lambda d: (-fan_out[d], -scene.blobs[d]))
    assert fan_out[order[0]] == 4


def test_pm_12_verification_finds_every_damage(scene: Scene, tmp_path: Path) -> None:
    scene.publish(2)
    place = tmp_path / "dir"
    assert scene.mirror(f"oci:{place}", "--verify").status == 0
    digest = next(iter(scene.blobs))
    blob = place / "blobs" / digest.replace(":", "/")
    content = bytearray(blob.read_bytes())
    content[0] ^= 1
    blob.write_bytes(content)
    done = scene.mirror(f"oci:{place}", "--verify")
    assert done.status == 3
    assert digest in done.err and "digest mismatch" in done.err


def test_pm_12_verification_reads_a_registry_back(
    scene: Scene, destination: RegistryServer
) -> None:
    scene.publish(2)
    destination.faults.add(Fault(flip_at=10), method="GET", path="/blobs/", times=None)
    done = scene.mirror(destination.host, "--verify")
    assert done.status == 3
    assert len(done.summary["verified"]["problems"]) == len(scene.blobs) + 2  # two mounted


def test_pm_13_only_unique_bytes_move(scene: Scene, destination: RegistryServer) -> None:
    scene.publish(20)
    assert scene.mirror(destination.host).status == 0
    moved = sum(r.bytes for r in scene.source.log.settled().matching("GET", "/blobs/"))
    assert moved == sum(scene.blobs.values())


def test_pm_14_two_hundred_thousand_items_run() -> None:
    count = 200_000
    parent = _item(b"parent")
    items = [_item(n.to_bytes(4, "big")) for n in range(count)]
    for item in items:
        item.before(parent)
    plan = Plan([PlannedImage("x", parent.target, parent.target)], [*items, parent])
    destination = _Counting(at_once=99)
    before = threading.active_count()
    tally = _run(plan, destination)
    assert tally.totals().by_state["copied"] == count + 1
    assert destination.written[-1] == parent.descriptor.digest
    assert destination.threads <= before + 16 + 1


def _empty_layout(path: Path) -> str:
    from tests.oci.layouts import HandMade

    return HandMade(path).place


def _item(content: bytes) -> Item:
    digest = Digest.of(content)
    target = Reference("127.0.0.1:1", "x").pinned(digest)
    return Item(
        "blob",
        target,
        Descriptor("", digest, len(content)),
        source=from_memory(content),
        images={0},
    )


def _run(plan: Plan, destination: _Counting) -> Tally:
    cancellation = Cancellation()
    tally = Tally(plan)
    with Registry(RegistryOptions(), cancellation) as registry:
        Run(tally, registry, destination, Staging(None, cancellation), cancellation, at_once=8).go()
    return tally


class _Counting:
    """A destination that keeps digests only and notices calls that overlap."""

    def __init__(self, at_once: int = 8) -> None:
        self.at_once = at_once
        self.shape = Shape(one_store=True)
        self.written: list[Digest] = []
        self.most = 0
        self.threads = 0
        self._inside = 0
        self._lock = threading.Lock()

    def put_blob(self, target: Reference, descriptor: Descriptor, source: object) -> None:
        assert callable(source)
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
            if len(self.written) % 1000 == 0:
                self.threads = max(self.threads, threading.active_count())
        with source(0) as chunks:
            for _ in chunks:
                pass
        with self._lock:
            self._inside -= 1
            self.written.append(descriptor.digest)

    def mount(self, *_: object) -> bool:
        return False

    def has_blob(self, *_: object) -> bool:
        return False

    has_manifest = has_blob

    def named(self, *_: object) -> None:
        return None

    def put_manifest(self, *_: object) -> None:
        raise AssertionError("there are only blobs")

    put_name = put_manifest

    def list_referrers(self, *_: object) -> bool:
        return False

    def open_blob(self, *_: object) -> None:  # type: ignore[override]
        raise AssertionError("nothing is read back")

    def finish(self) -> None:
        pass


class _Failing(_Counting):
    """A destination that fails for one blob in a way that nobody foresaw."""

    def __init__(self, victim: Digest, error: Exception) -> None:
        super().__init__()
        self._victim, self._error = victim, error

    def put_blob(self, target: Reference, descriptor: Descriptor, source: object) -> None:
        if descriptor.digest == self._victim:
            raise self._error
        super().put_blob(target, descriptor, source)
