"""The report of ``validate input`` in its formats (commands.md 6).

A document of its own, with ``filepaths`` instead of ``components``. As with
images, ``summary`` says whether the report succeeded and what stands behind
``?`` acts on ``text`` only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from conforma import gojson
from conforma.findings import Finding
from conforma.report import as_appstudio, as_text, as_yaml
from conforma.report.as_summary import by_code
from conforma.report.document import finding
from conforma.report.formats import Options
from conforma.report.wrapping import harmless_line
from conforma.validate.input_result import InputReport, InputResult


def render(report: InputReport, name: str, options: Options) -> Iterator[str]:
    """The report in the format called ``name`` (a key of ``FORMATS``), piece by piece."""
    return FORMATS[name](report, options)


def _members(report: InputReport) -> dict[str, Any]:
    return {
        "success": report.success,
        "filepaths": [_input(report, result) for result in report.inputs],
        "policy": report.policy,
        "ec-version": report.version,
        "effective-time": report.effective_time,
    }


def _input(report: InputReport, result: InputResult) -> dict[str, Any]:
    """One element of ``filepaths``: what is not shown is ``null``, what is not there is empty."""
    found = result.findings
    return {
        "filepath": result.path,
        "violations": [finding(item) for item in found.violations],
        "warnings": [finding(item) for item in found.warnings] if report.show_warnings else None,
        "successes": [finding(item) for item in found.successes] if report.show_successes else None,
        "success": result.success,
        "success-count": len(found.successes),
    }


def _json(report: InputReport, _: Options) -> Iterator[str]:
    yield gojson.dumps(_members(report))


def _yaml(report: InputReport, _: Options) -> Iterator[str]:
    return as_yaml.mapping(_members(report))


def _summary(report: InputReport, _: Options) -> Iterator[str]:
    inputs = []
    for result in report.inputs:
        found = result.findings
        warnings = found.warnings if report.show_warnings else ()
        inputs.append(
            {
                "name": result.path,
                "success": result.success,
                "violations": by_code(found.violations),
                "warnings": by_code(warnings),
                "successes": by_code(found.successes if report.show_successes else ()),
                "total_violations": len(found.violations),
                "total_warnings": len(warnings),
                "total_successes": len(found.successes),
            }
        )
    yield gojson.dumps({"filepaths": inputs, "success": report.success, "key": ""})


def _appstudio(report: InputReport, _: Options) -> Iterator[str]:
    yield as_appstudio.totals(report.counts, report.outcome, report.created)


def _text(report: InputReport, options: Options) -> Iterator[str]:
    violations, warnings, successes = report.counts
    if not options.show_warnings:
        warnings = 0
    outcome = "SUCCESS" if report.outcome == "WARNING" and not warnings else report.outcome
    yield f"Success: {'true' if report.success else 'false'}\n"
    yield f"Result: {outcome}\n"
    yield f"Violations: {violations}, Warnings: {warnings}, Successes: {successes}\n"
    yield from _inputs(report.inputs, options)
    if violations or warnings or (successes and options.show_successes):
        yield "Results:\n"
        yield from _blocks("Violation", report, lambda r: r.findings.violations, options)
        if warnings:
            yield from _blocks("Warning", report, lambda r: r.findings.warnings, options)
        if options.show_successes:
            yield from _blocks("Success", report, lambda r: r.findings.successes, options)
    if options.show_policy_docs_link and (violations or warnings):
        yield as_text.DOCS


def _inputs(results: tuple[InputResult, ...], options: Options) -> Iterator[str]:
    if len(results) == 1:
        yield f"Input File: {harmless_line(results[0].path)}\n\n"
        return
    yield "\nInput Files:\n"
    for result in results:
        found = result.findings
        warnings = len(found.warnings) if options.show_warnings else 0
        yield (
            f"- FilePath: {harmless_line(result.path)}\n"
            f"  Violations: {len(found.violations)}, Warnings: {warnings}, "
            f"Successes: {len(found.successes)}\n\n"
        )


def _blocks(
    kind: as_text.Kind,
    report: InputReport,
    findings: Callable[[InputResult], Iterable[Finding]],
    options: Options,
) -> Iterator[str]:
    for result in report.inputs:
        for item in findings(result):
            yield as_text.block(kind, f"FilePath: {result.path}", item, options.color)


FORMATS: Final[Mapping[str, Callable[[InputReport, Options], Iterator[str]]]] = {
    "appstudio": _appstudio,
    "json": _json,
    "summary": _summary,
    "text": _text,
    "yaml": _yaml,
}
