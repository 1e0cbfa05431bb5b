"""Blob bodies that break, lie or start somewhere else."""

from __future__ import annotations

import os

import pytest

from conforma.errors import (
    BadResponse,
    DigestMismatch,
    NotFound,
    RegistryUnreachable,
    SizeMismatch,
)
from conforma.oci.manifest import Descriptor
from conforma.oci.reference import Reference
from conforma.oci.registry import Patience, Registry
from conforma.serve.faults import Fault
from conforma.serve.registry import RegistryServer
from tests.oci.scenery import ClientFactory, put_image, stored

DATA = os.urandom(1_000_000)


@pytest.fixture
def reference(server: RegistryServer) -> Reference:
    return put_image(server)


@pytest.fixture
def blob(server: RegistryServer) -> Descriptor:
    return stored(server, "app", DATA)


def ranges(server: RegistryServer) -> list[str | None]:
    return [r.header("range") for r in server.log.settled().matching("GET", "/blobs/")]


def read(registry: Registry, reference: Reference, blob: Descriptor, offset: int = 0) -> bytes:
    with registry.open_blob(reference, blob, offset=offset) as chunks:
        return b"".join(chunks)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(truncate_at=400_000),
        Fault(reset_at=400_000),
        Fault(truncate_at=400_000, chunked=True),
        Fault(truncate_at=400_000, http10=True),
    ],
)
def test_rc_8_a_body_that_breaks_is_resumed_where_it_broke(
    server: RegistryServer, registry: Registry, reference: Reference, blob: Descriptor, fault: Fault
) -> None:
    server.faults.add(fault, path="/blobs/")
    assert read(registry, reference, blob) == DATA
    first, second = ranges(server)
    assert first is None
    assert second is not None and second.startswith("bytes=")
    # A reset may destroy what was under way; more than that was never asked for twice.
    resumed_at = int(second.removeprefix("bytes=").removesuffix("-"))
    assert resumed_at <= 400_000
    assert fault.reset_at is not None or resumed_at == 400_000
    assert registry.stats.resumed == 1


def test_rc_8_many_breaks_are_survived_as_long_as_each_brings_something(
    server: RegistryServer, registry: Registry, reference: Reference, blob: Descriptor
) -> None:
    server.faults.add(Fault(truncate_at=100_000), path="/blobs/", times=9)
    assert read(registry, reference, blob) == DATA
    assert ranges(server) == [None, *(f"bytes={n}00000-" for n in range(1, 10))]


def test_rc_8_three_requests_without_progress_are_the_end(
    server: RegistryServer, registry: Registry, reference: Reference, blob: Descriptor
) -> None:
    server.faults.add(Fault(truncate_at=100_000), path="/blobs/")
    server.faults.add(Fault(truncate_at=0), path="/blobs/", times=None)
    with pytest.raises(RegistryUnreachable, match="connection broke") as caught:
        read(registry, reference, blob)
    assert str(reference) in caught.value.message
    assert caught.value.message.endswith(", after 100000 of 1000000 bytes of the blob")
    assert ranges(server) == [None, *["bytes=100000-"] * 3]


def test_rc_8_a_server_that_starts_over_is_read_past_the_known_part_once(
    server: RegistryServer, registry: Registry, reference: Reference, blob: Descriptor
) -> None:
    server.faults.add(Fault(truncate_at=100_000), path="/blobs/")
    server.faults.add(Fault(ignore_range=True), path="/blobs/")
    assert read(registry, reference, blob) == DATA
    server.log.clear()
    server.faults.add(Fault(truncate_at=100_000), path="/blobs/")
    server.faults.add(Fault(ignore_range=True, truncate_at=200_000), path="/blobs/")
    server.faults.add(Fault(ignore_range=True), path="/blobs/")
    with pytest.raises(RegistryUnreachable, match="cannot continue from there"):
        read(registry, reference, blob)


def test_rc_8_a_large_part_is_not_read_again_to_be_thrown_away(
    server: RegistryServer, registry: Registry, reference: Reference
) -> None:
    large = stored(server, "app", bytes(9 * 1024 * 1024))
    server.faults.add(Fault(ignore_range=True), path="/blobs/")
    with pytest.raises(RegistryUnreachable, match="cannot continue from there"):
        read(registry, reference, large, offset=large.size - 1)


@pytest.mark.parametrize("size_is_known", [True, False])
def test_a_blob_that_came_whole_needs_no_end_of_its_answer(
    server: RegistryServer,
    registry: Registry,
    reference: Reference,
    blob: Descriptor,
    size_is_known: bool,
) -> None:
    server.faults.add(Fault(endless=True), path="/blobs/", times=None)
    wanted = blob if size_is_known else blob.digest
    assert registry.read_blob(reference, wanted, limit=len(DATA)) == DATA
    assert ranges(server) == [None]


