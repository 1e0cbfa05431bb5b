"""Wrapping as go-wordwrap does it."""

from __future__ import annotations

import pytest

from conforma.report.wrapping import harmless, harmless_line, wrapped


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("foo bar baz", "foo bar\nbaz"),
        ("foo", "foo"),
        ("one two  three", "one two\nthree"),
        ("exactly8 x", "exactly8\nx"),
        ("a\nb  c\n\nd", "a\nb  c\n\nd"),
        ("extraordinarily x", "extraordinarily\nx"),
        ("x extraordinarily", "x\nextraordinarily"),
        ("a b\u00a0c d\u00a0e", "a b\u00a0c\nd\u00a0e"),
        ("tab\tbed", "tab\tbed"),
        ("trailing   ", "trailing"),
        ("x   ", "x   "),
        ("", ""),
    ],
)
def test_wraps_at_eight_columns(text: str, expected: str) -> None:
    assert wrapped(text, 8) == expected


def test_a_megabyte_is_wrapped_in_linear_time() -> None:
    text = "word " * 200_000
    assert max(map(len, wrapped(text, 128).split("\n"))) <= 128


def test_shows_what_a_terminal_would_obey() -> None:
    assert harmless("a\x1b[31m\u202eb\x9b\n\tc") == "a\\x1b[31m\\u202eb\\x9b\n\tc"
    assert harmless_line("a\nb\tc") == "a\\nb\\tc"
