"""Checks a document against a JSON Schema and words the first problem as the Go tool does.

The wording, the pointers and the choice of the problem to show are those of
the Go library santhosh-tekuri/jsonschema 5, which users of ``ec`` know from
policy configurations and SLSA provenance (specification of ``validate
image``, sections 2.3 and 5.5). The checking is jsonschema's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from conforma.gotext import quoted, single_quoted
from conforma.schema_check import FORMATS, conforms, pattern

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

# The order in which the Go library looks at the keywords of one schema, which
# decides what counts as the first problem.
_ORDER: Final = {
    keyword: rank
    for rank, keyword in enumerate(
        (
            "type",
            "const",
            "enum",
            "format",
            "minProperties",
            "maxProperties",
            "required",
            "properties",
            "propertyNames",
            "patternProperties",
            "additionalProperties",
            "minItems",
            "maxItems",
            "uniqueItems",
            "prefixItems",
            "items",
            "contains",
            "minLength",
            "maxLength",
            "pattern",
            "minimum",
            "exclusiveMinimum",
            "maximum",
            "exclusiveMaximum",
            "multipleOf",
            "$ref",
            "not",
            "allOf",
            "anyOf",
            "oneOf",
        )
    )
}


def first_violation(schema: Mapping[str, Any], document: object) -> str | None:
    """The first thing in ``document`` that contradicts ``schema`` (draft 2020-12), in words.

    ``None`` if nothing does. ``schema`` names itself with ``$id``, which the
    text repeats. The formats ``uri`` and ``date-time`` are asserted.
    """
    if conforms(schema, document):
        return None
    checker = _validator_class()(schema, format_checker=_formats())
    error: ValidationError | None = next(checker.iter_errors(document), None)
    if error is None:
        return None
    while error.context:
        error = error.context[0]
    where = _pointer(error.absolute_path)
    keyword = _pointer(error.absolute_schema_path)
    schema_id = str(schema.get("$id", "")).partition("#")[0]
    return (
        f"jsonschema: {single_quoted(where)} does not validate with "
        f"{schema_id}#{keyword}: {_reason(error)}"
    )


def _reason(error: ValidationError) -> str:
    describe = _REASONS.get(str(error.validator))
    if describe is None:
        return f"{error.validator} failed"
    return describe(error.validator_value, error.instance, error)


def _missing(required: Iterable[str], instance: Mapping[str, Any], _: object) -> str:
    return "missing properties: " + _list(name for name in required if name not in instance)


def _unknown(_: object, instance: Mapping[str, Any], error: ValidationError) -> str:
    schema: Any = error.schema
    patterns = [re.compile(pattern) for pattern in schema.get("patternProperties", {})]
    names = (
        name
        for name in instance
        if name not in schema.get("properties", {}) and not any(p.search(name) for p in patterns)
    )
    return f"additionalProperties {_list(names)} not allowed"


def _wrong_type(types: str | list[str], instance: object, _: object) -> str:
    expected = types if isinstance(types, str) else " or ".join(types)
    return f"expected {expected}, but got {json_type(instance)}"


def _not_one_of(values: list[Any], _: object, __: object) -> str:
    if any(isinstance(value, dict | list) for value in values):
        return "enum failed"
    if len(values) == 1:
        return f"value must be {_literal(values[0])}"
    return "value must be one of " + ", ".join(_literal(value) for value in values)


def _not_const(value: object, _: object, __: object) -> str:
    return "const failed" if isinstance(value, dict | list) else f"value must be {_literal(value)}"


def _not_in_format(name: str, instance: object, _: object) -> str:
    shown = single_quoted(instance) if isinstance(instance, str) else _literal(instance)
    return f"{shown} is not valid {single_quoted(name)}"


_REASONS: Final[Mapping[str, Callable[[Any, Any, Any], str]]] = {
    "required": _missing,
    "additionalProperties": _unknown,
    "type": _wrong_type,
    "enum": _not_one_of,
    "const": _not_const,
    "format": _not_in_format,
    "pattern": lambda p, _, __: f"does not match pattern {single_quoted(p)}",
    "minItems": lambda n, v, _: f"minimum {n} items required, but found {len(v)} items",
    "maxItems": lambda n, v, _: f"maximum {n} items required, but found {len(v)} items",
    "minLength": lambda n, v, _: f"length must be >= {n}, but got {len(v)}",
    "maxLength": lambda n, v, _: f"length must be <= {n}, but got {len(v)}",
    "minProperties": lambda n, v, _: (
        f"minimum {n} properties allowed, but found {len(v)} properties"
    ),
    "maxProperties": lambda n, v, _: (
        f"maximum {n} properties allowed, but found {len(v)} properties"
    ),
    "minimum": lambda n, v, _: f"must be >= {n} but found {v}",
    "exclusiveMinimum": lambda n, v, _: f"must be > {n} but found {v}",
    "maximum": lambda n, v, _: f"must be <= {n} but found {v}",
    "exclusiveMaximum": lambda n, v, _: f"must be < {n} but found {v}",
    "multipleOf": lambda n, v, _: f"{v} not multipleOf {n}",
}


def json_type(value: object) -> str:
    """The JSON type of a parsed value: ``null``, ``boolean``, ``number``, ``string``, …"""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case Mapping():
            return "object"
        case _:
            return "array"


def _list(names: Iterable[str]) -> str:
    return ", ".join(single_quoted(name) for name in names)


def _literal(value: object) -> str:
    return quoted(value) if isinstance(value, str) else json.dumps(value)


def _pointer(path: Iterable[str | int]) -> str:
    """A JSON pointer (RFC 6901) whose tokens are also percent-encoded, as in a URL fragment."""
    return "".join(
        "/" + quote(str(token).replace("~", "~0").replace("/", "~1"), safe="$&+=:@~")
        for token in path
    )


@cache
def _validator_class() -> Any:
    from jsonschema import Draft202012Validator, validators
    from jsonschema.exceptions import ValidationError

    follow = Draft202012Validator.VALIDATORS["$ref"]

    def ref(
        validator: Any, target: str, instance: object, schema: Any
    ) -> Iterator[ValidationError]:
        for error in follow(validator, target, instance, schema):
            error.schema_path.appendleft("$ref")
            yield error

    def matches(_: Any, expression: str, instance: object, __: Any) -> Iterator[ValidationError]:
        if isinstance(instance, str) and not pattern(expression).search(instance):
            yield ValidationError("pattern")

    def property_names(
        validator: Any, names: Any, instance: object, _: Any
    ) -> Iterator[ValidationError]:
        # Python's own does not say which property it is about.
        if isinstance(instance, Mapping):
            for name in instance:
                yield from validator.descend(name, names, path=name)

    def in_order(schema: Any) -> list[tuple[str, Any]]:
        return sorted(schema.items(), key=lambda item: _ORDER.get(item[0], len(_ORDER)))

    return validators.create(
        Draft202012Validator.META_SCHEMA,
        {
            **Draft202012Validator.VALIDATORS,
            "$ref": ref,
            "pattern": matches,
            "propertyNames": property_names,
        },
        type_checker=Draft202012Validator.TYPE_CHECKER,
        applicable_validators=in_order,
    )


@cache
def _formats() -> Any:
    from jsonschema import FormatChecker

    checker = FormatChecker(formats=())
    # The instance's own table; FormatChecker.checks would fill that of the class.
    checker.checkers = {name: (holds, ()) for name, holds in FORMATS.items()}
    return checker
