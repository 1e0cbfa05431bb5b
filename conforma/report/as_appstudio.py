"""``appstudio``: the totals as a Tekton task result, one line of JSON (specification 7.5)."""

from __future__ import annotations

from collections.abc import Iterator

from conforma import gojson
from conforma.validate.result import Report


def render(report: Report) -> Iterator[str]:
    """The text of the report."""
    violations, warnings, successes = report.counts
    yield gojson.dumps(
        {
            "timestamp": str(int(report.created.timestamp())),
            "namespace": "",
            "successes": successes,
            "failures": violations,
            "warnings": warnings,
            "result": report.outcome,
        }
    )
