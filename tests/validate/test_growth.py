"""Threads for questions: more where a server makes us wait, few where we are what takes time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from conforma.cancellation import Cancellation
from conforma.oci import media_types
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry, RegistryOptions
from conforma.serve.faults import Fault, Gate
from conforma.serve.registry import RegistryServer
from conforma.validate.growth import Growth
from conforma.validate.pool import in_parallel

COUNT = 12


def clock(*moments: float) -> Callable[[], float]:
    return iter(moments).__next__


@pytest.mark.parametrize(
    ("busy", "running", "wanted"),
    [
        (0.0, 1, 4),  # nothing but waiting: no more than four times as many at once
        (0.05, 4, 16),
        (0.5, 1, 4),  # a server next door
        (0.6, 2, 6),
        (0.69, 8, 14),
        (0.7, 1, 1),
        (1.0, 4, 4),
        (1.8, 16, 16),  # processor time without the interpreter's lock counts as well
    ],
)
def test_threads_that_wait_bring_more_of_them(busy: float, running: int, wanted: int) -> None:
    growth = Growth(clock(5.0, 7.0), clock(1.0, 1.0 + 2 * busy))
    assert growth.wanted(running) == wanted


def test_each_look_judges_what_happened_since_the_one_before() -> None:
    growth = Growth(clock(0.0, 1.0, 2.0, 3.0), clock(0.0, 1.0, 1.0, 2.0))
    assert [growth.wanted(3), growth.wanted(3), growth.wanted(12)] == [3, 12, 12]


def test_looks_get_rarer_until_there_is_nothing_but_waiting() -> None:
    used = [0.0, 1.0, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 6.5]
    growth = Growth(clock(*map(float, range(9))), clock(*used))
    pauses = [growth.pause]
    for _ in used[1:]:
        growth.wanted(1)
        pauses.append(growth.pause)
    assert pauses == [0.005, 0.01, 0.02, 0.04, 0.08, 0.1, 0.1, 0.1, 0.005]


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    raw = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    with RegistryServer() as running:
        for number in range(COUNT + 1):
            running.store.repository("app").put_manifest(
                raw, media_types.OCI_INDEX, tag=f"t{number}"
            )
        yield running
        running.faults.clear()


@pytest.fixture
def registry(server: RegistryServer) -> Iterator[Registry]:
    cancellation = Cancellation()
    options = RegistryOptions(environment={}, small_requests=COUNT)
    with Registry(options, cancellation) as made:
        made.head(Reference.parse(f"{server.host}/app:t{COUNT}"))  # the first one goes alone
        server.log.settled()
        server.log.clear()
        yield made


def held(server: RegistryServer) -> list[Gate]:
    """A gate before the answer to each question, in the order in which they come."""
    gates = [Gate() for _ in range(COUNT)]
    for gate in gates:
        server.faults.add(Fault(hang=gate))
    return gates


def test_a_server_that_makes_us_wait_is_asked_everything_at_once(
    server: RegistryServer, registry: Registry
) -> None:
    references = [Reference.parse(f"{server.host}/app:t{n}") for n in range(COUNT)]
    gates = held(server)
    with ThreadPoolExecutor(1) as beside:
        answers = beside.submit(
            in_parallel,
            references,
            registry.head,
            workers=COUNT,
            cancellation=Cancellation(),
            growth=Growth(),
        )
        for gate in gates:
            gate.wait_reached()  # although nothing was answered yet
        for gate in gates:
            gate.release()
        assert len({answer.digest for answer in answers.result(10)}) == 1
    assert server.log.peak == COUNT


def test_there_is_one_thread_while_the_processor_is_busy_and_more_once_it_waits(
    server: RegistryServer, registry: Registry
) -> None:
    references = [Reference.parse(f"{server.host}/app:t{n}") for n in range(COUNT)]
    gates = held(server)
    busy = threading.Event()
    busy.set()
    looked = threading.Semaphore(0)
    clocks = [0.0, 0.0]

    def now() -> float:
        looked.release()
        clocks[0] += 1.0
        return clocks[0]

    def used() -> float:
        clocks[1] += 1.0 if busy.is_set() else 0.0
        return clocks[1]

    with ThreadPoolExecutor(1) as beside:
        answers = beside.submit(
            in_parallel,
            references,
            registry.head,
            workers=COUNT,
            cancellation=Cancellation(),
            growth=Growth(now, used),
        )
        gates[0].wait_reached()
        for _ in range(5):  # the clock was read when it was made and for four looks
            assert looked.acquire(timeout=10)
        assert server.log.peak == 1
        busy.clear()
        for gate in gates:
            gate.wait_reached()
        for gate in gates:
            gate.release()
        assert not any(isinstance(answer, Exception) for answer in answers.result(10))
    assert server.log.peak == COUNT


def test_no_more_threads_than_allowed_or_than_there_is_work() -> None:
    together = threading.Barrier(3)
    names: set[str] = set()

    def work(_: int) -> None:
        names.add(threading.current_thread().name)
        together.wait(10)  # breaks unless three are there at once

    never_busy = Growth(used=lambda: 0.0)
    for items, workers in ((6, 3), (3, 50)):
        outcome = in_parallel(
            range(items), work, workers=workers, cancellation=Cancellation(), growth=never_busy
        )
        assert outcome == [None] * items
    assert names == {"worker-0", "worker-1", "worker-2"}
