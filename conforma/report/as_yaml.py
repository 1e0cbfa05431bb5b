"""``yaml``: the JSON document in block style with all keys sorted (specification 7.3).

Written by hand because a YAML library needs the whole document in memory and
takes minutes for a large one. Text is plain when no YAML version could read
it as something else, a literal block when it has several lines, in single quotes
when it begins like a collection, and otherwise a JSON string, which is YAML as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from conforma import gojson
from conforma.report import document
from conforma.validate.result import Report

_PLAIN: Final = re.compile(r"[A-Za-z/](?:[A-Za-z0-9_./@+()=-]|:(?=[^ ])| (?=[A-Za-z0-9(]))*")
# Begins as no plain text may, and is therefore text in quotes of either kind; Go takes these.
_SINGLE: Final = re.compile(r"[][{}&*!|>%@`'\"#,](?:[ -~]*[!-~])?")
_WORDS: Final = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))
_BLOCK: Final = re.compile(r"[^\s\x00-\x1f][^\x00-\x09\x0b-\x1f\x7f-\x9f\ufeff\u2028\u2029]*")
_UNPRINTABLE: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


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
            yield f"{margin}{_one_line(key)}:"
            yield from _member(value[key], indent)
        return
    for item in value:
        if isinstance(item, Mapping | list | tuple) and item:
            pieces = _lines(item, indent + 2)
            yield f"{margin}- {next(pieces)[indent + 2 :]}"
            yield from pieces
        else:
            yield f"{margin}- {_scalar(item, indent)}\n"


def _member(value: Any, indent: int) -> Iterator[str]:
    """What stands behind the colon of a key, up to the end of the line or the block."""
    if isinstance(value, Mapping) and value:
        yield "\n"
        yield from _lines(value, indent + 2)
    elif isinstance(value, Iterator) or (isinstance(value, list | tuple) and value):
        yield "\n"
        yield from _lines(value, indent)
    else:
        yield f" {_scalar(value, indent)}\n"


def _scalar(value: Any, indent: int) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return gojson.number(value)
    if not isinstance(value, str):
        return gojson.dumps(value)
    if "\n" in value[:-1] and _BLOCK.fullmatch(value) and not value.endswith("\n\n"):
        margin = "\n" + " " * (indent + 2)
        keep = "" if value.endswith("\n") else "-"
        return f"|{keep}{margin}{value.removesuffix(chr(10)).replace(chr(10), margin)}"
    return _one_line(value)


def _one_line(value: str) -> str:
    """Text on one line, which a key has to be."""
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    if _SINGLE.fullmatch(value):
        return "'" + value.replace("'", "''") + "'"
    quoted = gojson.dumps(value, escape_html=False)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)
