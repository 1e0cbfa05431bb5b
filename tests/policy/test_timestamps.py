"""Notations of time that decide verdicts."""

from datetime import UTC, datetime, timedelta

import pytest

from conforma.policy.timestamps import (
    parse_date,
    parse_effective_on,
    parse_moment,
    parse_rfc3339,
)

NOON = datetime(2025, 7, 20, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-07-20T12:00:00Z", NOON),
        ("2025-07-20T12:00:00.5Z", NOON + timedelta(milliseconds=500)),
        ("2025-07-20T12:00:00,25Z", NOON + timedelta(milliseconds=250)),
        ("2025-07-20T12:00:00.123456789Z", NOON + timedelta(microseconds=123456)),
        ("2025-07-20T14:30:00+02:30", NOON),
        ("2025-07-20T10:00:00-02:00", NOON),
        ("2025-07-20T9:00:00Z", NOON - timedelta(hours=3)),
        ("2025-07-20", None),
        ("2025-07-20T12:00:00", None),
        ("2025-07-20t12:00:00z", None),
        ("2025-07-20T12:00:60Z", None),
        ("2025-02-29T12:00:00Z", None),
        ("2025-07-20T12:00:00+25:00", None),
        ("0001-01-01T00:00:00+01:00", None),
        (" 2025-07-20T12:00:00Z", None),
        ("٢025-07-20T12:00:00Z", None),
        ("", None),
    ],
)
def test_rfc3339(text: str, expected: datetime | None) -> None:
    assert parse_rfc3339(text) == expected


def test_a_date_is_midnight_utc() -> None:
    assert parse_date("2025-07-20") == datetime(2025, 7, 20, tzinfo=UTC)
    assert parse_date("2025-7-20") is None
    assert parse_date("2025-02-30") is None


def test_volatile_configuration_takes_both_notations() -> None:
    assert parse_moment("2025-07-20T12:00:00Z") == NOON
    assert parse_moment("2025-07-20") == NOON - timedelta(hours=12)
    assert parse_moment("tomorrow") is None


def test_effective_on_takes_utc_only() -> None:
    assert parse_effective_on("2025-07-20T12:00:00Z") == NOON
    assert parse_effective_on("2025-07-20T12:00:00+00:00") is None
    assert parse_effective_on("2025-07-20") is None
