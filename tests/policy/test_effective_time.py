"""The moment a component is judged at."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conforma.errors import InputError
from conforma.gotext import rfc3339
from conforma.policy.effective_time import (
    EffectiveTime,
    build_finished,
    nanoseconds,
    rfc3339_nano,
)

NOW = datetime(2026, 3, 4, 5, 6, 7, 890_100, UTC)


def v02(finished: Any) -> dict[str, Any]:
    return {"predicate": {"metadata": {"buildFinishedOn": finished}}}


def v1(finished: Any) -> dict[str, Any]:
    return {"predicate": {"runDetails": {"metadata": {"finishedOn": finished}}}}


@pytest.mark.parametrize("text", ["now", "NOW"])
def test_now_is_one_moment_for_the_whole_run(text: str) -> None:
    time = EffectiveTime.parse(text, now=NOW)
    assert time.for_component([v02("2020-01-01T00:00:00Z")]) == NOW
    assert time.for_report([]) == NOW


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-04T05:06:08Z", datetime(2026, 3, 4, 5, 6, 8, tzinfo=UTC)),
        ("2026-03-05T01:00:00+02:00", datetime(2026, 3, 4, 23, tzinfo=UTC)),
        ("2030-01-01", datetime(2030, 1, 1, tzinfo=UTC)),
        ("2026-03-04T05:06:05.9Z", NOW - timedelta(microseconds=1_990_100)),
    ],
)
def test_a_time_given_counts_for_every_component(text: str, moment: datetime) -> None:
    time = EffectiveTime.parse(text, now=NOW)
    assert time.for_component([v02("2020-01-01T00:00:00Z")]) == moment
    assert time.for_report([NOW]) == moment


def test_the_past_must_be_asked_for() -> None:
    with pytest.raises(InputError) as caught:
        EffectiveTime.parse("2020-01-01", now=NOW)
    assert caught.value.message == (
        "effective time 2020-01-01T00:00:00Z is in the past; "
        "use --allow-past-effective-time to override"
    )
    time = EffectiveTime.parse("2020-01-01", allow_past=True, now=NOW)
    assert time.moment == datetime(2020, 1, 1, tzinfo=UTC)


def test_two_seconds_of_clock_skew_are_not_the_past() -> None:
    assert EffectiveTime.parse("2026-03-04T05:06:06Z", now=NOW).kind == "given"
    with pytest.raises(InputError, match="is in the past"):
        EffectiveTime.parse("2026-03-04T05:06:05Z", now=NOW)


def test_todays_date_is_not_in_the_past() -> None:
    assert EffectiveTime.parse("2026-03-04", now=NOW).moment == datetime(2026, 3, 4, tzinfo=UTC)
    with pytest.raises(InputError, match="is in the past"):
        EffectiveTime.parse("2026-03-04T00:00:00Z", now=NOW)


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        (
            "tomorrow",
            'parsing time "tomorrow" as "2006-01-02T15:04:05Z07:00": cannot parse "tomorrow" as "2006"',
            'parsing time "tomorrow" as "2006-01-02": cannot parse "tomorrow" as "2006"',
        ),
        (
            "2026-13-01",
            'parsing time "2026-13-01": month out of range',
            'parsing time "2026-13-01": month out of range',
        ),
        (
            "2026-02-30",
            'parsing time "2026-02-30" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T"',
            'parsing time "2026-02-30": day out of range',
        ),
        (
            "2026-02-03T10:11",
            'parsing time "2026-02-03T10:11" as "2006-01-02T15:04:05Z07:00": cannot parse "" as ":"',
            'parsing time "2026-02-03T10:11": extra text: "T10:11"',
        ),
        (
            "2026-02-03T10:11:60Z",
            'parsing time "2026-02-03T10:11:60Z": second out of range',
            'parsing time "2026-02-03T10:11:60Z": extra text: "T10:11:60Z"',
        ),
        (
            "2026-02-03T10:11:12+25:00",
            'parsing time "2026-02-03T10:11:12+25:00": time zone offset hour out of range',
            'parsing time "2026-02-03T10:11:12+25:00": extra text: "T10:11:12+25:00"',
        ),
        (
            'é"\n',
            r'parsing time "\xc3\xa9\"\x0a" as "2006-01-02T15:04:05Z07:00": cannot parse "\xc3\xa9\"\x0a" as "2006"',
            r'parsing time "\xc3\xa9\"\x0a" as "2006-01-02": cannot parse "\xc3\xa9\"\x0a" as "2006"',
        ),
        (
            "",
            'parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006"',
            'parsing time "" as "2006-01-02": cannot parse "" as "2006"',
        ),
    ],
)
def test_garbage_is_explained_twice_as_go_does(text: str, first: str, second: str) -> None:
    with pytest.raises(InputError) as caught:
        EffectiveTime.parse(text, now=NOW)
    assert caught.value.message == f"invalid policy time argument: {first}\n{second}"
    assert caught.value.hint


def test_attestation_time_is_each_components_own() -> None:
    time = EffectiveTime.parse("Attestation", now=NOW)
    older = time.for_component([v02("2024-01-01T00:00:00Z"), v1("2024-02-01T00:00:00Z"), v02(3)])
    newer = time.for_component([v02("2025-01-01T00:00:00Z"), v02("2023-01-01T00:00:00Z")])
    none = time.for_component([v02("yesterday"), {"predicate": "x"}, {}])
    assert (older, newer, none) == (
        datetime(2024, 2, 1, tzinfo=UTC),
        datetime(2025, 1, 1, tzinfo=UTC),
        NOW,
    )
    assert time.for_report([older, newer]) == newer
    assert time.for_report([]) == NOW


def test_the_end_of_a_build_is_read_from_either_provenance() -> None:
    moment = datetime(2024, 2, 1, 2, 3, 4, 500_000, UTC)
    assert build_finished(v02("2024-02-01T02:03:04.5Z")) == moment
    assert build_finished(v1("2024-02-01T04:03:04.5+02:00")) == moment
    assert build_finished({"predicate": {"metadata": ["buildFinishedOn"]}}) is None


def test_moments_print_as_go_prints_them() -> None:
    assert rfc3339(NOW) == "2026-03-04T05:06:07Z"
    assert rfc3339_nano(NOW) == "2026-03-04T05:06:07.8901Z"
    assert rfc3339_nano(NOW.replace(microsecond=0)) == "2026-03-04T05:06:07Z"
    assert nanoseconds(NOW) == 1_772_600_767_890_100_000
