"""``vsa``: the unsigned verification summary of the whole snapshot (specification 7.11)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from conforma import gojson
from conforma.validate.result import Report


def render(report: Report) -> Iterator[str]:
    """The predicate on one line of JSON."""
    yield gojson.dumps(predicate(report))


def predicate(report: Report) -> dict[str, Any]:
    """The members of the predicate, in the order of the specification."""
    violations, warnings, _ = report.counts
    return {
        "policy": report.policy,
        "imageRefs": list(_image_refs(report)),
        "timestamp": f"{report.created:%Y-%m-%dT%H:%M:%SZ}",
        "status": "passed" if report.success else "failed",
        "verifier": "conforma",
        "summary": {
            "snapshot": report.snapshot,
            "components": len(report.components),
            "success": report.success,
            "key": report.key,
            "ec_version": report.version,
            "component_details": [
                {
                    "name": result.component.name,
                    "containerImage": result.image,
                    "success": result.success,
                    "violations": len(result.violations),
                    "warnings": len(result.warnings),
                    "successes": len(result.successes) if report.show_successes else 0,
                }
                for result in report.components
            ],
            "Violations": violations,
            "Warnings": warnings,
        },
    }


def _image_refs(report: Report) -> dict[str, None]:
    """Every image the summary speaks about, in order of first mention."""
    found: dict[str, None] = {}
    for result in report.components:
        found[result.image] = None
        index = report.expansion.index_of_alias.get(result.image, result.image)
        if index in report.expansion.children:
            found[index] = None
            found.update(dict.fromkeys(report.expansion.children[index]))
    return found
