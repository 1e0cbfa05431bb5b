"""conforma.gojson writes what Go's encoding/json writes.

The expected texts were printed by Go 1.26.
"""

import json
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conforma import gojson

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(min_value=-(2.0**53), max_value=2.0**53)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (100.0, "100"),
        (1234.5, "1234.5"),
        (0.1, "0.1"),
        (-2.5e-3, "-0.0025"),
        (1e-6, "0.000001"),
        (9.999e-7, "9.999e-7"),
        (1e-7, "1e-7"),
        (1e-12, "1e-12"),
        (1e16, "10000000000000000"),
        (1.2345e17, "123450000000000000"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.5e21, "1.5e+21"),
        (123456789012345680000.0, "123456789012345680000"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
    ],
)
def test_floats_take_gos_shortest_form(value: float, expected: str) -> None:
    assert gojson.dumps(value) == expected


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_printed_float_reads_back_as_the_same_float(value: float) -> None:
    assert float(gojson.number(value)) == value


def test_a_numeral_is_a_number_in_the_digits_it_was_read_with() -> None:
    text = '{"score":7.0,"more":[1e3,-0.50,1e400]}'
    value = json.loads(text, parse_float=gojson.Numeral)
    assert value["score"] == 7
    assert gojson.dumps(value) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_without_json_form_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="has no JSON form"):
        gojson.dumps([value])


def test_integers_keep_every_digit_and_booleans_are_not_integers() -> None:
    assert gojson.dumps([2**63 + 1, -(10**30), True, False, None]) == (
        f"[{2**63 + 1},-{10**30},true,false,null]"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<a & b>", r'"\u003ca \u0026 b\u003e"'),
        ("\u2028\u2029", r'"\u2028\u2029"'),
        ("é 😀 \x7f \u0085", '"é 😀 \x7f \u0085"'),
        ('"\\/', r'"\"\\/"'),
        ("\n\r\t\b\f\x01\x00", r'"\n\r\t\b\f\u0001\u0000"'),
        ("half \ud800 pair", '"half \ufffd pair"'),
    ],
)
def test_strings_are_escaped_as_go_escapes_them(text: str, expected: str) -> None:
    assert gojson.dumps(text) == expected
    assert gojson.dumps({text: 1}) == "{" + expected + ":1}"


def test_without_html_escaping_line_separators_are_still_escaped() -> None:
    assert gojson.dumps("<&>\u2028", escape_html=False) == r'"<&>\u2028"'


def test_order_is_kept_unless_sorting_is_asked_for() -> None:
    value = {"b": {"z": 1, "a": 2}, "a": [], "é": {}, "Z": ()}
    assert gojson.dumps(value) == '{"b":{"z":1,"a":2},"a":[],"é":{},"Z":[]}'
    assert gojson.dumps(value, sort_keys=True) == '{"Z":[],"a":[],"b":{"a":2,"z":1},"é":{}}'
    assert gojson.dumps({"b": 1, "a": gojson.sorted_maps(value["b"])}) == (
        '{"b":1,"a":{"a":2,"z":1}}'
    )


def test_sorting_reaches_mappings_inside_lists_and_of_other_types() -> None:
    value = MappingProxyType({"l": ({"b": 1, "a": 2},), "k": 0})
    assert gojson.dumps(gojson.sorted_maps(value)) == '{"k":0,"l":[{"a":2,"b":1}]}'


def test_indentation_has_the_layout_of_marshal_indent() -> None:
    value = {"a": [1, {"b": "<"}], "c": {}, "d": []}
    assert gojson.dumps(value, indent="  ") == (
        '{\n  "a": [\n    1,\n    {\n      "b": "\\u003c"\n    }\n  ],\n  "c": {},\n  "d": []\n}'
    )


@given(json_values)
def test_what_is_written_reads_back(value: object) -> None:
    def plain(item: object) -> object:
        return json.loads(json.dumps(item))

    assert json.loads(gojson.dumps(value)) == plain(value)
    assert json.loads(gojson.encode(value, indent="\t", sort_keys=True)) == plain(value)


def test_compact_changes_only_white_space_and_escapes() -> None:
    raw = b'{ "b" : [ 1.0 , 1e2,\t12345678901234567890 ],\r\n "a":"x  \\" \\u003c <", "a":null }'
    assert gojson.compact(raw) == (
        rb'{"b":[1.0,1e2,12345678901234567890],"a":"x  \" \u003c \u003c","a":null}'
    )
    assert gojson.compact(b'" <\xe2\x80\xa8\xc3\xa9"') == rb'" \u003c\u2028' + b'\xc3\xa9"'


@pytest.mark.parametrize(
    "raw", [b"", b"{}{}", b'{}, "image":{}', b"[1,]", b"NaN", b"-Infinity", b'"\xff"', b"\xff\xfe1"]
)
def test_only_one_json_value_can_be_embedded(raw: bytes) -> None:
    with pytest.raises(ValueError):
        gojson.compact(raw)


@pytest.mark.parametrize("value", [{1: 2}, [b"bytes"], [object()]])
def test_values_without_json_form_are_refused(value: object) -> None:
    with pytest.raises(TypeError):
        gojson.dumps(value)
