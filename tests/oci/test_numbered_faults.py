"""Faults of the project's list (ecosystem-and-reliability.md, 4.3) that no other test is about.

Others are elsewhere: 7 in ``test_manifest.py``, 118 for rates in ``test_contract.py`` and 118 and
119 for the whole program in ``tests/cli/test_process.py``.
"""

from __future__ import annotations

import tarfile
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conforma.cancellation import Cancellation
from conforma.errors import BadArchive, BadResponse, NotFound, RegistryError, TooLarge
from conforma.oci import media_types, tar
from conforma.oci.inflate import Limits, inflated
from conforma.oci.manifest import Descriptor
from conforma.oci.meter import Meter
from conforma.oci.pool import Origin
from conforma.oci.registry import Registry
from conforma.oci.retry import retry_after
from conforma.oci.shared_state import SharedState
from conforma.oci.tar import TarWalker
from conforma.oci.throttle import Throttle
from conforma.oci.tokens import parse_token
from conforma.serve.auth import BearerAuth
from conforma.serve.faults import Fault
from conforma.serve.registry import RegistryServer
from tests.oci.scenery import ClientFactory, Serving, put_image, stored

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def test_fault_13_a_layer_that_is_offered_elsewhere_is_asked_of_the_registry_alone(
    server: RegistryServer, registry: Registry
) -> None:
    with RegistryServer() as elsewhere:
        foreign = stored(elsewhere, "app", b"foreign")
        address = f"{elsewhere.url}/v2/app/blobs/{foreign.digest}"
        named = Descriptor(foreign.media_type, foreign.digest, foreign.size, urls=(address,))
        reference = put_image(server)
        with pytest.raises(NotFound), registry.open_blob(reference, named) as chunks:
            list(chunks)
        assert len(elsewhere.log) == 0


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (b"", 60.0),
        (b', "expires_in": 0', 60.0),
        (b', "expires_in": -5', 60.0),
        (b', "expires_in": "300"', 60.0),
        (b', "expires_in": NaN', 60.0),
        (b', "expires_in": 300', 300.0),
        (b', "expires_in": 4', 4.0),
    ],
)
def test_fault_43_a_token_without_a_lifetime_is_good_for_a_minute(
    said: bytes, seconds: float
) -> None:
    token = parse_token(b'{"token": "t"%s}' % said, 1000.0, "service")
    assert token.renew_at == 1000.0 + max(seconds - 10, seconds / 2)


@pytest.mark.parametrize("size", [100_000, 10_000_000])
def test_fault_43_a_token_that_fits_no_header_is_refused(
    serving: Serving, client: ClientFactory, size: int
) -> None:
    with serving(auth=BearerAuth()) as server:
        reference = put_image(server)
        huge = b'{"token": "' + b"t" * size + b'"}'
        server.faults.add(Fault(status=200, body=huge), path="/token", times=None)
        with pytest.raises((BadResponse, TooLarge, RegistryError)) as caught:
            client().registry.head(reference)
    assert "tttt" not in str(caught.value)
    assert f"{server.host}" in caught.value.message


def test_fault_60_a_zstd_window_beyond_the_limit_is_refused() -> None:
    pytest.importorskip("zstandard")
    raw_block = (1 | 5 << 3).to_bytes(3, "little") + b"hello"

    def frame(window_log: int) -> bytes:
        return _ZSTD_MAGIC + bytes([0, window_log - 10 << 3]) + raw_block

    def plain(data: bytes) -> bytes:
        limits = Limits(max_window=1 << 20)
        return b"".join(inflated([data], media_types.OCI_LAYER_ZSTD, limits, "layer x"))

    assert plain(frame(20)) == b"hello"
    for window_log in (21, 31, 41):
        with pytest.raises(BadArchive, match="layer x: broken zstd stream"):
            plain(frame(window_log))


@pytest.mark.parametrize("size", [(1 << 63) - 1, 1 << 62])
def test_fault_67_a_sparse_file_that_claims_exabytes_takes_no_memory(size: int) -> None:
    data = b"1\n0\n5\n".ljust(512, b"\0") + b"hello".ljust(512, b"\0")
    info = tarfile.TarInfo("holes")
    info.size = 512 + 5
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "holes",
        "GNU.sparse.realsize": str(size),
    }
    found = []
    walker = TarWalker(found.append)
    walker.feed(info.tobuf(tarfile.PAX_FORMAT) + data + bytes(1024))
    walker.finish()
    (entry,) = found
    assert entry.size == size
    assert entry.fragments is not None
    assert sum(piece.length for piece in entry.fragments) == 5


def test_fault_70_entries_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "MOST_ENTRIES", 1000)
    one = tarfile.TarInfo("x").tobuf()
    seen = 0

    def count(_: object) -> None:
        nonlocal seen
        seen += 1

    with pytest.raises(TooLarge, match="layer x: more than 1000 entries"):
        TarWalker(count, what="layer x").feed(one * 5000)
    assert seen == 1000


def test_fault_118_a_clock_that_is_set_back_keeps_no_host_closed(tmp_path: Path) -> None:
    moment = 1_000_000.0
    cancellation = Cancellation()
    throttle = Throttle(
        cancellation, Meter(), SharedState(tmp_path, "closed"), 60.0, now=lambda: moment
    )
    origin = Origin("http", "r.example", 80)
    throttle.close_for(origin, 30.0)
    assert throttle.is_closed(origin)
    moment -= 86_400.0
    assert throttle.wait(origin, nested=False)[0] is False
    cancellation.close()


def test_fault_118_pauses_until_a_date_are_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2028, 2, 28, 23, 59, 50, tzinfo=UTC)
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        assert retry_after("Tue, 29 Feb 2028 00:00:10 GMT", now) == 20.0
        assert retry_after("Tue, 29 Feb 2028 00:00:10 -0000", now) == 20.0
    finally:
        monkeypatch.undo()
        time.tzset()
