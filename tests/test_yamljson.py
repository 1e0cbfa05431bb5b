"""YAML and JSON read the way the Go tool reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from conforma.errors import InputError
from conforma.yamljson import DEEPEST, parse, parse_all, parse_json

PREFIX = "error converting YAML to JSON: "


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# nothing", None),
        ('{"a": [1, 2.5, null, true]}', {"a": [1, 2.5, None, True]}),
        ('{"a": [1,],}', {"a": [1]}),
        (
            "[yes, No, on, OFF, y, N, ~, null, '', '~']",
            [True, False, True, False, True, False, None, None, "", "~"],
        ),
        ("[0644, 0o17, 0x1F, 0b101, 1_000, -7, +7, 08]", [420, 15, 31, 5, 1000, -7, 7, 8.0]),
        ("[1.5, .5, 1e3, 1., -2E-1, 1.2.3]", [1.5, 0.5, 1000.0, 1.0, -0.2, "1.2.3"]),
        (
            "[12:30, 2024-01-01, 2024-01-01T00:00:00Z]",
            ["12:30", "2024-01-01", "2024-01-01T00:00:00Z"],
        ),
        ("{1: a, true: b, on: c, 1.5: d}", None),
        ("[!!str 12, !!int '12', !!float 3, !custom 5, !!binary aGk=]", ["12", 12, 3.0, "5", "hi"]),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
        (
            "a: &x {b: 1, c: 1}\nd:\n  <<: *x\n  b: 2",
            {"a": {"b": 1, "c": 1}, "d": {"b": 2, "c": 1}},
        ),
        ("\ufeffa: 1", {"a": 1}),
        ("[0x7fffffffffffffffff, 0xffffffffffffffff]", ["0x7fffffffffffffffff", (1 << 64) - 1]),
        ("{1.50: a, 1e3: b}", {"1.5": "a", "1000": "b"}),
        ("a: |\n  x\n  y\n", {"a": "x\ny\n"}),
    ],
)
def test_values_are_those_of_the_go_parser(text: str, value: Any) -> None:
    if value is None and text.startswith("{1: a"):
        with pytest.raises(InputError, match='key "true" already set'):
            parse(text)
        value = {"1": "a", "true": "c", "1.5": "d"}
        assert parse(text, duplicate_keys="last") == value
        return
    found = parse(text)
    assert found == value
    assert [type(v) for v in found or []] == [type(v) for v in value or []]
    assert parse(text.encode()) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"invalid": "json""}', "yaml: found unexpected end of stream"),
        ("a: 1\nb: c: d", "yaml: line 2: mapping values are not allowed in this context"),
        ("a:\n  - b\n c: d", "yaml: line 2: did not find expected key"),
        ("a: \x01", "yaml: control characters are not allowed"),
        ("a: *x", "yaml: unknown anchor 'x' referenced"),
        ("&a [*a]", "yaml: anchor 'a' value contains itself"),
        ("a: 1\na: 2", 'yaml: unmarshal errors:\n  line 2: key "a" already set in map'),
        ('{"a": 1, "a": 2}', 'yaml: unmarshal errors:\n  line 1: key "a" already set in map'),
        ("? [a]\n: b", "yaml: unsupported map key: it is no scalar"),
        ("~: b", "yaml: unsupported map key: it is empty or no scalar"),
        ("a: .nan", "json: unsupported value: NaN"),
        ("<<: 3", "yaml: map merge requires map or sequence of maps as the value"),
        ("!!int x", "yaml: cannot decode !!str `x` as a !!int"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), f"yaml: exceeded max depth of {DEEPEST}"),
        ("- " * 20_000 + "a", f"yaml: exceeded max depth of {DEEPEST}"),
        ('{"a":' * 100_000, f"yaml: exceeded max depth of {DEEPEST}"),
    ],
)
def test_what_is_wrong_is_said_in_the_parsers_words(text: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert caught.value.message == PREFIX + reason


def test_bytes_that_are_no_utf8_are_refused() -> None:
    with pytest.raises(InputError, match="invalid leading UTF-8 octet"):
        parse(b"a: \xff")


def test_a_bomb_of_aliases_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(InputError, match="document contains excessive aliasing"):
        parse("\n".join(lines))


def test_a_long_string_repeated_by_aliases_counts_by_its_length() -> None:
    text = "a: &a " + "x" * 100_000 + "\nb: [" + ", ".join(["*a"] * 200) + "]"
    with pytest.raises(InputError, match="document contains excessive aliasing"):
        parse(text)


def test_json_numbers_keep_every_digit() -> None:
    assert parse('{"a": 12345678901234567890123}') == {"a": 12345678901234567890123}


@pytest.mark.parametrize("text", ['{"a": 1e999, "b": -1E400}', "a: 1e999\nb: -1E400"])
def test_numbers_too_large_for_one_are_text_in_json_and_yaml(text: str) -> None:
    assert parse(text) == {"a": "1e999", "b": "-1E400"}


def test_the_last_of_two_keys_counts_where_the_caller_says_so() -> None:
    for text in ("a: 1\na: 2", json.dumps({"a": 1})[:-1] + ', "a": 2}'):
        assert parse(text, duplicate_keys="last") == {"a": 2}


@pytest.mark.parametrize(
    "text", ["a: 1\n---\nb: 2\n", '{"a": 1}\n---\n{"b": 2}\n', "a: 1\n---\n---\n- b\n"]
)
def test_configuration_in_a_second_document_is_not_lost_in_silence(text: str) -> None:
    with pytest.raises(InputError, match="a second document follows the first"):
        parse(text)
    assert parse(text, duplicate_keys="last") == {"a": 1}


def test_what_follows_a_flow_mapping_is_not_lost_in_silence() -> None:
    with pytest.raises(InputError, match="error converting YAML to JSON"):
        parse('{"a": 1} junk')


@pytest.mark.parametrize("text", ["---\na: 1\n", "a: 1\n---\n", "a: 1\n...\n# no more\n"])
def test_marks_around_one_document_are_no_second_one(text: str) -> None:
    assert parse(text) == {"a": 1}


def test_all_documents_of_a_stream() -> None:
    text = "a: 1\n---\n# nothing\n---\n- b\n...\n---\na: 1\na: 2\n---\n"
    assert parse_all(text) == ({"a": 1}, ["b"], {"a": 2})
    assert parse_all("") == ()
    with pytest.raises(InputError, match="yaml: line 3"):
        parse_all("a: 1\n---\nb: [\n")


def test_json_and_nothing_else() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": [1, null]}') == {"a": [1, None]}
    assert parse_json("5") == 5
    for text in ("a: 1", "{a: 1}", '{"a": 1, "a": 2}', "[" * 1000 + "]" * 1000, "NaN", b"\xff"):
        with pytest.raises(InputError, match="json: "):
            parse_json(text)
