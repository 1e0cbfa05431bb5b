"""``json``: the whole report on one line, byte for byte as Go writes it (specification 7.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from conforma import gojson
from conforma.report import document
from conforma.validate.result import Report


def render(report: Report) -> Iterator[str]:
    """The text of the report in pieces of at most one finding."""
    return _pieces(document.members(report))


def _pieces(value: Any) -> Iterator[str]:
    if isinstance(value, Iterator):
        separator = "["
        for element in value:
            yield separator
            yield from _pieces(element)
            separator = ","
        yield "]"
    elif isinstance(value, dict) and any(isinstance(v, Iterator) for v in value.values()):
        separator = "{"
        for name, member in value.items():
            yield f"{separator}{gojson.dumps(name)}:"
            yield from _pieces(member)
            separator = ","
        yield "}"
    else:
        yield gojson.dumps(value)
