"""Repetition, patience and redirects, with the server's log as witness."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conforma.cancellation import Cancellation
from conforma.errors import (
    AccessDenied,
    BadResponse,
    DeadlineExceeded,
    Interrupted,
    NotFound,
    RateLimited,
    RegistryUnreachable,
)
from conforma.oci.registry import Patience, Registry, RegistryOptions, RetryPolicy
from conforma.serve.auth import BasicAuth, BearerAuth
from conforma.serve.faults import Fault, Gate
from conforma.serve.registry import RegistryServer
from tests.oci.scenery import (
    SECRET,
    ClientFactory,
    Serving,
    is_closed,
    login,
    put_image,
    stored,
    until,
)


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_rc_6_an_outage_is_tried_three_times_and_passed_on(
    server: RegistryServer, registry: Registry, status: int
) -> None:
    reference = put_image(server)
    server.faults.add(Fault(status=status), times=None)
    with pytest.raises(RegistryUnreachable, match=f"unexpected status code {status}") as caught:
        registry.head(reference)
    assert str(reference.repository) in caught.value.message
    assert caught.value.exit_status == 3
    assert len(server.log.settled()) == 3
    assert registry.stats.retries == 2


def test_rc_6_what_passes_is_not_noticed(server: RegistryServer, registry: Registry) -> None:
    reference = put_image(server)
    server.faults.add(Fault(status=503), times=2)
    assert registry.head(reference).size > 0
    server.faults.add(Fault(truncate_at=10), method="GET", times=2)
    assert registry.manifest(reference).raw


@pytest.mark.parametrize("status", [400, 405, 410, 418])
def test_rc_6_other_refusals_are_final(
    server: RegistryServer, registry: Registry, status: int
) -> None:
    reference = put_image(server)
    server.faults.add(Fault(status=status, body=b"so there"), times=None)
    with pytest.raises(BadResponse, match=rf"unexpected status code {status} .*: so there"):
        registry.manifest(reference)
    assert len(server.log.settled()) == 1


@pytest.mark.parametrize(
    "fault", [Fault(truncate_at=10), Fault(reset_at=10), Fault(endless=True)], ids=repr
)
def test_rc_7_nobody_repeats_what_was_already_repeated(
    server: RegistryServer, registry: Registry, fault: Fault
) -> None:
    reference = put_image(server)
    server.faults.add(fault, method="GET", times=None)
    with pytest.raises(RegistryUnreachable, match="connection broke") as caught:
        registry.manifest(reference)
    assert str(reference) in caught.value.message
    assert len(server.log.settled()) == 3


def test_the_retry_options_are_obeyed(server: RegistryServer, client: ClientFactory) -> None:
    reference = put_image(server)
    server.faults.add(Fault(status=503), times=None)
    registry = client(retry=RetryPolicy(max_retry=0)).registry
    with pytest.raises(RegistryUnreachable):
        registry.head(reference)
    assert len(server.log.settled()) == 1


def test_rc_5_a_permanent_429_ends_with_an_error_that_says_so(
    server: RegistryServer, registry: Registry
) -> None:
    reference = put_image(server)
    server.faults.add(Fault(status=429), times=None)
    with pytest.raises(RateLimited, match="429 Too Many Requests") as caught:
        registry.head(reference)
    assert caught.value.exit_status == 3
    assert len(server.log.settled()) == 4


@pytest.mark.slow
def test_rc_5_retry_after_is_waited_for(server: RegistryServer, registry: Registry) -> None:
    reference = put_image(server)
    server.faults.add(Fault(status=429, headers={"Retry-After": "1"}))
    registry.head(reference)
    first, second = server.log.settled()
    assert second.start - first.start >= 0.99  # its end is noted when the client may be waiting
    assert registry.stats.waited >= 0.99


def test_rc_5_nobody_waits_longer_than_makes_sense(
    server: RegistryServer, registry: Registry
) -> None:
    reference = put_image(server)
    server.faults.add(Fault(status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(RateLimited, match="asks for a pause of 3600 s"):
        registry.head(reference)
    assert len(server.log.settled()) == 1


@pytest.mark.slow
def test_rc_5_a_429_stops_everybody_and_one_request_goes_first(
    server: RegistryServer, registry: Registry
) -> None:
    for n in range(8):
        reference = put_image(server, tag=f"t{n}")
    registry.tags(reference)
    probe = Gate()
    server.faults.add(Fault(status=429, headers={"Retry-After": "1"}), path="manifests/t0")
    server.faults.add(Fault(hang=probe), path="manifests/")
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(registry.head, reference.with_tag("t0"))
        until(lambda: is_closed(registry, server))
        server.log.clear()
        others = [pool.submit(registry.head, reference.with_tag(f"t{n}")) for n in range(1, 8)]
        probe.wait_reached()
        assert len(server.log) == 1  # the probe; all others wait for its answer
        probe.release()
        for future in (first, *others):
            future.result(10)
    assert server.log.settled().counts(path="manifests/").total() == 8


def test_rc_5_the_request_that_goes_first_may_need_a_token(
    serving: Serving, client: ClientFactory
) -> None:
    auth = BearerAuth()
    with serving(auth=auth) as server:
        reference = put_image(server)
        registry = client().registry
        registry.tags(reference)
        auth.revoke_all()
        server.faults.add(Fault(status=429), path="manifests/")
        registry.head(reference)
        assert [r.status for r in server.log.settled().matching(path="manifests/")] == [
            429,
            401,
            200,
        ]


@pytest.mark.parametrize("status", [400, 403])
def test_a_limit_is_recognised_by_its_code(
    server: RegistryServer, registry: Registry, status: int
) -> None:
    reference = put_image(server)
    body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}'
    server.faults.add(Fault(status=status, body=body), times=None)
    with pytest.raises(RateLimited, match="slow down"):
        registry.manifest(reference)


def test_rc_15_a_403_is_a_refusal_with_its_reason(
    server: RegistryServer, registry: Registry
) -> None:
    reference = put_image(server)
    body = b'{"errors":[{"code":"DENIED","message":"not for\\u001b[31m you"}]}'
    server.faults.add(Fault(status=403, body=body), times=None)
    with pytest.raises(AccessDenied, match=r"DENIED: not for \[31m you"):
        registry.manifest(reference)
    assert len(server.log.settled()) == 1


# Redirects


@pytest.fixture
def storage() -> RegistryServer:
    with RegistryServer() as running:
        yield running


def test_rc_10_credentials_stay_with_the_registry_that_asked_for_them(
    serving: Serving, storage: RegistryServer, client: ClientFactory, tmp_path: Path
) -> None:
    with serving(auth=BasicAuth("me", SECRET)) as server:
        reference = put_image(server)
        described = stored(server, "app", b"x" * 1000)
        stored(storage, "app", b"x" * 1000)
        target = f"{storage.url}/v2/app/blobs/{described.digest}?signature={SECRET}"
        server.faults.add(Fault(redirect=target), path="/blobs/")
        made = client(environment=login(tmp_path, server.host))
        made.registry.head(reference)
        assert made.registry.read_blob(reference, described) == b"x" * 1000
        (arrived,) = storage.log.settled()
        assert arrived.header("authorization") is None
        assert SECRET not in repr(made.seen)


def test_a_break_behind_a_redirect_starts_at_the_registry_again(
    server: RegistryServer, storage: RegistryServer, registry: Registry
) -> None:
    reference = put_image(server)
    described = stored(server, "app", b"x" * 300_000)
    stored(storage, "app", b"x" * 300_000)
    target = f"{storage.url}/v2/app/blobs/{described.digest}"
    server.faults.add(Fault(redirect=target), path="/blobs/", times=None)
    storage.faults.add(Fault(truncate_at=100_000))
    storage.faults.add(Fault(status=403))  # the signed address has expired
    with registry.open_blob(reference, described) as chunks:
        assert b"".join(chunks) == b"x" * 300_000
    assert [r.header("range") for r in storage.log.settled()] == [
        None,
        "bytes=100000-",
        "bytes=100000-",
    ]


def test_a_redirect_loop_is_left_with_the_names_of_the_hosts(
    server: RegistryServer, registry: Registry
) -> None:
    reference = put_image(server)
    server.faults.add(Fault(redirect="/v2/app/manifests/v1"), times=None)
    with pytest.raises(BadResponse, match=r"more than 10 redirects: 127\.0\.0\.1 -> 127"):
        registry.manifest(reference)
    assert len(server.log.settled()) == 11


@pytest.mark.parametrize("target", ["file:///etc/passwd", "gopher://x/", "ftp://x/y"])
def test_redirects_lead_to_the_web_or_nowhere(
    server: RegistryServer, registry: Registry, target: str
) -> None:
    reference = put_image(server)
    server.faults.add(Fault(redirect=target))
    with pytest.raises(BadResponse, match="redirect"):
        registry.manifest(reference)


# Stopping


def test_stopping_the_run_ends_requests_that_hang(
    server: RegistryServer, registry: Registry, cancellation: Cancellation
) -> None:
    reference = put_image(server)
    gate = Gate()
    server.faults.add(Fault(hang=gate))
    caught: list[BaseException] = []
    thread = threading.Thread(target=lambda: _catch(caught, registry, reference))
    thread.start()
    gate.wait_reached()
    cancellation.cancel()
    thread.join(20)
    assert not thread.is_alive()
    assert isinstance(caught[0], Interrupted)


def test_stopping_the_run_ends_bodies_that_hang(
    server: RegistryServer, registry: Registry, cancellation: Cancellation
) -> None:
    reference = put_image(server)
    described = stored(server, "app", bytes(500_000))
    gate = Gate()
    server.faults.add(Fault(hold_at=200_000, gate=gate), path="/blobs/")
    with (
        pytest.raises(Interrupted),
        registry.open_blob(reference, described) as chunks,
    ):
        next(chunks)
        gate.wait_reached()
        cancellation.cancel()
        for _ in chunks:
            pass


def test_stopping_the_run_ends_pauses(server: RegistryServer, client: ClientFactory) -> None:
    reference = put_image(server)
    server.faults.add(Fault(status=429, headers={"Retry-After": "50"}))
    cancellation = Cancellation()
    options = RegistryOptions(environment={})
    caught: list[BaseException] = []
    with Registry(options, cancellation) as registry:
        thread = threading.Thread(target=lambda: _catch(caught, registry, reference))
        thread.start()
        until(lambda: is_closed(registry, server))
        cancellation.cancel()
        thread.join(20)
        assert not thread.is_alive()
    assert isinstance(caught[0], Interrupted)


def test_a_pause_beyond_the_deadline_is_not_begun(server: RegistryServer) -> None:
    reference = put_image(server)
    server.faults.add(Fault(status=429, headers={"Retry-After": "50"}))
    cancellation = Cancellation(20)
    with (
        Registry(RegistryOptions(environment={}), cancellation) as registry,
        pytest.raises(RateLimited, match="asks for a pause of 50 s"),
    ):
        registry.head(reference)
    cancellation.close()


def test_a_run_whose_time_is_up_says_so(server: RegistryServer) -> None:
    reference = put_image(server)
    gate = Gate()
    server.faults.add(Fault(hang=gate))
    cancellation = Cancellation(0.2, label="200ms")
    with (
        Registry(RegistryOptions(environment={}), cancellation) as registry,
        pytest.raises(DeadlineExceeded, match="exceeded allowed execution time of 200ms"),
    ):
        registry.head(reference)


def _catch(caught: list[BaseException], registry: Registry, reference: object) -> None:
    try:
        registry.head(reference)  # type: ignore[arg-type]
    except BaseException as error:
        caught.append(error)


# Connections


def test_rc_20_connections_are_reused(server: RegistryServer, registry: Registry) -> None:
    for n in range(20):
        reference = put_image(server, tag=f"t{n}")
    for n in range(20):
        registry.head(reference.with_tag(f"t{n}"))
        with pytest.raises(NotFound):
            registry.manifest(reference.with_tag(f"missing{n}"))
    assert len({r.client for r in server.log.settled()}) == 1


def test_rc_18_bodies_do_not_block_small_requests(
    server: RegistryServer, client: ClientFactory
) -> None:
    reference = put_image(server)
    described = stored(server, "app", bytes(1_000_000))
    registry = client(bulk_transfers=2, small_requests=1).registry
    gates = [Gate(), Gate()]
    for gate in gates:
        server.faults.add(Fault(hold_at=100_000, gate=gate), path="/blobs/")
    with ThreadPoolExecutor(4) as pool:

        def download() -> int:
            with registry.open_blob(reference, described) as chunks:
                return sum(map(len, chunks))

        downloads = [pool.submit(download) for _ in range(3)]
        for gate in gates:
            gate.wait_reached()
        registry.head(reference)  # although both places for bodies are taken
        assert server.log.counts("GET", "/blobs/").total() == 2
        for gate in gates:
            gate.release()
        assert [d.result(10) for d in downloads] == [1_000_000] * 3


def test_rc_19_an_overloaded_server_gets_fewer_requests_at_once(
    server: RegistryServer, client: ClientFactory
) -> None:
    from conforma.oci.pool import Origin

    for n in range(30):
        reference = put_image(server, tag=f"t{n}")
    registry = client(small_requests=8).registry
    pool = registry._exchange.pool
    origin = Origin("http", "127.0.0.1", server.port)
    server.faults.add(Fault(status=503), times=2)
    registry.head(reference)
    assert pool.limit(origin, "small") == 2
    for _ in range(30):
        registry.tags(reference)
    assert pool.limit(origin, "small") > 2


def test_rc_11_every_request_says_who_we_are(serving: Serving, client: ClientFactory) -> None:
    with serving(auth=BearerAuth()) as server:
        reference = put_image(server)
        client(user_agent="conforma/test (contact)").registry.head(reference)
        assert {r.header("user-agent") for r in server.log.settled()} == {"conforma/test (contact)"}
        assert len(server.log) == 3


def test_rc_23_every_request_can_be_observed(server: RegistryServer, client: ClientFactory) -> None:
    reference = put_image(server)
    server.faults.add(Fault(status=503))
    server.faults.add(Fault(reset_at=0), method="GET")
    made = client()
    made.registry.manifest(reference)
    url = f"http://{server.host}/v2/app/manifests/v1"
    assert [(s.method, s.url, s.status, s.attempt) for s in made.seen] == [
        ("GET", url, 503, 1),
        ("GET", url, 200, 2),
        ("GET", url, 200, 3),
    ]
    assert made.registry.stats.requests == 3


@pytest.mark.slow
def test_a_server_that_never_answers_is_given_up(
    server: RegistryServer, client: ClientFactory
) -> None:
    reference = put_image(server)
    gate = Gate()
    server.faults.add(Fault(hang=gate), times=None)
    registry = client(patience=Patience(head=0.1, read=0.1)).registry
    with pytest.raises(RegistryUnreachable, match="timed out") as caught:
        registry.head(reference)
    assert str(reference) in caught.value.message
