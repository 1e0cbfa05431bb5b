"""``summary`` and ``summary-markdown``: how often each rule spoke (specification 7.7, 7.8).

Unlike the Go tool, the summary's own ``success`` tells whether the report
succeeded; there it is always false.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from conforma import gojson
from conforma.findings import Finding
from conforma.gotext import printed, quoted
from conforma.validate.result import ComponentResult, Report


def render(report: Report) -> Iterator[str]:
    """The summary as one line of JSON."""
    members: dict[str, Any] = {}
    if report.snapshot:
        members["snapshot"] = report.snapshot
    components = [_component(result, report.show_successes) for result in report.components]
    members["components"] = components or None
    members["success"] = report.success
    members["key"] = report.key
    yield gojson.dumps(members)


def render_markdown(report: Report) -> Iterator[str]:
    """The totals as a Markdown table."""
    violations, warnings, successes = report.counts
    yield "| Field     | Value |Status|\n|-----------|-------|-------|\n"
    yield f"| Time | {report.created:%Y-%m-%d %H:%M:%S} |  |\n"
    yield f"| Successes | {successes} | {_mark(successes > 0 and violations == 0)} |\n"
    yield f"| Failures | {violations} | {_mark(violations == 0)} |\n"
    yield f"| Warnings | {warnings} | {_mark(warnings == 0)} |\n"
    if undecided := len(report.undecided):
        yield f"| Undecided | {undecided} | {_mark(False)} |\n"
    yield f"| Result |  | {_mark(report.success)} |\n"


def _mark(good: bool) -> str:
    return ":white_check_mark:" if good else ":x:"


def _component(result: ComponentResult, show_successes: bool) -> dict[str, Any]:
    members: dict[str, Any] = {
        "name": result.component.name,
        "success": result.success,
        "violations": by_code(result.violations),
        "warnings": by_code(result.warnings),
        "successes": by_code(result.successes if show_successes else ()),
        "total_violations": len(result.violations),
        "total_warnings": len(result.warnings),
        "total_successes": len(result.successes),
    }
    if result.error is not None:
        members["error"] = result.error.message
    return members


def by_code(findings: tuple[Finding, ...]) -> dict[str, list[str]]:
    """The first message of each code, whatever its type, and how many more there are.

    An empty code is none.
    """
    messages: dict[str, list[str]] = {}
    for finding in findings:
        code = finding.metadata.get("code")
        if code not in ("", None):
            messages.setdefault(printed(code), []).append(finding.message)
    return {code: _condensed(code, messages[code]) for code in sorted(messages)}


def _condensed(code: str, messages: list[str]) -> list[str]:
    first, *others = messages
    return [first, f"There are {len(others)} more {quoted(code)} messages"] if others else [first]
