"""``text``: the report for people (specification section 7.4).

The layout is part of the contract. What the Go tool does not have: a finding
without a code shows its kind alone, components that could not be decided come
first with their error, the last line says what the layer cache saved, and
nothing in a message can command the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Literal

from conforma.cache.stats import CacheStats
from conforma.findings import Finding
from conforma.gotext import printed
from conforma.report import document
from conforma.report.wrapping import harmless, harmless_line, wrapped
from conforma.validate.result import ComponentResult, Report

Kind = Literal["Undecided", "Violation", "Warning", "Success"]

DOCS: Final = (
    "For more information about policy issues, see the policy documentation: "
    "https://conforma.dev/docs/policy/\n"
)
_INDENT: Final = "  "
_MIB: Final = 1024 * 1024
_WIDTH: Final = 128
_LOOKS: Final[dict[Kind, tuple[str, str]]] = {
    "Undecided": ("?", "35"),
    "Violation": ("✕", "31"),
    "Warning": ("›", "33"),
    "Success": ("✓", "32"),
}


def render(
    report: Report,
    *,
    show_successes: bool,
    show_warnings: bool,
    show_policy_docs_link: bool,
    color: bool,
) -> Iterator[str]:
    """The text of the report in pieces of at most one finding."""
    violations, warnings, successes = report.counts
    yield f"Success: {'true' if report.success else 'false'}\n"
    yield f"Result: {report.outcome}\n"
    yield f"Violations: {violations}, Warnings: {warnings}, Successes: {successes}\n"
    yield from _components(report.components)
    warnings_shown = warnings > 0 and show_warnings
    if violations or report.undecided or warnings_shown or (successes > 0 and show_successes):
        yield "Results:\n"
        for result in report.undecided:
            yield _error(result, color)
        yield from _findings(
            report, "Violation", ((r, r.violations) for r in report.components), color
        )
        if show_warnings:
            yield from _findings(
                report, "Warning", ((r, r.warnings) for r in report.components), color
            )
        if show_successes:
            yield from _findings(
                report, "Success", ((r, r.successes) for r in report.components), color
            )
    if show_policy_docs_link and (violations or warnings_shown):
        yield DOCS
    yield from _saved(report.effort.cache)


def _saved(stats: CacheStats) -> Iterator[str]:
    """What the layer cache saved; nothing if that was nothing, as with ``--no-cache``."""
    if stats.saved_bytes:
        shared = stats.hits + stats.coalesced
        yield (
            f"Cache: {shared} of {stats.requests} reads of layers and configurations needed no "
            f"download, {stats.saved_bytes / _MIB:.1f} MiB saved, "
            f"{stats.network_bytes / _MIB:.1f} MiB downloaded\n"
        )


def _components(results: tuple[ComponentResult, ...]) -> Iterator[str]:
    if len(results) == 1:
        (result,) = results
        yield f"Component: {harmless_line(result.component.name)}\n"
        yield f"ImageRef: {harmless_line(result.image)}\n{_skipped(result)}\n"
    elif results:
        yield "\nComponents:\n"
        for result in results:
            yield (
                f"- Name: {harmless_line(result.component.name)}\n"
                f"  ImageRef: {harmless_line(result.image)}\n"
                f"  Violations: {len(result.violations)}, Warnings: {len(result.warnings)}, "
                f"Successes: {len(result.successes)}\n{_skipped(result, _INDENT)}\n"
            )


def _skipped(result: ComponentResult, indent: str = "") -> str:
    """A line for a component that was not validated, because an earlier verdict stands."""
    return f"{indent}Skipped: {harmless_line(result.skipped)}\n" if result.skipped else ""


def _findings(
    report: Report,
    kind: Kind,
    results: Iterable[tuple[ComponentResult, tuple[Finding, ...]]],
    color: bool,
) -> Iterator[str]:
    for result, findings in results:
        for finding in findings:
            place = f"ImageRef: {result.image}" if result.image else ""
            yield block(kind, place, document.shown(report, finding), color)


def block(kind: Kind, place: str, finding: Finding, color: bool) -> str:
    """One finding, with a line that says at which ``place`` it was found."""
    metadata = finding.metadata
    code = metadata.get("code")
    lines = [_heading(kind, "" if code is None else printed(code), color)]
    if place:
        lines.append(f"{_INDENT}{harmless_line(place)}\n")
    if kind != "Success" and finding.message:
        lines.append(_labelled("Reason", finding.message))
    term = metadata.get("term")
    if isinstance(term, str) and term:
        lines.append(_labelled("Term", term))
    elif terms := ", ".join(finding.terms):
        lines.append(_labelled("Terms", terms))
    for label in (
        ("title", "description")
        if kind == "Success"
        else (
            "title",
            "description",
            "solution",
        )
    ):
        if value := metadata.get(label):
            lines.append(_labelled(label.capitalize(), printed(value)))
    lines.append("\n")
    return "".join(lines)


def _error(result: ComponentResult, color: bool) -> str:
    assert result.error is not None
    lines = [_heading("Undecided", result.component.name, color)]
    if result.image:
        lines.append(f"{_INDENT}ImageRef: {harmless_line(result.image)}\n")
    lines.append(_labelled("Reason", result.error.message))
    if result.error.hint:
        lines.append(_labelled("Solution", result.error.hint))
    lines.append("\n")
    return "".join(lines)


def _heading(kind: Kind, name: str, color: bool) -> str:
    mark, code = _LOOKS[kind]
    label = f"[{kind}] {harmless_line(name)}".rstrip()
    if color:
        return f"\x1b[{code}m{mark}\x1b[0m \x1b[{code}m{label}\x1b[0m\n"
    return f"{mark} {label}\n"


def _labelled(label: str, value: str) -> str:
    text = wrapped(f"{label}: {harmless(value)}", _WIDTH)
    return _INDENT + text.replace("\n", "\n" + _INDENT) + "\n"
