"""The pool: exactly as many workers as asked for, an order that does not depend on them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from conforma.cancellation import Cancellation
from conforma.errors import DeadlineExceeded, Interrupted, RegistryUnreachable
from conforma.validate.pool import in_parallel
from conforma.validate.result import ComponentResult
from conforma.validate.run import validate_snapshot
from conforma.validate.snapshot import Component

COMPONENTS = [Component(f"c{n}", f"reg.example/c{n % 7}:{n}") for n in range(20)]


def passed(component: Component) -> ComponentResult:
    return ComponentResult(component, component.container_image)


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_exactly_so_many_work_at_a_time(workers: int) -> None:
    everybody = threading.Barrier(workers)
    lock = threading.Lock()
    at_work: set[int] = set()
    most = 0

    def work(item: int) -> int:
        nonlocal most
        with lock:
            at_work.add(threading.get_ident())
            most = max(most, len(at_work))
        if item < workers:
            everybody.wait(10)  # breaks, and fails the test, unless all are there at once
        with lock:
            at_work.discard(threading.get_ident())
        return item * item

    answers = in_parallel(range(30), work, workers=workers, cancellation=Cancellation())
    assert answers == [n * n for n in range(30)]
    assert most == workers


@pytest.mark.parametrize("workers", [0, -3])
def test_there_is_always_one_worker(workers: int) -> None:
    assert in_parallel("abc", str.upper, workers=workers, cancellation=Cancellation()) == [
        "A",
        "B",
        "C",
    ]
    assert in_parallel("", str.upper, workers=workers, cancellation=Cancellation()) == []


def turned_round(count: int) -> Callable[[Component], ComponentResult]:
    """Finish in the opposite order of starting: each waits for the one after it."""
    done = {component.name: threading.Event() for component in COMPONENTS[:count]}

    def validate(component: Component) -> ComponentResult:
        number = int(component.name[1:])
        if number + 1 < count:
            assert done[f"c{number + 1}"].wait(10)
        done[component.name].set()
        return passed(component)

    return validate


def test_the_order_is_by_image_descending_and_stable() -> None:
    sequential = validate_snapshot(COMPONENTS, passed, workers=1, cancellation=Cancellation())
    reversed_ = validate_snapshot(
        COMPONENTS, turned_round(20), workers=20, cancellation=Cancellation()
    )
    assert sequential == reversed_
    images = [result.image for result in sequential]
    assert images == sorted(images, reverse=True)
    same = [Component("b", "i"), Component("a", "i")]
    results = validate_snapshot(same, passed, workers=1, cancellation=Cancellation())
    assert [r.component.name for r in results] == ["b", "a"]


def test_one_that_cannot_be_decided_hides_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def validate(component: Component) -> ComponentResult:
        if component.name == "c3":
            raise RegistryUnreachable("reg.example: down")
        if component.name == "c4":
            raise ZeroDivisionError("a bug")
        return passed(component)

    results = validate_snapshot(COMPONENTS, validate, workers=4, cancellation=Cancellation())
    by_name = {result.component.name: result for result in results}
    assert len(by_name) == 20
    errors = {name: r.error for name, r in by_name.items() if r.error is not None}
    assert errors.keys() == {"c3", "c4"}
    assert errors["c3"].message == "reg.example: down"
    assert errors["c4"].message == "internal error: ZeroDivisionError: a bug"
    assert errors["c4"].exit_status == 3
    assert by_name["c3"].success is False and by_name["c5"].success is True
    assert "internal error while validating" in caplog.text


def test_an_interruption_ends_the_run_though_a_worker_is_stuck() -> None:
    cancellation = Cancellation()
    release = threading.Event()

    def stuck(component: Component) -> ComponentResult:
        cancellation.cancel()
        release.wait(30)
        return passed(component)

    with pytest.raises(Interrupted) as caught:
        validate_snapshot(COMPONENTS, stuck, workers=2, cancellation=cancellation)
    assert caught.value.exit_status == 130
    release.set()


def test_when_time_is_up_the_rest_is_undecided() -> None:
    cancellation = Cancellation(3600, label="60m")
    release = threading.Event()

    def validate(component: Component) -> ComponentResult:
        if component.name == "c2":  # whoever is at it is done with c0
            cancellation._fire()  # as its timer does
        if component.name != "c0":
            release.wait(30)
        return passed(component)

    results = validate_snapshot(COMPONENTS[:3], validate, workers=2, cancellation=cancellation)
    release.set()
    cancellation.close()
    by_name = {result.component.name: result for result in results}
    assert by_name["c0"].error is None
    for name in ("c1", "c2"):
        error = by_name[name].error
        assert isinstance(error, DeadlineExceeded) and error.exit_status == 3
        assert error.message.startswith("exceeded allowed execution time of 60m")


def test_a_watcher_sees_every_component_begin_and_end() -> None:
    seen: list[str] = []

    class Watcher:
        def started(self, component: Component) -> None:
            seen.append(f"+{component.name}")

        def finished(self, result: ComponentResult) -> None:
            seen.append(f"-{result.component.name}")

    validate_snapshot(
        COMPONENTS[:2], passed, workers=1, cancellation=Cancellation(), watcher=Watcher()
    )
    assert seen == ["+c0", "-c0", "+c1", "-c1"]
