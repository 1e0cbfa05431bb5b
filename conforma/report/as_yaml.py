"""``yaml``: the JSON document in block style with all keys sorted (specification 7.3).

Written by hand because a YAML library needs the whole document in memory and
takes minutes for a large one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from conforma import gojson
from conforma.report import document, yaml_text
from conforma.validate.result import Report


def render(report: Report) -> Iterator[str]:
    """The text of the report in pieces of at most one value, newline at the end."""
    return mapping(document.members(report))


def mapping(members: Mapping[str, Any]) -> Iterator[str]:
    """The text of any mapping, in the same style."""
    return _lines(members, 0) if members else iter(("{}\n",))


def _lines(value: Any, indent: int) -> Iterator[str]:
    """The lines of a mapping or list that is not empty; the first piece starts with the indent."""
    margin = " " * indent
    if isinstance(value, Mapping):
        for key in sorted(value):
            name = f"{yaml_text.key(key)}:"
            yield f"{margin}{name}"
            yield from _member(value[key], indent, indent + len(name) + 1)
        return
    for item in value:
        if isinstance(item, Mapping | list | tuple) and item:
            pieces = _lines(item, indent + 2)
            yield f"{margin}- {next(pieces)[indent + 2 :]}"
            yield from pieces
        else:
            yield f"{margin}- {_scalar(item, indent, indent + 2)}\n"


def _member(value: Any, indent: int, column: int) -> Iterator[str]:
    """What stands behind the colon of a key, up to the end of the line or the block."""
    if isinstance(value, Mapping) and value:
        yield "\n"
        yield from _lines(value, indent + 2)
    elif isinstance(value, Iterator) or (isinstance(value, list | tuple) and value):
        yield "\n"
        yield from _lines(value, indent)
    else:
        yield f" {_scalar(value, indent, column)}\n"


def _scalar(value: Any, indent: int, column: int) -> str:
    if isinstance(value, str):
        return yaml_text.value(value, indent + 2, column)
    if isinstance(value, float) and math.isfinite(value):
        return gojson.number(value)
    return gojson.dumps(value)
