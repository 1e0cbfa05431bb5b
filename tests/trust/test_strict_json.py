from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conforma.errors import BadEvidence
from conforma.trust.strict_json import MAX_DEPTH, decode_base64, load_json


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it: EOF"),
        (b" \n", "it: EOF"),
        (b"{", "it: Expecting property name enclosed in double quotes at byte 1"),
        (b"{} {}", "it: Extra data at byte 3"),
        (b'{"a": 1, "a": 1}', "it: duplicate key 'a'"),
        (b'{"x": {"\\u0061": 1, "a": 1}}', "it: duplicate key 'a'"),
        (b"[NaN]", "it: NaN is not JSON"),
        (b"[-Infinity]", "it: -Infinity is not JSON"),
        (b"[1e999]", "it: number out of range: 1e999"),
        (b"[-1e999]", "it: number out of range: -1e999"),
        (b'["\\ud800"]', "it: half of a surrogate pair"),
        (b'{"\\udfff": 1}', "it: half of a surrogate pair"),
        (b"\xff", "it: not UTF-8 at byte 0"),
        (b"\xef\xbb\xbf{}", "it: Unexpected UTF-8 BOM (decode using utf-8-sig) at byte 0"),
        (b'["\xc3\xa9", ]', "it: Illegal trailing comma before end of array at byte 5"),
        (b"[" * 100_000, f"it: nested more than {MAX_DEPTH} deep"),
        (b'{"a":' * (MAX_DEPTH + 1), f"it: nested more than {MAX_DEPTH} deep"),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadEvidence) as refusal:
        load_json(data, "it")
    # Python words a few of the JSON errors differently from version to version.
    assert refusal.value.message == reason or "Expecting" in refusal.value.message


def test_brackets_in_strings_are_no_depth() -> None:
    text = '["' + "[{" * 1000 + '\\"[", "\\ud83d\\ude00"]'
    assert load_json(text.encode(), "it") == ["[{" * 1000 + '"[', "\N{GRINNING FACE}"]
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert load_json(deep, "it")


def test_an_unclosed_string_costs_no_more_than_its_length() -> None:
    # Backtracking would need years for this.
    with pytest.raises(BadEvidence):
        load_json(b'["' + b'\\"' * 500_000, "it")


@given(st.binary())
def test_base64_that_was_encoded_decodes(data: bytes) -> None:
    encoded = base64.b64encode(data).decode()
    assert decode_base64(encoded) == data
    assert decode_base64("\r\n".join(encoded)) == data


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("foo", 0),  # Go reports the start of the quantum that is cut short
        ("QUJDfoo", 4),
        ("a===", 1),
        ("QU=D", 2),
        ("QUI=QUJD", 4),
        ("QU==x", 4),
        ("QUJD!", 4),
        ("=", 0),
        ("QU=", 3),
        ("QUJD é", 4),
        ("QUJ_", 3),
    ],
)
def test_base64_faults_name_the_byte(text: str, offset: int) -> None:
    with pytest.raises(ValueError, match=f"^illegal base64 data at input byte {offset}$"):
        decode_base64(text)


def test_two_texts_are_never_one_value() -> None:
    assert decode_base64("QQ==") == b"A"
    with pytest.raises(ValueError, match="illegal base64 data"):
        decode_base64("QR==")
