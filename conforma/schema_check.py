"""Whether a document conforms to one of our schemas, said quickly.

Knows the keywords that our own schemas use, with the meaning of JSON Schema
draft 2020-12; ``tests/test_schema_check.py`` holds it against jsonschema,
which takes a hundred times as long to import and to check.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

_Schema = Mapping[str, Any]

_TIME: Final = re.compile(
    r"([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?([zZ]|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII
)
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_DAMAGE: Final = re.compile(r"[\x00-\x20\x7f]|%(?![0-9A-Fa-f]{2})")
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def conforms(schema: _Schema, document: object) -> bool:
    """Whether ``document``, parsed JSON, is known to conform to ``schema``.

    False also if the schema has a keyword, or a form of one, that is not known here.
    """
    return _holds(schema, document, schema)


def _holds(schema: _Schema, value: Any, root: _Schema) -> bool:
    if not isinstance(schema, dict):
        return False
    for keyword, wanted in schema.items():
        check = _KEYWORDS.get(keyword)
        if check is None or not check(wanted, value, schema, root):
            return False
    return True


def _type(name: object, value: object, _: _Schema, __: _Schema) -> bool:
    kind = _TYPES.get(name) if isinstance(name, str) else None
    return kind is not None and isinstance(value, kind)


def _ref(target: str, value: object, _: _Schema, root: _Schema) -> bool:
    place, name = target[:8], target[8:]
    return place == "#/$defs/" and _holds(root.get("$defs", {}).get(name), value, root)


def _required(names: list[str], value: object, _: _Schema, __: _Schema) -> bool:
    return not isinstance(value, dict) or all(name in value for name in names)


def _properties(schemas: Mapping[str, _Schema], value: object, _: _Schema, root: _Schema) -> bool:
    if not isinstance(value, dict):
        return True
    return all(_holds(schemas[name], value[name], root) for name in schemas if name in value)


def _others(wanted: bool | _Schema, value: object, schema: _Schema, root: _Schema) -> bool:
    if not isinstance(value, dict) or wanted is True:
        return True
    named = schema.get("properties", ())
    others = [item for name, item in value.items() if name not in named]
    return all(isinstance(wanted, Mapping) and _holds(wanted, item, root) for item in others)


def _names(wanted: _Schema, value: object, _: _Schema, root: _Schema) -> bool:
    return not isinstance(value, dict) or all(_holds(wanted, name, root) for name in value)


def _items(wanted: _Schema, value: object, _: _Schema, root: _Schema) -> bool:
    return not isinstance(value, list) or all(_holds(wanted, item, root) for item in value)


def _one_of(texts: list[object], value: object, _: _Schema, __: _Schema) -> bool:
    return isinstance(value, str) and value in texts


def _matches(expression: str, value: object, _: _Schema, __: _Schema) -> bool:
    return not isinstance(value, str) or pattern(expression).search(value) is not None


def _in_format(name: str, value: object, _: _Schema, __: _Schema) -> bool:
    known = FORMATS.get(name)
    return known is not None and known(value)


_TYPES: Final[Mapping[str, type]] = {"object": dict, "array": list, "string": str, "boolean": bool}
_KEYWORDS: Final[Mapping[str, Callable[[Any, Any, _Schema, _Schema], bool]]] = {
    "$schema": lambda *_: True,
    "$id": lambda *_: True,
    "$defs": lambda *_: True,
    "$ref": _ref,
    "type": _type,
    "const": lambda text, value, _, __: isinstance(value, str) and value == text,
    "enum": _one_of,
    "required": _required,
    "properties": _properties,
    "additionalProperties": _others,
    "propertyNames": _names,
    "items": _items,
    "minItems": lambda least, value, _, __: not isinstance(value, list) or len(value) >= least,
    "minLength": lambda least, value, _, __: not isinstance(value, str) or len(value) >= least,
    "pattern": _matches,
    "format": _in_format,
}


@cache
def pattern(expression: str) -> re.Pattern[str]:
    """A pattern of a schema for ``search``.

    In Python "$" also matches before a final line break; in the dialects of
    JSON Schema and Go it does not.
    """
    return re.compile(re.sub(r"(?<!\\)\$\Z", r"\\Z", expression))


def is_uri(value: object) -> bool:
    """Whether text is an absolute URI; other types are not the business of a format."""
    if not isinstance(value, str):
        return True
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        return False
    if not _SCHEME.match(value) or not parts.scheme:
        return False
    damaged = _DAMAGE.search(value)
    return damaged is None or not _matters(damaged, parts.netloc)


def _matters(damaged: re.Match[str], netloc: str) -> bool:
    # Go accepts a space in a path, nowhere else.
    return damaged[0] != " " or " " in netloc


def is_date_time(value: object) -> bool:
    """Whether text is an RFC 3339 date and time; a leap second is one."""
    if not isinstance(value, str):
        return True
    day, mark, time = value[:10], value[10:11], value[11:]
    if mark not in ("T", "t") or not _DAY.fullmatch(day):
        return False
    try:
        date.fromisoformat(day)
    except ValueError:
        return False
    return _TIME.fullmatch(time) is not None


FORMATS: Final[Mapping[str, Callable[[object], bool]]] = {
    "uri": is_uri,
    "date-time": is_date_time,
}
"""The formats that are asserted."""
