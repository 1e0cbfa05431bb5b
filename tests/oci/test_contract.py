"""The contract of a polite client where it needs more than one run, process or place (RC-2 to RC-23)."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.errors import AccessDenied, InputError, NotFound, RateLimited, RegistryUnreachable
from conforma.oci.copying import ensure_copied
from conforma.oci.digest import Digest
from conforma.oci.limiter import Limiter, Rate, rates_of
from conforma.oci.manifest import Manifest
from conforma.oci.mirrors import Mirror
from conforma.oci.options import QuestionSeen
from conforma.oci.reference import Reference
from conforma.oci.shared_state import SharedState
from conforma.serve.auth import BearerAuth
from conforma.serve.faults import Fault, Gate
from conforma.serve.images import Member, image_of, index_of, layer_of
from conforma.serve.registry import RegistryServer
from tests.oci.scenery import (
    ClientFactory,
    Serving,
    digest_of,
    is_closed,
    login,
    put_image,
    stored,
    until,
)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[SafeCache]:
    with SafeCache.open(CacheOptions(directory=tmp_path / "cache")) as cache:
        yield cache


def read_everything(made: object, reference: Reference) -> bytes:
    registry = made.registry  # type: ignore[attr-defined]
    manifest = registry.manifest(registry.resolve(reference))
    assert isinstance(manifest, Manifest)
    registry.image_config(reference, manifest)
    return registry.read_blob(reference, manifest.layers[0])


# RC-2, RC-13: what earlier runs have read


def test_rc_2_digests_are_read_once_and_for_all_runs(
    server: RegistryServer, client: ClientFactory, kept: SafeCache
) -> None:
    reference = put_image(server)
    first = read_everything(client(content=kept.content), reference)
    assert server.log.settled().counts("GET").total() == 3
    server.log.clear()
    later = client(content=kept.content)
    assert read_everything(later, reference) == first
    assert [r.method for r in server.log.settled()] == ["HEAD"]
    assert later.registry.stats.stored == 3
    assert later.registry.stats.received_bytes == 0


def test_rc_12_what_is_attached_to_a_new_image_takes_one_request_without_a_head(
    server: RegistryServer, client: ClientFactory, kept: SafeCache
) -> None:
    pinned = put_image(server).pinned(digest_of(server, "app", "v1"))
    digest = digest_of(server, "app", "v1")
    tag = f"{digest.algorithm}-{digest.hex}.sig"
    put_image(server, tag=tag, content=b"signature")
    first = client(content=kept.content).registry
    first.manifest(pinned)
    signature = first.manifest(pinned.with_tag(tag))
    with pytest.raises(NotFound):
        first.manifest(pinned.with_tag(tag.replace(".sig", ".att")))
    assert [r.method for r in server.log.settled()] == ["GET"] * 3
    server.log.clear()
    later = client(content=kept.content).registry
    later.manifest(pinned)
    assert later.manifest(pinned.with_tag(tag)) == signature
    assert [r.method for r in server.log.settled()] == ["HEAD"] * 2, "its body is here"


def test_rc_12_where_a_get_counts_as_a_pull_what_is_attached_is_asked_for_with_a_head(
    server: RegistryServer, client: ClientFactory, kept: SafeCache
) -> None:
    hub = Mirror.parse(f"docker.io={server.host}?final")
    digest = digest_of(server, "app", put_image(server).tag or "")
    pinned = Reference("index.docker.io", "app", None, digest)
    registry = client(content=kept.content, mirrors={hub.origin: hub}).registry
    registry.manifest(pinned)
    with pytest.raises(NotFound):
        registry.manifest(pinned.with_tag(f"{digest.algorithm}-{digest.hex}.att"))
    assert [r.method for r in server.log.settled()] == ["GET", "HEAD"]


def test_rc_2_what_is_gone_from_the_registry_is_gone(
    server: RegistryServer, client: ClientFactory, kept: SafeCache
) -> None:
    reference = put_image(server)
    digest = digest_of(server, "app", "v1")
    read_everything(client(content=kept.content), reference)
    server.store.repository("app").delete_manifest(str(digest))
    with pytest.raises(NotFound):
        client(content=kept.content).registry.manifest(reference.pinned(digest))


def test_rc_2_what_another_repository_showed_is_asked_of_this_one(
    serving: Serving, client: ClientFactory, tmp_path: Path, kept: SafeCache
) -> None:
    with serving() as open_one, serving(auth=BearerAuth("me", "x")) as closed:
        reference = put_image(open_one)
        put_image(closed)
        manifest = client(content=kept.content).registry.manifest(reference)
        digest = Digest.of(manifest.raw)
        there = Reference.parse(f"{closed.host}/app").pinned(digest)
        with pytest.raises(AccessDenied):
            client(content=kept.content).registry.manifest(there)


@pytest.mark.parametrize("damage", [b"", b"{", b"x" * 100_000])
def test_rc_2_stored_content_is_verified_when_it_is_read(
    server: RegistryServer, client: ClientFactory, kept: SafeCache, damage: bytes
) -> None:
    reference = put_image(server)
    raw = client(content=kept.content).registry.manifest(reference).raw
    digest = Digest.of(raw)
    (path,) = kept.store.root.glob(f"blobs/sha256/*/{digest.hex}")
    path.chmod(0o600)
    path.write_bytes(damage)
    again = client(content=kept.content).registry
    assert again.manifest(reference.pinned(digest)).raw == raw
    assert kept.stats.quarantines == 1
    assert path.read_bytes() == raw, "healed by what was read instead"


@pytest.mark.parametrize("fault", [Fault(status=405), Fault(chunked=True)], ids=repr)
def test_rc_2_a_registry_whose_head_says_nothing_is_asked_for_the_body(
    server: RegistryServer, client: ClientFactory, kept: SafeCache, fault: Fault
) -> None:
    pinned = put_image(server).pinned(digest_of(server, "app", "v1"))
    raw = client(content=kept.content).registry.manifest(pinned).raw
    server.faults.add(fault, method="HEAD")
    assert client(content=kept.content).registry.manifest(pinned).raw == raw


def test_rc_2_a_store_that_cannot_be_written_changes_nothing(
    server: RegistryServer, client: ClientFactory, kept: SafeCache
) -> None:
    reference = put_image(server)
    blobs = kept.store.root / "blobs"
    blobs.write_text("a file where a directory should be")
    assert read_everything(client(content=kept.content), reference) == b"layer"


def test_rc_13_an_unchanged_tag_costs_no_body(
    server: RegistryServer, client: ClientFactory, kept: SafeCache
) -> None:
    reference = put_image(server)
    raw = client(content=kept.content).registry.manifest(reference).raw
    server.log.clear()
    later = client(content=kept.content).registry
    assert later.manifest(reference).raw == raw
    (asked,) = server.log.settled()
    assert (asked.status, asked.bytes) == (304, 0)
    assert asked.header("if-none-match") == f'"{Digest.of(raw)}"'
    assert later.stats.unchanged == 1
    assert later.head(reference).digest == Digest.of(raw)
    assert len(server.log) == 1


def test_rc_13_a_tag_that_moved_is_read_in_the_same_request(
    server: RegistryServer, client: ClientFactory, kept: SafeCache
) -> None:
    reference = put_image(server)
    client(content=kept.content).registry.manifest(reference)
    put_image(server, content=b"another layer")
    server.log.clear()
    raw = client(content=kept.content).registry.manifest(reference).raw
    assert Digest.of(raw) == digest_of(server, "app", "v1")
    assert [r.status for r in server.log.settled()] == [200]


@pytest.mark.parametrize("note", ["{", "[]", '["e", "sha256:x", "t"]', '["a\\r\\nX: y", "", ""]'])
def test_rc_13_a_damaged_note_is_no_note(
    server: RegistryServer, client: ClientFactory, kept: SafeCache, note: str
) -> None:
    reference = put_image(server)
    kept.content().note(f"tag {reference}", note)
    assert client(content=kept.content).registry.manifest(reference).raw
    (asked,) = server.log.settled()
    assert asked.header("if-none-match") is None


# RC-4: a rate, whoever asks


class SimulatedTime:
    """Sleeping moves the clock and takes no time."""

    def __init__(self) -> None:
        self.moment = 1_000_000.0
        self._lock = threading.Lock()

    def now(self) -> float:
        return self.moment

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.moment += seconds


@pytest.mark.parametrize("shared", [False, True])
def test_rc_4_waiting_is_what_the_model_says(tmp_path: Path, shared: bool) -> None:
    clock = SimulatedTime()
    state = SharedState(tmp_path if shared else None, "rate")
    limiter = Limiter({"r": Rate(100, 100)}, state, clock.sleep, clock.now)
    started = clock.moment
    for _ in range(294):
        limiter.take("r")
    # (R - burst) / rate, prior-art.md 4.3: 294 requests at 100 a minute took 1:57.
    assert clock.moment - started == pytest.approx((294 - 100) * 0.6)
    assert limiter.take("another") == 0.0


def test_rc_4_a_drained_bucket_has_no_burst(tmp_path: Path) -> None:
    clock = SimulatedTime()
    limiter = Limiter({"*": Rate(60, 50)}, SharedState(None, "rate"), clock.sleep, clock.now)
    limiter.take("r")
    limiter.drain("r")
    assert limiter.take("r") == pytest.approx(1.0)
    clock.sleep(120)
    assert [limiter.take("r") for _ in range(50)] == [0.0] * 50


def test_rc_4_a_clock_that_was_set_back_does_not_stop_us(tmp_path: Path) -> None:
    clock = SimulatedTime()
    limiter = Limiter({"*": Rate(60, 1)}, SharedState(tmp_path, "rate"), clock.sleep, clock.now)
    limiter.take("r")
    clock.moment -= 1_000_000
    assert limiter.take("r") <= 1.0


def test_rc_4_token_requests_count(serving: Serving, client: ClientFactory) -> None:
    booked: list[float] = []
    with serving(auth=BearerAuth()) as server:
        reference = put_image(server)
        rates = {server.host: Rate(60, 1)}
        client(rates=rates, sleep=booked.append).registry.head(reference)
        # The bare request, the one for a token, and the one that worked.
        assert len(server.log.settled()) == 3
    assert [round(seconds) for seconds in booked] == [1, 2]


@pytest.mark.parametrize(
    "text", ["r", "r=", "r=x", "r=-1", "r=nan", "r=1/0", "bad host=1", "r=1/x"]
)
def test_rc_4_a_rate_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no rate"):
        Rate.parse(text)


def test_rc_4_rates_are_given_by_registry() -> None:
    assert Rate.parse("docker.io=100/50") == ("index.docker.io", Rate(100, 50))
    assert Rate.parse("*=0.5") == ("*", Rate(0.5, 1))


def test_rc_4_docker_hub_has_a_rate_unless_told_otherwise() -> None:
    hub = "index.docker.io"
    assert rates_of([]) == {hub: Rate(300, 300)}
    assert rates_of(["r.example=60"]) == {hub: Rate(300, 300), "r.example": Rate(60, 60)}
    assert rates_of(["docker.io=10/2"]) == {hub: Rate(10, 2)}
    assert rates_of(["*=60"]) == {"*": Rate(60, 60)}
    waits: list[float] = []
    for texts, expected in (([], [0.2]), (["docker.io=0"], [])):
        limiter = Limiter(rates_of(texts), SharedState(None, "rate"), waits.append, lambda: 1000.0)
        for _ in range(301):
            limiter.take(hub)
        assert [round(wait, 6) for wait in waits if wait > 1e-6] == expected
        waits.clear()


WORKER = """
import os, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from conforma.cancellation import Cancellation
from conforma.oci.limiter import Rate
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry, RegistryOptions
from conforma.oci.throttle import Throttle
may_pass = Throttle._may_pass
def looked(*arguments):
    passed = may_pass(*arguments)
    if not passed[0]:  # it has looked, and must wait
        os.write(1, b"waits %f\\n" % time.monotonic())  # one line, whoever else writes
    return passed
