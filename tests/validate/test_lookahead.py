"""What comes first for an item is done once, early where there is time, and within bounds."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from functools import partial

import pytest

from conforma.cancellation import Cancellation
from conforma.errors import Interrupted
from conforma.validate import lookahead
from conforma.validate.growth import Growth
from conforma.validate.lookahead import Lookahead

PATIENCE = 20.0


class Shop:
    """Items named by letters, and who prepared which."""

    def __init__(self, names: str, act: Callable[[str], None] = lambda _name: None) -> None:
        self.items = [f"item {name}" for name in names]
        self.act = act
        self.made: list[tuple[str, str]] = []
        self.more = threading.Condition()

    def prepare(self, item: str) -> str:
        self.act(item)
        with self.more:
            self.made.append((item, threading.current_thread().name))
            self.more.notify_all()
        return item.upper()

    def wait_for(self, count: int) -> list[tuple[str, str]]:
        with self.more:
            assert self.more.wait_for(lambda: len(self.made) >= count, PATIENCE), self.made
            return list(self.made)

    def open(
        self, *, threads: int = 1, cancellation: Cancellation | None = None
    ) -> Lookahead[str, str]:
        return Lookahead(
            self.items, self.prepare, len, cancellation or Cancellation(), threads=threads
        )


def test_later_items_are_ready_when_their_worker_comes() -> None:
    shop = Shop("abc")
    with shop.open() as ahead:
        assert ahead.take(shop.items[0]) == "ITEM A"
        made = shop.wait_for(3)  # nobody asks for b and c yet
        assert [ahead.take(item) for item in shop.items[1:]] == ["ITEM B", "ITEM C"]
    own = threading.current_thread().name
    assert made == [("item a", own), ("item b", "lookahead-0"), ("item c", "lookahead-0")]
    assert shop.made == made, "something was prepared twice"


def test_nothing_is_done_ahead_while_a_worker_prepares() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def hold_first(item: str) -> None:
        if item == "item a":
            begun.set()
            assert may_end.wait(PATIENCE)

    shop = Shop("ab", hold_first)
    with shop.open() as ahead:
        worker = threading.Thread(target=ahead.take, args=(shop.items[0],))
        worker.start()
        assert begun.wait(PATIENCE)
        assert ahead._must_wait()
        may_end.set()
        assert [item for item, _ in shop.wait_for(2)] == ["item a", "item b"]
        worker.join(PATIENCE)


def test_an_item_under_way_is_waited_for() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def hold_second(item: str) -> None:
        if item == "item b":
            begun.set()
            assert may_end.wait(PATIENCE)

    shop = Shop("ab", hold_second)
    answers: list[str] = []
    with shop.open() as ahead:
        ahead.take(shop.items[0])
        assert begun.wait(PATIENCE)
        worker = threading.Thread(target=lambda: answers.append(ahead.take(shop.items[1])))
        worker.start()
        may_end.set()
        worker.join(PATIENCE)
    assert answers == ["ITEM B"]
    assert [name for _, name in shop.made].count("lookahead-0") == 1
    assert len(shop.made) == 2, "the worker did it again"


@pytest.mark.parametrize(("items", "size"), [(2, 1 << 30), (64, 12)])
def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch, items: int, size: int) -> None:
    monkeypatch.setattr(lookahead, "_MOST_ITEMS", items)
    monkeypatch.setattr(lookahead, "_MOST_BYTES", size)
    shop = Shop("abcdef")
    with shop.open() as ahead:
        ahead.take(shop.items[0])
        shop.wait_for(3)  # b and c: two items, of six bytes each
        with ahead._changed:
            assert ahead._must_wait()
        assert len(shop.made) == 3
        ahead.take(shop.items[1])
        assert [item for item, _ in shop.wait_for(4)][-1] == "item d"


def test_an_error_reaches_the_worker_of_its_item() -> None:
    def fail(item: str) -> None:
        if item == "item b":
            raise LookupError("no evidence for b")

    shop = Shop("abc", fail)
    with shop.open() as ahead:
        ahead.take(shop.items[0])
        assert [item for item, _ in shop.wait_for(2)] == ["item a", "item c"]
        with pytest.raises(LookupError, match="no evidence for b"):
            ahead.take(shop.items[1])
        assert ahead.take(shop.items[2]) == "ITEM C"


class Worker(threading.Thread):
    """Takes one item and keeps what it got."""

    def __init__(self, ahead: Lookahead[str, str], item: str) -> None:
        super().__init__(daemon=True)
        self._ahead, self._item = ahead, item
        self.answer = ""
        self.start()

    def run(self) -> None:
        self.answer = self._ahead.take(self._item)


def test_one_worker_prepares_at_first_and_more_when_it_mostly_waits() -> None:
    begun, may_end = threading.Semaphore(0), threading.Event()

    def wait_for_a_registry(_item: str) -> None:
        begun.release()
        assert may_end.wait(PATIENCE)

    shop = Shop("abcdefgh", wait_for_a_registry)
    with shop.open(threads=0) as ahead:
        workers = [Worker(ahead, shop.items[0])]
        assert begun.acquire(timeout=PATIENCE)
        with ahead._changed:
            assert ahead._preparing == 1
        workers += [Worker(ahead, item) for item in shop.items[1:]]
        for _ in shop.items[1:]:
            assert begun.acquire(timeout=PATIENCE), "those that wait for an answer stay too few"
        may_end.set()
        for worker in workers:
            worker.join(PATIENCE)
    assert [worker.answer for worker in workers] == [item.upper() for item in shop.items]


def test_while_the_processor_is_busy_workers_prepare_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = threading.Semaphore(0)
    seconds = itertools.count()

    def used() -> float:
        """As if we had been busy all the time, whatever this machine is doing."""
        looked.release()
        return 1000.0 * next(seconds)

    monkeypatch.setattr(lookahead, "Growth", partial(Growth, used=used))
    begun, enough = threading.Semaphore(0), threading.Event()
    together: list[int] = []

    def work(_item: str) -> None:
        with ahead._changed:
            together.append(ahead._preparing)
        begun.release()
        assert enough.wait(PATIENCE)

    shop = Shop("abc", work)
    with shop.open(threads=0) as ahead:
        workers = [Worker(ahead, shop.items[0])]
        assert begun.acquire(timeout=PATIENCE)
        workers += [Worker(ahead, item) for item in shop.items[1:]]
        for _ in range(4):
            assert looked.acquire(timeout=PATIENCE), "nobody looked whether more would be better"
        assert not begun.acquire(blocking=False), "a second one began"
        enough.set()
        for worker in workers:
            worker.join(PATIENCE)
    assert together == [1, 1, 1]


def test_a_worker_that_waits_for_its_turn_learns_that_the_run_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = itertools.count()
    monkeypatch.setattr(lookahead, "Growth", partial(Growth, used=lambda: 1000.0 * next(looks)))
    cancellation = Cancellation()
    begun, may_end = threading.Event(), threading.Event()

    def hold_first(item: str) -> None:
        if item == "item a":
            begun.set()
            assert may_end.wait(PATIENCE)
        else:
            cancellation.raise_if_cancelled()

    shop = Shop("ab", hold_first)
    with shop.open(threads=0, cancellation=cancellation) as ahead:
        first = Worker(ahead, shop.items[0])
        assert begun.wait(PATIENCE)
        threading.Timer(0, cancellation.cancel).start()
        with pytest.raises(Interrupted):
            ahead.take(shop.items[1])
        may_end.set()
        first.join(PATIENCE)
    assert first.answer == "ITEM A", "it was held until patience ran out"


def test_without_threads_workers_do_it_themselves() -> None:
    shop = Shop("ab")
    with shop.open(threads=0) as ahead:
        assert [ahead.take(item) for item in shop.items] == ["ITEM A", "ITEM B"]
    assert {name for _, name in shop.made} == {threading.current_thread().name}


def test_a_run_that_is_stopped_begins_nothing_more() -> None:
    begun, may_end = threading.Event(), threading.Event()
    cancellation = Cancellation()

    def until_stopped(item: str) -> None:
        if item == "item b":
            begun.set()
            assert may_end.wait(PATIENCE)
            cancellation.raise_if_cancelled()

    shop = Shop("abcd", until_stopped)
    with shop.open(cancellation=cancellation) as ahead:
        ahead.take(shop.items[0])
        assert begun.wait(PATIENCE)
        cancellation.cancel()
        may_end.set()
        with pytest.raises(Interrupted):
            ahead.take(shop.items[1])
    assert [item for item, _ in shop.made] == ["item a"]
