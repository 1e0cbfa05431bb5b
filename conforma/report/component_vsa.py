"""The verification summary of one component (specification 9.1 of the other commands).

Under which conditions the verdict was reached is said whenever they are not
the usual ones, so that nobody takes a lenient verdict for a strict one; the
members for that are ours, and absent from an ordinary summary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from conforma.policy.timestamps import parse_effective_on
from conforma.validate.result import ComponentResult, Report


def predicate(
    report: Report, result: ComponentResult, policy_source: str, conditions: Mapping[str, Any]
) -> dict[str, Any]:
    """The members of the predicate, in the order of the specification."""
    parts = [result, *_children(report, result)]
    shown = report.show_successes
    members: dict[str, Any] = {
        "policy": report.policy,
        "policySource": policy_source,
        "imageRefs": _image_refs(report, result),
        "timestamp": f"{report.created:%Y-%m-%dT%H:%M:%SZ}",
        "status": "passed" if result.success else "failed",
        "verifier": "conforma",
        "summary": {
            "violations": sum(len(part.violations) for part in parts),
            "warnings": sum(len(part.warnings) for part in parts),
            "successes": sum(len(part.successes) for part in parts) if shown else 0,
            "Components": [
                {
                    "Name": part.component.name,
                    "ImageRef": part.image,
                    "Violations": len(part.violations),
                    "Warnings": len(part.warnings),
                    "Successes": len(part.successes) if shown else 0,
                }
                for part in parts
            ],
            "component": result.component.as_dict() | {"containerImage": result.image},
        },
        "publicKey": report.key,
    }
    if conditions:
        members["conditions"] = dict(conditions)
    if (until := _current_until(result)) is not None:
        members["currentUntil"] = f"{until:%Y-%m-%dT%H:%M:%SZ}"
    return members


def _image_refs(report: Report, result: ComponentResult) -> list[str]:
    index = report.expansion.index_of_alias.get(result.image, result.image)
    refs = dict.fromkeys((result.image, index))
    refs.update(dict.fromkeys(report.expansion.children.get(index, ())))
    return list(refs)


def _children(report: Report, result: ComponentResult) -> Iterable[ComponentResult]:
    index = report.expansion.index_of_alias.get(result.image, result.image)
    for child in report.expansion.children.get(index, ()):
        yield from (part for part in report.components if part.image == child)


def _current_until(result: ComponentResult) -> datetime | None:
    """When the first warning that is not effective yet becomes a violation."""
    moments = (
        parse_effective_on(date)
        for warning in result.warnings
        if isinstance(date := warning.metadata.get("effective_on"), str)
    )
    return min((moment for moment in moments if moment is not None), default=None)
