"""Every way to alter one place of a JSON document."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]


def mutations(document: Any) -> Iterator[tuple[str, Any]]:
    """Each member in turn: altered, emptied, of another type, removed, doubled in a list."""
    for path in _paths(document):
        value = _at(document, path)
        for name, changed in _changes(value):
            yield f"{_name(path)} {name}", _with(document, path, changed)
        yield f"{_name(path)} removed", _without(document, path)
        if isinstance(value, list) and value:
            yield f"{_name(path)} doubled", _with(document, path, [*value, value[0]])


def _changes(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, bool):
        yield "flipped", not value
    elif isinstance(value, int):
        yield "plus one", value + 1
        yield "as text", f"{value}0"
    elif isinstance(value, str):
        for place in {0, len(value) // 2, max(len(value) - 3, 0)} if value else ():
            swapped = "B" if value[place] != "B" else "C"
            yield f"character {place}", value[:place] + swapped + value[place + 1 :]
        yield "empty" if value else "filled", "" if value else "QUJD"
        yield "longer", value + "QUJD"
        yield "as number", 987654
    elif isinstance(value, dict | list) and value:
        yield "empty", type(value)()
        yield "as text", "text"


def _paths(document: Any, prefix: Path = ()) -> Iterator[Path]:
    items: Any = ()
    if isinstance(document, dict):
        items = document.items()
    elif isinstance(document, list):
        items = enumerate(document)
    for key, value in items:
        yield (*prefix, key)
        yield from _paths(value, (*prefix, key))


def _at(document: Any, path: Path) -> Any:
    for key in path:
        document = document[key]
    return document


def _with(document: Any, path: Path, value: Any) -> Any:
    changed = copy.deepcopy(document)
    _at(changed, path[:-1])[path[-1]] = value
    return changed


def _without(document: Any, path: Path) -> Any:
    changed = copy.deepcopy(document)
    del _at(changed, path[:-1])[path[-1]]
    return changed


def _name(path: Path) -> str:
    return ".".join(str(part) for part in path)
