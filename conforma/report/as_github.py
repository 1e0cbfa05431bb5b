"""``github``: annotations for GitHub Actions, one workflow command a line.

GitHub shows only the first ten errors and ten warnings of a step, so that a
notice with the totals comes first, then what could not be decided, then
violations before warnings. Nothing in a message can start a command of its
own: the characters that could are escaped, those that a terminal would obey
are shown, and what GitHub would cut off of a long message is cut off here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from conforma.findings import Finding
from conforma.report.rule_texts import RuleText
from conforma.report.wrapping import harmless, shortened
from conforma.validate.result import ComponentResult, Report

# The runner forwards no more than this many characters of a message.
_LONGEST: Final = 4096
_LONGEST_TITLE: Final = 200
_ROOM_FOR_THE_REST: Final = 1024

Level = Literal["error", "warning", "notice"]


def render(report: Report, *, show_warnings: bool) -> Iterator[str]:
    """The text of the report in pieces of one annotation."""
    violations, warnings, successes = report.counts
    undecided = f"Undecided: {len(report.undecided)}, " if report.undecided else ""
    yield _command(
        "notice",
        f"conforma: {report.outcome}",
        f"{undecided}Violations: {violations}, Warnings: {warnings}, Successes: {successes}",
    )
    for result in report.undecided:
        assert result.error is not None
        hint = f"\n{result.error.hint}" if result.error.hint else ""
        title = f"Could not be decided: {result.component.name}"
        yield _command("error", title, f"{_where(result)}\n{result.error.message}{hint}")
    for result in report.components:
        for violation in result.violations:
            yield _finding("error", result, violation)
    if show_warnings:
        for result in report.components:
            for warning in result.warnings:
                yield _finding("warning", result, warning)


def _finding(level: Level, result: ComponentResult, finding: Finding) -> str:
    rule = RuleText.of(finding)
    code = f" ({rule.code})" if rule.title and rule.code else ""
    lines = [shortened(finding.message, _LONGEST - _ROOM_FOR_THE_REST), _where(result)]
    if rule.solution:
        lines.append(f"Solution: {rule.solution}")
    return _command(level, f"{rule.title or rule.code or 'conforma'}{code}", "\n".join(lines))


def _where(result: ComponentResult) -> str:
    return f"Component {result.component.name}, image {result.image}"


def _command(level: Level, title: str, message: str) -> str:
    name = _data(shortened(title, _LONGEST_TITLE)).replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={name}::{_data(shortened(message, _LONGEST))}\n"


def _data(text: str) -> str:
    """Text as a command carries it: only its own line can be a command."""
    return harmless(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
