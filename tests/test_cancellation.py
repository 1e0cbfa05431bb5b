"""Everybody who asked to be told of the end is told."""

from __future__ import annotations

import threading

import pytest

from conforma.cancellation import Cancellation
from conforma.errors import Interrupted


def test_a_callback_that_fails_does_not_keep_the_others_from_being_called() -> None:
    cancellation = Cancellation()
    called: list[str] = []

    def failing(reason: str) -> None:
        called.append(reason)
        raise OSError(reason)

    cancellation.on_cancel(lambda: failing("first"))
    cancellation.on_cancel(lambda: called.append("second"))
    cancellation.on_cancel(lambda: failing("third"))
    with pytest.raises(OSError, match="first"):
        cancellation.cancel()
    assert called == ["first", "second", "third"]
    cancellation.cancel()
    assert called == ["first", "second", "third"], "each is called once"
    with pytest.raises(Interrupted):
        cancellation.raise_if_cancelled()


def test_who_comes_late_is_called_at_once_and_who_left_never() -> None:
    cancellation = Cancellation()
    called: list[str] = []
    leave = cancellation.on_cancel(lambda: called.append("left"))
    leave()
    cancellation.cancel()
    cancellation.on_cancel(lambda: called.append("late"))
    assert called == ["late"]


def test_the_deadline_calls_too() -> None:
    called = threading.Event()
    cancellation = Cancellation(0.001)
    cancellation.on_cancel(called.set)
    assert called.wait(30)
    assert cancellation.cancelled
