from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conforma.oci.retry import RetryPolicy, retry_after

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("2", 2.0),
        (" 0 ", 0.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("²", None),
        ("Fri, 02 Jan 2026 03:04:15 GMT", 10.0),
        ("Fri, 02 Jan 2026 03:04:15", 10.0),
        ("Fri, 02 Jan 2026 03:00:00 GMT", 0.0),
        ("9" * 50, 999999999.0),
    ],
)
def test_retry_after_is_read_in_both_forms(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


@given(st.integers(1, 50), st.floats(0, 1))
def test_pauses_grow_up_to_their_cap_and_are_never_shorter_than_promised(
    failures: int, jitter: float
) -> None:
    policy = RetryPolicy(max_wait=3.0, duration=1.0, factor=2.0, jitter=jitter)
    pause = policy.pause(failures)
    least = min(3.0, 2.0 ** (failures - 1))
    assert least <= pause <= min(3.0, least * (1 + jitter)) + 1e-9


def test_an_outage_gets_fewer_attempts_than_a_registry_that_asks_for_patience() -> None:
    assert RetryPolicy(max_retry=3).attempts(throttled=True) == 4
    assert RetryPolicy(max_retry=3).attempts(throttled=False) == 3
    assert RetryPolicy(max_retry=0).attempts(throttled=False) == 1
    assert RetryPolicy(max_retry=-1).attempts(throttled=True) == 1
