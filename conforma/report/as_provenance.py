"""``provenance``: who vouched for each signature and attestation, and which log witnessed it."""

from __future__ import annotations

from collections.abc import Iterator

from conforma import gojson
from conforma.validate.result import Report


def render(report: Report) -> Iterator[str]:
    """One line of JSON, a piece for each component."""
    separator = '{"components":['
    for result in report.components:
        yield separator + gojson.dumps(
            {
                "name": result.component.name,
                "containerImage": result.image,
                "success": result.success,
                **result.provenance,
            }
        )
        separator = ","
    yield "]}" if report.components else '{"components":[]}'
