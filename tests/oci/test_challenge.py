from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conforma.oci.challenge import Challenge, parse_challenges


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            ['Bearer realm="https://a.example/t?x=1,2",service="s",scope="repository:a:pull,push"'],
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://a.example/t?x=1,2",
                        "service": "s",
                        "scope": "repository:a:pull,push",
                    },
                )
            ],
        ),
        (['BASIC Realm="x"'], [Challenge("basic", {"realm": "x"})]),
        (
            ["Negotiate, Basic realm=x"],
            [Challenge("negotiate"), Challenge("basic", {"realm": "x"})],
        ),
        (["Negotiate", "Basic"], [Challenge("negotiate"), Challenge("basic")]),
        (['Basic realm="a \\"quoted\\" word"'], [Challenge("basic", {"realm": 'a "quoted" word'})]),
        (
            ["Bearer realm=https://a.example/t , service = s"],
            [Challenge("bearer", {"realm": "https://a.example/t", "service": "s"})],
        ),
        ([], []),
        (["", ",,,", '"', "==="], []),
    ],
)
def test_challenges_are_read_as_registries_write_them(
    headers: list[str], expected: list[Challenge]
) -> None:
    assert list(parse_challenges(headers)) == expected


values = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["bearer", "basic", "digest"]),
            st.dictionaries(st.sampled_from(["realm", "service", "scope"]), values, min_size=1),
        ),
        max_size=3,
    )
)
def test_what_was_written_by_the_rules_is_read_back(
    written: list[tuple[str, dict[str, str]]],
) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        f"{scheme} " + ", ".join(f"{k}={quoted(v)}" for k, v in parameters.items())
        for scheme, parameters in written
    )
    assert [(c.scheme, dict(c.parameters)) for c in parse_challenges([header])] == written


@given(st.text(max_size=200))
def test_no_text_breaks_the_parser(header: str) -> None:
    parse_challenges([header])
