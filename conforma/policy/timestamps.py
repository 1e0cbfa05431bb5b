"""Points in time as policies and attestations write them, read as Go reads them.

Three notations decide verdicts: RFC 3339, a plain date (midnight UTC), and the
narrow UTC form of ``effective_on``. Everything here is exact to the
microsecond; further digits of a fraction are cut off.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d{1,2}):(\d\d):(\d\d)(?:[.,](\d+))?(Z|[+-]\d\d:\d\d)", re.ASCII
)
_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)", re.ASCII)


def parse_rfc3339(text: str) -> datetime | None:
    """The moment in UTC, or ``None`` if the text is no RFC 3339 timestamp."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    microsecond = int(((fraction or "") + "000000")[:6])
    try:
        local = datetime(
            int(year), int(month), int(day), int(hour), int(minute), int(second), microsecond, UTC
        )
        return local - _offset(zone)
    except (ValueError, OverflowError):
        return None


def parse_date(text: str) -> datetime | None:
    """Midnight UTC of a ``YYYY-MM-DD`` date, or ``None`` if the text is none."""
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    try:
        return datetime(int(match[1]), int(match[2]), int(match[3]), tzinfo=UTC)
    except ValueError:
        return None


def parse_moment(text: str) -> datetime | None:
    """RFC 3339 or a date: the notation of volatile configuration (section 4.5)."""
    return parse_rfc3339(text) or parse_date(text)


def parse_effective_on(text: str) -> datetime | None:
    """The notation of ``effective_on`` (section 4.4): RFC 3339 with ``Z`` for the zone only."""
    return parse_rfc3339(text) if text.endswith("Z") else None


def _offset(zone: str) -> timedelta:
    if zone == "Z":
        return timedelta()
    hours, minutes = int(zone[1:3]), int(zone[4:6])
    if hours > 24 or minutes > 60:  # the bounds Go accepts
        raise ValueError(zone)
    offset = timedelta(hours=hours, minutes=minutes)
    return -offset if zone[0] == "-" else offset