@pytest.mark.parametrize(
    ("size_is_known", "of"), [(True, "1000000"), (False, "an unknown number of")]
)
def test_an_answer_that_breaks_off_for_good_says_how_much_had_come(
    server: RegistryServer,
    registry: Registry,
    reference: Reference,
    blob: Descriptor,
    size_is_known: bool,
    of: str,
) -> None:
    server.faults.add(Fault(status=200, body=DATA[:600_000], endless=True), path="/blobs/")
    nothing = {"Content-Range": "bytes */600000"}
    server.faults.add(Fault(status=416, headers=nothing), path="/blobs/", times=None)
    with pytest.raises(RegistryUnreachable) as caught:
        registry.read_blob(reference, blob if size_is_known else blob.digest, limit=len(DATA))
    assert caught.value.message == (
        f"{reference.repository_name}@{blob.digest}: the registry's answer broke off after "
        f"600000 of {of} bytes, and it says that there are no more"
    )
    assert caught.value.hint is not None and "try again" in caught.value.hint
    assert caught.value.exit_status == 3


@pytest.mark.parametrize("offered", ["bytes 5-9/10", "bytes 99999-999999/1000000", "", None])
def test_rc_8_only_the_range_that_was_asked_for_is_accepted(
    server: RegistryServer,
    registry: Registry,
    reference: Reference,
    blob: Descriptor,
    offered: str | None,
) -> None:
    server.faults.add(Fault(headers={"Content-Range": offered}), path="/blobs/")
    with pytest.raises(BadResponse, match="asked for bytes from 100000"):
        read(registry, reference, blob, offset=100_000)


def test_a_reader_may_start_in_the_middle_or_at_the_end(
    server: RegistryServer, registry: Registry, reference: Reference, blob: Descriptor
) -> None:
    assert read(registry, reference, blob, offset=999_990) == DATA[-10:]
    assert read(registry, reference, blob, offset=len(DATA)) == b""
    assert ranges(server) == ["bytes=999990-"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(flip_at=500_000), DigestMismatch),
        (Fault(extra=b"more"), SizeMismatch),
        (Fault(extra=b"more", chunked=True), SizeMismatch),
        (Fault(status=200, body=b"short"), SizeMismatch),
        (Fault(headers={"Content-Encoding": "gzip"}, flip_at=0), DigestMismatch),
    ],
)
def test_rc_16_wrong_bytes_are_never_all_there_is(
    server: RegistryServer,
    registry: Registry,
    reference: Reference,
    blob: Descriptor,
    fault: Fault,
    error: type[Exception],
) -> None:
    server.faults.add(fault, path="/blobs/", times=None)
    with pytest.raises(error) as caught:
        read(registry, reference, blob)
    assert f"{reference.repository_name}@{blob.digest}" in str(caught.value)


def test_an_announced_encoding_changes_nothing_about_the_bytes(
    server: RegistryServer, registry: Registry, reference: Reference, blob: Descriptor
) -> None:
    server.faults.add(Fault(headers={"Content-Encoding": "gzip"}), path="/blobs/")
    assert read(registry, reference, blob) == DATA
    (request,) = server.log.settled().matching("GET", "/blobs/")
    assert request.header("accept-encoding") == "identity"


def test_an_empty_blob_is_a_blob(
    server: RegistryServer, registry: Registry, reference: Reference
) -> None:
    assert read(registry, reference, stored(server, "app", b"")) == b""


def test_a_missing_blob_is_known_before_the_first_byte(
    server: RegistryServer, registry: Registry, reference: Reference
) -> None:
    other = stored(server, "elsewhere", b"x")
    with pytest.raises(NotFound, match="BLOB_UNKNOWN"), registry.open_blob(reference, other):
        pytest.fail("opened")


def test_an_abandoned_body_costs_its_connection_and_nothing_else(
    server: RegistryServer, client: ClientFactory, reference: Reference
) -> None:
    large = stored(server, "app", bytes(20_000_000))
    registry = client(bulk_transfers=1).registry
    for _ in range(3):  # a lane of one: a connection that is not given back would block
        with registry.open_blob(reference, large) as chunks:
            next(chunks)
    assert read(registry, reference, large) == bytes(20_000_000)


def test_a_body_that_only_drips_is_given_up(
    server: RegistryServer, client: ClientFactory, reference: Reference, blob: Descriptor
) -> None:
    patience = Patience(window=0.05, slowest=100_000_000)
    registry = client(patience=patience).registry
    server.faults.add(Fault(drip=(1, 0.03)), path="/blobs/", times=None)
    with pytest.raises(RegistryUnreachable, match="given up as too slow"):
        read(registry, reference, blob)
