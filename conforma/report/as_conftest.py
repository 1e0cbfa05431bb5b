"""What ``conforma test`` prints: Conftest's formats, and the Tekton result ``appstudio``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from conforma import gojson
from conforma.findings import Finding
from conforma.policy.conftest import Checked
from conforma.report.wrapping import harmless, harmless_line

_COLOURS: Final = {"WARN": "33", "FAIL": "31", "EXCP": "36", "?": "37"}


def as_json(results: Sequence[Checked], _color: bool, _exceptions: bool) -> str:
    """Everything, indented with tabs."""
    return gojson.dumps([_members(result) for result in results], indent="\t") + "\n"


def _place(result: Checked) -> str:
    """The file, unless it was standard input, and the namespace."""
    return harmless_line(
        f"{result.filename} - {result.namespace}" if result.filename else f"- {result.namespace}"
    )


def as_text(results: Sequence[Checked], color: bool, exceptions: bool) -> str:
    """A line for each result that is no success, and the totals.

    Those that are ``exceptions`` may only be counted.
    """
    lines = []
    for result in results:
        place = _place(result)
        if not _count(result):
            lines.append(f"{_word('?', color)} - {place} - no policies found")
        lines += (
            f"{_word(word, color)} - {place} - {harmless(f.message)}"
            for word, f in _told(result)
            if exceptions or word != "EXCP"
        )
    total, passed = sum(map(_count, results)), sum(result.successes for result in results)
    warned = sum(len(result.warnings) for result in results)
    failed = sum(len(result.failures) for result in results)
    excepted = sum(len(result.exceptions) for result in results)
    lines += [
        "",
        f"{_number(total, 'test')}, {passed} passed, {_number(warned, 'warning')}, "
        f"{_number(failed, 'failure')}, {_number(excepted, 'exception')}",
    ]
    return "".join(f"{line}\n" for line in lines)


def as_tap(results: Sequence[Checked], _color: bool, _exceptions: bool) -> str:
    """The Test Anything Protocol."""
    lines = [f"1..{sum(map(_count, results))}"]
    number = 0
    for result in results:
        place = _place(result)
        for title, word, found in (
            ("", "not ok", result.failures),
            ("# warnings", "not ok", result.warnings),
            ("# exceptions", "ok", result.exceptions),
        ):
            lines += [title] if title and found else []
            for finding in found:
                number += 1
                lines.append(f"{word} {number} - {place} - {harmless_line(finding.message)}")
        lines += ["# successes"] if result.successes else []
        for _ in range(result.successes):
            number += 1
            lines.append(f"ok {number} - {place} - SUCCESS")
    return "".join(f"{line}\n" for line in lines)


def appstudio(results: Sequence[Checked], namespace: str, seconds: int) -> str:
    """The result of a Tekton task; ``seconds`` since 1970."""
    failures = sum(len(result.failures) for result in results)
    warnings = sum(len(result.warnings) for result in results)
    successes = sum(result.successes for result in results)
    outcome, note = "SUCCESS", "All checks passed successfully"
    if failures:
        outcome, note = "FAILURE", "Failures detected"
    elif warnings:
        outcome, note = "WARNING", "Warnings detected"
    elif not successes:
        outcome, note = "SKIPPED", "All checks were skipped"
    return _task_result(seconds, namespace, successes, failures, warnings, outcome, note)


def appstudio_error(message: str, seconds: int) -> str:
    """The same for a run that ended in an error."""
    return _task_result(seconds, "", 0, 0, 0, "ERROR", f"Error: {message}")


FORMATS: Final[Mapping[str, Callable[[Sequence[Checked], bool, bool], str]]] = {
    "json": as_json,
    "stdout": as_text,
    "tap": as_tap,
}


def _task_result(
    seconds: int,
    namespace: str,
    successes: int,
    failures: int,
    warnings: int,
    outcome: str,
    note: str,
) -> str:
    return gojson.dumps(
        {
            "timestamp": str(seconds),
            "namespace": namespace,
            "successes": successes,
            "failures": failures,
            "warnings": warnings,
            "result": outcome,
            "note": note,
        }
    )


def _members(result: Checked) -> dict[str, Any]:
    listed = {
        "warnings": result.warnings,
        "failures": result.failures,
        "exceptions": result.exceptions,
    }
    return {
        "filename": result.filename,
        "namespace": result.namespace,
        "successes": result.successes,
        **{name: [_finding(f) for f in found] for name, found in listed.items() if found},
    }


def _finding(finding: Finding) -> dict[str, Any]:
    members: dict[str, Any] = {"msg": finding.message}
    if finding.metadata:
        members["metadata"] = dict(sorted(finding.metadata.items()))
    return members


def _told(result: Checked) -> Iterator[tuple[str, Finding]]:
    for word, found in (
        ("WARN", result.warnings),
        ("FAIL", result.failures),
        ("EXCP", result.exceptions),
    ):
        yield from ((word, finding) for finding in found)


def _count(result: Checked) -> int:
    found = (result.warnings, result.failures, result.exceptions)
    return result.successes + sum(map(len, found))


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _word(word: str, color: bool) -> str:
    return f"\x1b[{_COLOURS[word]}m{word}\x1b[0m" if color else word
