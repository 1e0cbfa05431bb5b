"""Streaming over HTTP, LC-32 to LC-36: clients read along with one download from upstream."""

from __future__ import annotations

import http.client
import os
import random
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from conforma.serve.faults import Fault, Gate
from tests.oci.scenery import until
from tests.serve.pulling import Pulling, pulling

pytestmark = pytest.mark.slow

HELD_BACK = 32 * 1024
SIZE = 4_000_000


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Pulling]:
    with pulling(tmp_path / "cache") as opened:
        yield opened


@pytest.fixture
def data() -> bytes:
    return random.Random("streaming").randbytes(SIZE)


class Half:
    """A blob upstream whose download stops in the middle until it is released."""

    def __init__(self, here: Pulling, data: bytes) -> None:
        self.path = here.blob(data)
        self.gate = Gate()
        here.upstream.faults.add(
            Fault(hold_at=SIZE // 2, gate=self.gate), method="GET", path="/blobs/"
        )


def read(answer: http.client.HTTPResponse, count: int) -> bytes:
    """Exactly so many bytes, or fewer at a clean end; raises ``IncompleteRead``."""
    return answer.read(count)


def rest(answer: http.client.HTTPResponse) -> bytes:
    """Everything that comes, however it ends."""
    try:
        return answer.read()
    except http.client.IncompleteRead as error:
        return error.partial


def test_lc_32_the_first_byte_comes_with_upstreams_and_late_joiners_get_all(
    here: Pulling, data: bytes
) -> None:
    half = Half(here, data)
    first = here.opened(half.path)
    assert read(first, SIZE // 4) == data[: SIZE // 4], "while upstream is held"
    late = here.opened(half.path)
    assert read(late, SIZE // 3) == data[: SIZE // 3], "from the first byte, at once"
    half.gate.release()
    assert read(first, SIZE) == data[SIZE // 4 :]
    assert read(late, SIZE) == data[SIZE // 3 :]
    assert here.get(half.path)[2] == data
    assert here.downloads(data) == 1


def test_lc_32_a_thousand_random_joins_and_leaves(here: Pulling) -> None:
    choose = random.Random("joins")
    problems: list[str] = []
    lock = threading.Lock()
    for number in range(10):
        content = random.Random(number).randbytes(300_000)
        path = here.blob(content)
        gate = Gate()
        here.upstream.faults.add(Fault(hold_at=150_000, gate=gate), method="GET", path=path)

        def client(take: int | None, content: bytes = content, path: str = path) -> None:
            try:
                answer = here.opened(path)
                got = answer.read() if take is None else answer.read(take)
                answer.close()
                wanted = content if take is None else content[:take]
                if got != wanted:
                    raise AssertionError(f"{len(got)} bytes, other than the {len(wanted)} expected")
            except Exception as error:
                with lock:
                    problems.append(repr(error))

        threads = []
        for position in range(100):
            take = None if choose.random() < 0.5 else choose.randrange(1, 140_000)
            threads.append(threading.Thread(target=client, args=(take,)))
            threads[-1].start()
            if position == 60:
                gate.wait_reached()
                gate.release()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert here.downloads(content) == 1
    assert problems == []


def test_lc_33_stalled_and_killed_clients_slow_nobody(here: Pulling, data: bytes) -> None:
    half = Half(here, data)
    request = f"GET {half.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    stalled = here.raw(request, receive_buffer=4096)
    assert stalled.recv(1) == b"H"
    killed = here.raw(request)
    assert killed.recv(1) == b"H"
    killed.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    killed.close()
    good = here.opened(half.path)
    half.gate.release()
    assert good.read() == data
    assert here.downloads(data) == 1
    # The stalled one gets everything as well, when it cares to read.
    head, _, body = b"".join(_take(stalled, SIZE)).partition(b"\r\n\r\n")
    assert head.startswith(b"TTP/1.1 200 ")
    assert body + b"".join(_take(stalled, SIZE - len(body))) == data
    stalled.close()


def test_lc_33_the_download_goes_on_when_the_client_that_began_it_leaves(
    here: Pulling, data: bytes
) -> None:
    half = Half(here, data)
    leader = here.opened(half.path)
    assert read(leader, 1000) == data[:1000]
    follower = here.opened(half.path)
    assert read(follower, 1000) == data[:1000]
    leader.close()
    half.gate.release()
    assert follower.read() == data[1000:]
    assert here.downloads(data) == 1


@pytest.mark.parametrize("damage", ["flip", "break", "short"])
def test_lc_34_nobody_gets_all_of_a_blob_that_is_wrong(
    here: Pulling, data: bytes, damage: str
) -> None:
    path = here.blob(data)
    gate = Gate()
    fault = {
        "flip": Fault(flip_at=100, hold_at=SIZE // 2, gate=gate),
        "break": Fault(truncate_at=SIZE - 10, hold_at=SIZE // 2, gate=gate),
        "short": Fault(truncate_at=SIZE // 2 + 10, hold_at=SIZE // 2, gate=gate),
    }[damage]
    here.upstream.faults.add(fault, method="GET", path="/blobs/", times=1)
    here.upstream.faults.add(Fault(status=404), method="GET", path="/blobs/", times=None)
    answers = [here.opened(path) for _ in range(4)]
    for answer in answers:
        assert answer.length == SIZE
        assert len(read(answer, 1000)) == 1000
    gate.release()
    for answer in answers:
        assert 1000 + len(rest(answer)) <= SIZE - HELD_BACK
    # What arrived may be the beginning of another try, never all of it.
    assert len(rest(here.opened(path))) <= SIZE - HELD_BACK


def test_lc_34_the_last_block_waits_for_the_digest(here: Pulling, data: bytes) -> None:
    path = here.blob(data)
    gate = Gate()
    here.upstream.faults.add(Fault(hold_at=SIZE - 1, gate=gate), method="GET", path="/blobs/")
    answer = here.opened(path)
    assert len(read(answer, SIZE - HELD_BACK)) == SIZE - HELD_BACK
    answer.fp.raw._sock.settimeout(0.2)  # type: ignore[union-attr]
    with pytest.raises(TimeoutError):
        answer.read(1)
    gate.release()


def test_lc_35_another_process_follows_the_same_download(
    here: Pulling, data: bytes, tmp_path: Path
) -> None:
    half = Half(here, data)
    first = here.opened(half.path)
    assert read(first, 1000) == data[:1000]
    process = subprocess.Popen(
        [sys.executable, "-m", "conforma", "serve", f"--upstream={here.upstream.host}",
         "--listen=127.0.0.1:0", f"--cache-dir={tmp_path / 'cache'}"],
        stdout=subprocess.PIPE, text=True, env=dict(os.environ),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", half.path)
        other = connection.getresponse()
        assert read(other, SIZE // 4) == data[: SIZE // 4], "from the partial of the first process"
        half.gate.release()
        assert read(other, SIZE) == data[SIZE // 4 :]
        assert read(first, SIZE) == data[1000:]
        assert here.downloads(data) == 1
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_lc_36_a_range_of_a_blob_in_flight_waits_for_its_bytes_only(
    here: Pulling, data: bytes
) -> None:
    half = Half(here, data)
    first = here.opened(half.path)
    assert read(first, 1) == data[:1]
    status, headers, body = here.get(half.path, headers={"Range": "bytes=1000-1999"})
    assert (status, body) == (206, data[1000:2000])
    assert headers["content-range"] == f"bytes 1000-1999/{SIZE}"
    late: list[bytes] = []
    waiting = threading.Thread(
        target=lambda: late.append(here.get(half.path, headers={"Range": f"bytes={SIZE - 10}-"})[2])
    )
    waiting.start()
    until(lambda: here.server.connections >= 2)
    assert not late
    half.gate.release()
    waiting.join(30)
    assert late == [data[-10:]]
    assert here.downloads(data) == 1


def test_upstream_sees_one_download_however_many_ask_at_once(here: Pulling, data: bytes) -> None:
    half = Half(here, data)
    bodies: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: bodies.append(here.get(half.path)[2])) for _ in range(32)
    ]
    for thread in threads:
        thread.start()
    half.gate.wait_reached()
    half.gate.release()
    for thread in threads:
        thread.join(60)
    assert len(bodies) == 32 and set(bodies) == {data}
    assert here.downloads(data) == 1


def _take(connection: socket.socket, size: int) -> Iterator[bytes]:
    received = 0
    while received < size:
        piece = connection.recv(1 << 16)
        if not piece:
            return
        received += len(piece)
        yield piece
