"""``appstudio``: the totals as a Tekton task result, one line of JSON (specification 7.5)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from conforma import gojson
from conforma.validate.result import Report


def render(report: Report) -> Iterator[str]:
    """The text of the report."""
    yield totals(report.counts, report.outcome, report.created)


def totals(counts: tuple[int, int, int], outcome: str, created: datetime) -> str:
    """The result for so many violations, warnings and successes."""
    violations, warnings, successes = counts
    return gojson.dumps(
        {
            "timestamp": str(int(created.timestamp())),
            "namespace": "",
            "successes": successes,
            "failures": violations,
            "warnings": warnings,
            "result": outcome,
        }
    )