Throttle._may_pass = looked
host, state, count, rate = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
rates = {"*": Rate(rate, 10)} if rate else {}
options = RegistryOptions(environment={}, state=state, rates=rates)
sys.stdin.readline()
with Registry(options, Cancellation()) as registry, ThreadPoolExecutor(8) as pool:
    base = Reference.parse(f"{host}/app")
    list(pool.map(lambda n: registry.head(base.with_tag(f"t{n}")), range(count)))
    print(registry.stats.requests, registry.stats.retries)
"""


class Swarm:
    """Processes that all start asking when they are told to."""

    def __init__(self, processes: int, *arguments: object) -> None:
        command = [sys.executable, "-c", WORKER, *map(str, arguments)]
        self._running = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]

    def go(self) -> None:
        for process in self._running:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()

    def until_all_wait(self, since: float) -> None:
        """Until each of them has looked, after that moment, whether it may go, and may not."""
        for process in self._running:
            assert process.stdout is not None
            waits = (line.split() for line in process.stdout)
            assert any(line[0] == "waits" and float(line[1]) > since for line in waits)

    def answers(self) -> list[list[int]]:
        """Requests and retries of each, once it has ended."""
        told = []
        for process in self._running:
            assert process.stdout is not None
            told.append(process.stdout.read().splitlines()[-1])
            assert process.wait(60) == 0
            process.stdout.close()
        return [[int(word) for word in line.split()] for line in told]

    def run(self) -> list[list[int]]:
        self.go()
        return self.answers()


@pytest.mark.slow
def test_rc_4_processes_share_one_bucket(server: RegistryServer, tmp_path: Path) -> None:
    for n in range(20):
        put_image(server, tag=f"t{n}")
    # Ours is one notch below the server's, or rounding would decide.
    server.faults.limit_rate(12, 21.0)
    counts = Swarm(4, server.host, tmp_path / "state", 20, 20 * 60.0).run()
    assert counts == [[20, 0]] * 4
    assert [r.status for r in server.log.settled()] == [200] * 80
    times = sorted(r.start for r in server.log)
    assert times[-1] - times[0] > (80 - 10) / 20.0 * 0.9


def test_rc_4_a_directory_that_cannot_be_used_is_not_needed(
    server: RegistryServer, client: ClientFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    registry = client(rates={"*": Rate(1e6, 10)}, state=tmp_path / "file").registry
    assert registry.head(put_image(server)).size > 0
    assert "not shared with other processes" in caplog.text


# RC-5: a 429 is for everybody


@pytest.mark.slow
def test_rc_5_a_429_closes_the_host_to_other_processes(
    server: RegistryServer, client: ClientFactory, tmp_path: Path
) -> None:
    for n in range(4):
        reference = put_image(server, tag=f"t{n}")
    swarm = Swarm(2, server.host, tmp_path / "state", 4, 0)
    server.faults.add(Fault(status=429, headers={"Retry-After": "2"}))
    registry = client(state=tmp_path / "state").registry
    probe = Gate()
    server.faults.add(Fault(hang=probe))
    with ThreadPoolExecutor(2) as pool:
        told = pool.submit(registry.head, reference)
        until(lambda: is_closed(registry, server))
        swarm.go()
        probe.wait_reached()
        # One goes first, of all processes; nobody else before its answer.
        swarm.until_all_wait(since=time.monotonic())
        assert len(server.log) == 2
        probe.release()
        swarm.answers()
        assert told.result(10).size > 0
    refused, *others = sorted(server.log.settled(), key=lambda r: r.start)
    assert refused.status == 429
    assert len(others) == 9
    assert min(r.start for r in others) - refused.start >= 1.99
    assert not list((tmp_path / "state").glob("*.closed"))


def test_rc_5_retry_after_may_be_a_date(server: RegistryServer, client: ClientFactory) -> None:
    reference = put_image(server)
    late = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
    server.faults.add(Fault(status=429, headers={"Retry-After": late}))
    with pytest.raises(RateLimited, match=r"asks for a pause of 7[12]\d\d s"):
        client().registry.head(reference)
    early = format_datetime(datetime.now(UTC) - timedelta(hours=2), usegmt=True)
    server.faults.add(Fault(status=429, headers={"Retry-After": early}))
    assert client().registry.head(reference).size > 0


def test_rc_5_a_host_that_keeps_refusing_is_given_up_for_all(
    server: RegistryServer, client: ClientFactory
) -> None:
    server.faults.add(Fault(status=429), times=None)
    registry = client(throttled=0.0).registry
    base = Reference.parse(f"{server.host}/app")
    outcomes: list[BaseException] = []

    def ask(number: int) -> None:
        with pytest.raises(RateLimited) as caught:
            registry.head(base.with_tag(f"t{number}"))
        outcomes.append(caught.value)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(64)))
    assert len(outcomes) == 64
    # Four attempts each would be 256.
    assert len(server.log.settled()) < 100


def test_rc_5_who_went_first_and_died_does_not_keep_the_host_closed(
    server: RegistryServer, client: ClientFactory, tmp_path: Path
) -> None:
    reference = put_image(server)
    origin = _origin(server)
    state = SharedState(tmp_path, "closed")
    name = f"{origin.host}_{origin.port}"
    now = time.time()
    state.change(name, lambda _: {"until": now - 31, "since": now - 40, "probe": now - 1})
    assert client(state=tmp_path).registry.head(reference).size > 0
    assert state.get(name) is None
    (tmp_path / f"{name}.closed").write_text("no JSON")
    assert client(state=tmp_path).registry.head(reference).size > 0


# RC-9: one token for many repositories


def test_rc_9_repositories_that_are_expected_share_tokens(
    serving: Serving, client: ClientFactory
) -> None:
    with serving(auth=BearerAuth()) as server:
        references = [put_image(server, f"team/app{n}") for n in range(60)]
        registry = client().registry
        registry.expect(references)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(registry.head, references))
        # Groups of 24; without groups it would be 60.
        assert registry.stats.tokens == 3
        assert len(server.log.settled()) == 60 + 3 + 1


def test_rc_9_a_service_that_refuses_wide_tokens_is_asked_for_narrow_ones(
    serving: Serving,
    client: ClientFactory,
) -> None:
    with serving(auth=BearerAuth()) as server:
        server.faults.add(Fault(status=400), path=r"/token\?.*scope=.*scope=", times=None)
        references = [put_image(server, f"team/app{n}") for n in range(5)]
        registry = client().registry
        registry.expect(references)
        for reference in references:
            assert registry.head(reference).size > 0
        assert registry.stats.tokens == 1 + 5


def test_rc_9_a_repository_left_out_of_a_wide_token_gets_its_own(
    serving: Serving, client: ClientFactory
) -> None:
    class Forgetful(BearerAuth):
        def issue(self, authorization: str | None, scopes: str) -> dict[str, object] | None:
            wide = scopes.split()
            return super().issue(authorization, " ".join(wide[:-1] if len(wide) > 1 else wide))

    with serving(auth=Forgetful()) as server:
        references = [put_image(server, f"team/app{n}") for n in range(5)]
        registry = client().registry
        registry.expect(references)
        for reference in references:
            assert registry.head(reference).size > 0
        assert registry.stats.tokens == 2


def test_rc_9_different_credentials_share_no_token(
    serving: Serving, client: ClientFactory, tmp_path: Path
) -> None:
    with serving(auth=BearerAuth("me", "c4nary-pw")) as server:
        references = [put_image(server, name) for name in ("mine/a", "mine/b", "other/c")]
        env = login(tmp_path, f"{server.host}/mine", password="c4nary-pw")
        registry = client(environment=env).registry
        registry.expect(references)
        registry.head(references[0])
        registry.head(references[1])
        with pytest.raises(AccessDenied):
            registry.head(references[2])
        scopes = [r.query.count("scope=") for r in server.log.settled().matching(path="/token")]
        assert scopes[0] == 2
        assert set(scopes[1:]) == {1}


# RC-14: send first, copy what is missing


def test_rc_14_what_is_there_already_is_sent_once(
    server: RegistryServer, client: ClientFactory
) -> None:
    source = put_image(server)
    registry = client().registry
    registry.resolve(source)
    server.log.clear()
    ensure_copied(registry, source, source.with_tag("v2"))
    asked = [(r.method, r.status) for r in server.log.settled()]
    assert asked == [("HEAD", 404), ("GET", 200), ("PUT", 201)]
    server.log.clear()
    fresh = client().registry
    ensure_copied(fresh, source, source.with_tag("v2"))
    assert {r.method for r in server.log.settled()} == {"HEAD"}


def test_rc_14_children_go_below_their_parents_and_tags_last(
    serving: Serving,
    client: ClientFactory,
) -> None:
    with serving() as here, serving() as there:
        images = [
            image_of([layer_of([Member("etc/n", bytes([n]))]), layer_of([Member("same", b"")])])
            for n in range(3)
        ]
        digest = index_of(images).put(here.store, "app", "v1")
        source = Reference.parse(f"{here.host}/app:v1")
        target = Reference.parse(f"{there.host}/copied/app:v1")
        registry = client().registry
        assert ensure_copied(registry, source, target) == digest
        fresh = client().registry
        assert fresh.head(target).digest == digest
        for image in images:
            copied = fresh.manifest(target.pinned(image.digest))
            assert isinstance(copied, Manifest)
            for layer in copied.layers:
                with fresh.open_blob(target, layer) as chunks:
                    assert sum(map(len, chunks)) == layer.size
        puts = [r for r in there.log.settled() if r.method == "PUT" and "/manifests/" in r.path]
        # Refused first, then accepted once it was complete; the tag is the last of all.
        assert puts[0].path == "/v2/copied/app/manifests/v1"
        assert puts[0].status in (404, 400)  # ours, as the specification has it; docker-registry
        assert (puts[-1].path, puts[-1].status) == ("/v2/copied/app/manifests/v1", 201)


def test_rc_14_blobs_of_the_same_registry_are_mounted(
    server: RegistryServer, client: ClientFactory
) -> None:
    source = put_image(server, content=bytes(200_000))
    server.log.clear()
    ensure_copied(client().registry, source, Reference.parse(f"{server.host}/other/app:v1"))
    uploads = server.log.settled().matching(path="/blobs/")
    assert [(r.method, r.status) for r in uploads] == [("POST", 201), ("POST", 201)]
    assert all("mount=" in r.query and "from=app" in r.query for r in uploads)


def test_rc_14_a_registry_without_mounts_gets_the_bytes(
    serving: Serving, client: ClientFactory
) -> None:
    with serving(mounts=False) as server:
        source = put_image(server, content=bytes(200_000))
        target = Reference.parse(f"{server.host}/other/app:v1")
        ensure_copied(client().registry, source, target)
        assert client().registry.head(target).digest == digest_of(server, "app", "v1")


def test_rc_14_large_blobs_go_in_chunks(serving: Serving, client: ClientFactory) -> None:
    content = bytes(range(256)) * 80_000  # 20 MB, in pieces of 8 MiB
    with serving() as here, serving() as there:
        source = put_image(here, content=content)
        ensure_copied(client().registry, source, Reference.parse(f"{there.host}/app:v1"))
        patches = there.log.settled().matching("PATCH")
        ranges = [r.header("content-range") for r in patches]
        assert ranges == ["0-8388607", "8388608-16777215", "16777216-20479999"]
        assert there.store.repository("app").has_blob(Digest.of(content))


def test_rc_14_a_copy_that_fails_leaves_the_tag_alone(
    serving: Serving, client: ClientFactory
) -> None:
    with serving() as here, serving() as there:
        source = put_image(here, content=b"new")
        target = put_image(there, content=b"old")
        before = digest_of(there, "app", "v1")
        there.faults.add(Fault(status=500), method="POST", times=None)
        with pytest.raises(RegistryUnreachable):
            ensure_copied(client().registry, source, target)
        assert digest_of(there, "app", "v1") == before


# RC-15: refused is not absent


@pytest.mark.parametrize("status", [401, 403])
def test_rc_15_a_refused_list_of_referrers_is_no_empty_list(
    server: RegistryServer, client: ClientFactory, status: int
) -> None:
    reference = put_image(server)
    registry = client().registry
    pinned = registry.resolve(reference)
    server.faults.add(Fault(status=status), path="/referrers/", times=None)
    with pytest.raises(AccessDenied):
        registry.referrers(pinned)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
def test_rc_15_a_token_service_never_says_that_an_image_is_missing(
    serving: Serving, client: ClientFactory, status: int
) -> None:
    with serving(auth=BearerAuth()) as server:
        reference = put_image(server)
        server.faults.add(Fault(status=status), path="/token", times=None)
        with pytest.raises((AccessDenied, RegistryUnreachable)):
            client().registry.head(reference)


# RC-22: mirrors


def mirror_of(server: RegistryServer, mirror: RegistryServer, text: str = "") -> dict[str, Mirror]:
    found = Mirror.parse(f"{server.host}={mirror.host}{text}")
    return {found.origin: found}


def test_rc_22_reads_go_to_the_mirror_and_writes_to_the_origin(
    serving: Serving, client: ClientFactory
) -> None:
    with serving() as origin, serving() as mirror:
        reference = put_image(origin)
        put_image(mirror, "cache/app")
        registry = client(mirrors=mirror_of(origin, mirror, "/cache")).registry
        manifest = registry.manifest(reference)
        assert isinstance(manifest, Manifest)
        assert registry.read_blob(reference, manifest.layers[0]) == b"layer"
        assert len(origin.log) == 0
        registry.push_blob(reference, b"new")
        assert mirror.log.settled().counts("POST").total() == 0
        assert origin.log.settled().counts("POST").total() == 1
        assert registry.stats.mirrored == 2


def test_rc_22_what_the_mirror_lacks_is_read_at_the_origin(
    serving: Serving, client: ClientFactory
) -> None:
    with serving() as origin, serving() as mirror:
        reference = put_image(origin)
        registry = client(mirrors=mirror_of(origin, mirror)).registry
        assert registry.head(reference).size > 0
        assert [r.status for r in mirror.log.settled()] == [404]


def test_rc_22_a_final_mirror_has_the_last_word(serving: Serving, client: ClientFactory) -> None:
    with serving() as origin, serving() as mirror:
        reference = put_image(origin)
        registry = client(mirrors=mirror_of(origin, mirror, "?final")).registry
        with pytest.raises(NotFound):
            registry.head(reference)
        digest = digest_of(origin, "app", "v1")
        assert registry.referrers(reference.pinned(digest)) == ()
        assert len(origin.log) == 0


@pytest.mark.parametrize(
    "fault",
    [Fault(status=503), Fault(status=403), Fault(reset_at=0), Fault(truncate_at=5)],
    ids=repr,
)
def test_rc_22_a_mirror_in_trouble_is_no_trouble(
    serving: Serving, client: ClientFactory, fault: Fault
) -> None:
    with serving() as origin, serving() as mirror:
        reference = put_image(origin)
        put_image(mirror)
        mirror.faults.add(fault, times=None)
        registry = client(mirrors=mirror_of(origin, mirror)).registry
        assert registry.manifest(reference).raw


def test_rc_22_a_body_that_breaks_at_the_mirror_goes_on_at_the_origin(
    serving: Serving,
    client: ClientFactory,
) -> None:
    content = bytes(range(256)) * 4000
    with serving() as origin, serving() as mirror:
        blob = stored(origin, "app", content)
        stored(mirror, "app", content)
        mirror.faults.add(Fault(truncate_at=300_000), times=None)
        registry = client(mirrors=mirror_of(origin, mirror)).registry
        with registry.open_blob(Reference.parse(f"{origin.host}/app"), blob) as chunks:
            assert b"".join(chunks) == content


def test_rc_22_a_mirror_that_is_behind_makes_nothing_unsigned(
    serving: Serving, client: ClientFactory
) -> None:
    with serving() as origin, serving() as mirror:
        reference = put_image(origin)
        put_image(mirror)
        digest = digest_of(origin, "app", "v1")
        tag = f"sha256-{digest.hex}.sig"
        put_image(origin, tag=tag)
        registry = client(mirrors=mirror_of(origin, mirror)).registry
        registry.referrers(reference.pinned(digest))
        assert registry.head(reference.with_tag(tag)).size > 0
        assert mirror.log.settled().counts(path="referrers|sha256-").total() == 0


def test_rc_22_the_mirror_is_not_shown_the_credentials_of_the_origin(
    serving: Serving, client: ClientFactory, tmp_path: Path
) -> None:
    with (
        serving(auth=BearerAuth("me", "c4nary-s3cret")) as origin,
        serving(auth=BearerAuth()) as mirror,
    ):
        reference = put_image(origin)
        put_image(mirror)
        env = login(tmp_path, origin.host)
        registry = client(mirrors=mirror_of(origin, mirror), environment=env).registry
        registry.manifest(reference)
        assert len(origin.log) == 0
        shown = [r.header("authorization") for r in mirror.log.settled().matching(path="/token")]
        assert shown == [None]


@pytest.mark.parametrize("text", ["", "r", "=m", "r=", "r=m?first", "b d=m", "r=m/Bad", "r=m//x"])
def test_rc_22_what_names_no_mirror_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="names no mirror"):
        Mirror.parse(text)


def test_rc_22_docker_hub_has_two_names() -> None:
    assert Mirror.parse("docker.io=m.example/hub").origin == "index.docker.io"


# RC-23: nothing is asked in secret


def test_rc_23_each_question_says_how_it_was_answered(
    server: RegistryServer, client: ClientFactory, kept: SafeCache
) -> None:
    told: list[QuestionSeen] = []
    reference = put_image(server)
    for _ in range(2):
        registry = client(content=kept.content, witness=told.append).registry
        manifest = registry.manifest(reference)
        assert isinstance(manifest, Manifest)
        for _ in range(2):
            registry.read_blob(reference, manifest.layers[0])
    assert [(q.what, q.source) for q in told] == [
        ("manifest", "network"),
        ("blob", "network"),
        ("blob", "memory"),
        ("manifest", "unchanged"),
        ("blob", "store"),
        ("blob", "memory"),
    ]
    assert told[0].name == str(reference)


def test_rc_23_requests_tell_their_waits_and_bytes(
    server: RegistryServer, client: ClientFactory
) -> None:
    reference = put_image(server)
    slept: list[float] = []
    made = client(rates={"*": Rate(60, 1)}, sleep=slept.append)
    manifest = made.registry.manifest(reference)
    made.registry.push_blob(reference, b"12345")
    first, post, put = made.seen
    assert (first.received, first.sent, first.limiter) == (len(manifest.raw), 0, 0.0)
    assert put.sent == 5
    assert post.limiter == pytest.approx(slept[0])
    assert made.registry.stats.waited_limiter == pytest.approx(sum(slept))
    assert all(s.whole >= s.seconds >= 0 and s.started > 1e9 for s in made.seen)


def test_rc_23_requests_become_spans(server: RegistryServer, client: ClientFactory) -> None:
    export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    from conforma.oci.tracing import spans, spans_observer

    exporter = export.InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    server.faults.add(Fault(status=503))
    client(observer=spans(provider)).registry.manifest(put_image(server))
    failed, good = exporter.get_finished_spans()
    assert failed.attributes["http.response.status_code"] == 503
    assert not failed.status.is_ok
    assert good.attributes["http.request.resend_count"] == 1
    assert good.attributes["http.response.body.size"] > 0
    assert good.start_time >= failed.end_time
    assert spans_observer({}) is None
    assert spans_observer({"OTEL_TRACES_EXPORTER": "none"}) is None


def _origin(server: RegistryServer) -> object:
    from conforma.oci.pool import Origin

    return Origin("http", "127.0.0.1", server.port)
