"""The report as JSON values, in the field order of specification section 7.2.

Several formats show the same document. Its long lists are iterators that make
one element at a time, so that a report of any size, even of a single component,
can be written without a second copy of it in memory.
"""

from __future__ import annotations

from typing import Any

from conforma import gojson
from conforma.findings import Finding
from conforma.policy.presentation import without_details
from conforma.validate.result import ComponentResult, Report


def head(report: Report) -> dict[str, Any]:
    """The members before ``components``."""
    members: dict[str, Any] = {"success": report.success}
    if report.snapshot:
        members["snapshot"] = report.snapshot
    return members


def tail(report: Report) -> dict[str, Any]:
    """The members after ``components``.

    ``undecided``, the number of components that could not be decided, is ours
    and absent from a complete report, so that those stay byte-compatible.
    """
    members: dict[str, Any] = {
        "key": report.key,
        "policy": report.policy,
        "ec-version": report.version,
        "effective-time": report.effective_time,
    }
    if report.undecided:
        members["undecided"] = len(report.undecided)
    return members


def component(report: Report, result: ComponentResult) -> dict[str, Any]:
    """One element of ``components``, its findings as iterators (never empty).

    ``error`` is only there if it could not be decided.
    """
    members: dict[str, Any] = {
        "name": result.component.name,
        "containerImage": result.image,
        "source": dict(result.component.source),
    }
    lists: list[tuple[str, tuple[Finding, ...]]] = [
        ("violations", result.violations),
        ("warnings", result.warnings),
    ]
    if report.show_successes:
        lists.append(("successes", result.successes))
    for name, findings in lists:
        if findings:
            members[name] = (finding(shown(report, item)) for item in findings)
    members["success"] = result.success
    if result.error is not None:
        members["error"] = result.error.message
    if result.skipped:
        members["skipped"] = result.skipped
    if result.signatures:
        members["signatures"] = list(result.signatures)
    if result.attestations:
        members["attestations"] = list(result.attestations)
    return members


def shown(report: Report, item: Finding) -> Finding:
    """The finding as a format of the Go tool has it: without details unless asked for (4.13)."""
    return item if report.info else without_details(item)


def finding(item: Finding) -> dict[str, Any]:
    """One violation, warning or success; metadata is a Go map, so its keys are sorted."""
    members: dict[str, Any] = {"msg": item.message}
    if item.metadata:
        members["metadata"] = gojson.sorted_maps(item.metadata)
    return members


def members(report: Report) -> dict[str, Any]:
    """All top-level members in order, ``components`` as an iterator (``None`` without any)."""
    components = (component(report, result) for result in report.components)
    return {
        **head(report),
        "components": components if report.components else None,
        **tail(report),
    }
