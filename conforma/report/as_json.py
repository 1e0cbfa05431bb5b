"""``json``: the whole report on one line, byte for byte as Go writes it (specification 7.2)."""

from __future__ import annotations

from collections.abc import Iterator

from conforma import gojson
from conforma.report import document
from conforma.validate.result import Report


def render(report: Report) -> Iterator[str]:
    """The text of the report in pieces of at most one component."""
    before = "{"
    for name, value in document.members(report):
        yield f"{before}{gojson.dumps(name)}:"
        if isinstance(value, Iterator):
            opening = "["
            for element in value:
                yield opening + gojson.dumps(element)
                opening = ","
            yield "]"
        else:
            yield gojson.dumps(value)
        before = ","
    yield "}"
