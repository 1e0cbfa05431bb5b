"""The first violation of a schema, in the words of the Go library."""

from __future__ import annotations

from typing import Any

import pytest

from conforma.gotext import quoted, single_quoted
from conforma.schema_errors import first_violation

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "https://schemas.example/thing",
    "$ref": "#/$defs/Thing",
    "$defs": {
        "Thing": {
            "properties": {
                "id": {"type": "string", "format": "uri"},
                "parts": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/Part"}},
                "hex": {"type": "string", "pattern": "^[a-f0-9]+$"},
                "kind": {"enum": ["a", "b"]},
                "version": {"const": "v1"},
                "made": {"type": "string", "format": "date-time"},
                "name": {"type": "string", "minLength": 2},
                "count": {"type": ["integer", "null"], "minimum": 1},
                "choice": {"anyOf": [{"type": "string"}, {"type": "object", "required": ["x"]}]},
            },
            "required": ["id", "parts"],
            "additionalProperties": False,
            "type": "object",
        },
        "Part": {
            "type": "object",
            "properties": {"name": {"type": "string"}},
            "additionalProperties": False,
        },
    },
}
GOOD: dict[str, Any] = {"id": "https://builder.example", "parts": [{"name": "x"}]}


@pytest.mark.parametrize(
    ("document", "where", "keyword", "reason"),
    [
        ({}, "", "/required", "missing properties: 'id', 'parts'"),
        ([], "", "/type", "expected object, but got array"),
        ({**GOOD, "id": "invalid"}, "/id", "/properties/id/format", "'invalid' is not valid 'uri'"),
        ({**GOOD, "id": 3}, "/id", "/properties/id/type", "expected string, but got number"),
        (
            {**GOOD, "id": True},
            "/id",
            "/properties/id/type",
            "expected string, but got boolean",
        ),
        (
            {**GOOD, "parts": []},
            "/parts",
            "/properties/parts/minItems",
            "minimum 1 items required, but found 0 items",
        ),
        (
            {**GOOD, "parts": [{}, {"it's": 1}]},
            "/parts/1",
            "/properties/parts/items/$ref/additionalProperties",
            r"additionalProperties 'it\'s' not allowed",
        ),
        (
            {**GOOD, "b": 1, "a": 2},
            "",
            "/additionalProperties",
            "additionalProperties 'b', 'a' not allowed",
        ),
        (
            {**GOOD, "hex": "ab\n"},
            "/hex",
            "/properties/hex/pattern",
            "does not match pattern '^[a-f0-9]+$'",
        ),
        ({**GOOD, "kind": "c"}, "/kind", "/properties/kind/enum", 'value must be one of "a", "b"'),
        ({**GOOD, "version": "v2"}, "/version", "/properties/version/const", 'value must be "v1"'),
        (
            {**GOOD, "name": "é"},
            "/name",
            "/properties/name/minLength",
            "length must be >= 2, but got 1",
        ),
        ({**GOOD, "count": 0}, "/count", "/properties/count/minimum", "must be >= 1 but found 0"),
        (
            {**GOOD, "count": "1"},
            "/count",
            "/properties/count/type",
            "expected integer or null, but got string",
        ),
        (
            {**GOOD, "choice": 1},
            "/choice",
            "/properties/choice/anyOf/0/type",
            "expected string, but got number",
        ),
    ],
)
def test_the_first_violation_names_place_keyword_and_reason(
    document: object, where: str, keyword: str, reason: str
) -> None:
    assert first_violation(SCHEMA, document) == (
        f"jsonschema: '{where}' does not validate with "
        f"https://schemas.example/thing#/$ref{keyword}: {reason}"
    )


def test_a_conforming_document_has_no_violation() -> None:
    assert first_violation(SCHEMA, {**GOOD, "made": "2024-02-29T23:59:60Z", "count": None}) is None


@pytest.mark.parametrize(
    "text",
    ["2024-01-01", "2023-02-29T00:00:00Z", "2024-01-01T24:00:00Z", "2024-01-01T00:00:00", "x" * 20],
)
def test_what_is_no_rfc3339_time_is_refused(text: str) -> None:
    found = first_violation(SCHEMA, {**GOOD, "made": text})
    assert found is not None
    assert found.endswith(f"/properties/made/format: '{text}' is not valid 'date-time'")


@pytest.mark.parametrize(
    "text", ["http://[::1", "no scheme", "/path", "http://h ost/", "http://h/%zz", ""]
)
def test_what_is_no_absolute_uri_is_refused(text: str) -> None:
    found = first_violation(SCHEMA, {**GOOD, "id": text})
    assert found is not None
    assert found.endswith("is not valid 'uri'")


@pytest.mark.parametrize("text", ["https://h/p?q#f", "urn:x:y", "mailto:a@b", "git+https://h/p@1"])
def test_absolute_uris_of_any_scheme_pass(text: str) -> None:
    assert first_violation(SCHEMA, {**GOOD, "id": text}) is None


def test_pointers_are_escaped_twice() -> None:
    schema = {"$id": "s", "additionalProperties": {"type": "string"}}
    assert first_violation(schema, {"a/b~c d": 1}) == (
        "jsonschema: '/a~1b~0c%20d' does not validate with s#/additionalProperties/type: "
        "expected string, but got number"
    )


def test_control_characters_never_reach_the_message() -> None:
    assert quoted('a"\x1b[31m\u202e\\') == '"a\\"\\x1b[31m\\u202e\\\\"'
    assert single_quoted('it\'s "x"\n') == "'it\\'s \"x\"\\n'"
