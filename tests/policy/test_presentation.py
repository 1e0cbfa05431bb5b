"""Dependencies, notes, trimming and order (4.12 to 4.14)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conforma.findings import Finding, PolicyWarning, Success, Violation
from conforma.policy.presentation import (
    Findings,
    consequences,
    in_report_order,
    with_exclude_note,
    without_details,
)
from conforma.policy.rules import Rule


def rules(**depends_on: tuple[str, ...]) -> dict[str, Rule]:
    return {code: Rule(code, "main", depends_on=causes) for code, causes in depends_on.items()}


def hidden(findings: list[Finding], known: dict[str, Rule]) -> set[str]:
    return set(consequences(findings, known))


def failed(code: str) -> Violation:
    return Violation("no", {"code": code})


def warned(code: str) -> PolicyWarning:
    return PolicyWarning("hm", {"code": code})


def passed(code: str) -> Success:
    return Success("Pass", {"code": code})


@pytest.mark.parametrize(
    ("findings", "known", "expected"),
    [
        ([failed("a"), failed("b")], rules(a=("b",)), {"a"}),
        ([passed("a"), failed("b")], rules(a=("b",)), {"a"}),
        ([failed("a"), warned("b")], rules(a=("b",)), {"a"}),
        ([failed("a"), passed("b")], rules(a=("b",)), set()),
        ([failed("a")], rules(a=("b",)), set()),
        # One reported dependency of several is enough.
        ([failed("a"), failed("c")], rules(a=("b", "c")), {"a"}),
        ([failed("a")], rules(a=("b", "c")), set()),
        # A chain leaves its first cause.
        ([failed("a"), failed("b"), failed("c")], rules(a=("b",), b=("c",)), {"a", "b"}),
        # A circle explains nothing, unless something outside does.
        ([failed("a"), failed("b")], rules(a=("b",), b=("a",)), set()),
        ([failed("a")], rules(a=("a",)), set()),
        ([failed("a"), failed("b"), failed("c")], rules(a=("b",), b=("a", "c")), {"a", "b"}),
        ([passed("x"), failed("a"), failed("b")], rules(x=("a",), a=("b",), b=("a",)), {"x"}),
    ],
)
def test_what_depends_on_a_reported_rule_is_not_reported(
    findings: list[Finding], known: dict[str, Rule], expected: set[str]
) -> None:
    assert hidden(findings, known) == expected


@given(
    st.dictionaries(
        st.sampled_from("abcde"), st.lists(st.sampled_from("abcde"), max_size=3).map(tuple)
    ),
    st.dictionaries(st.sampled_from("abcde"), st.sampled_from([failed, warned, passed])),
)
def test_something_that_went_wrong_is_always_reported(
    causes: dict[str, tuple[str, ...]], kinds: dict[str, Any]
) -> None:
    findings = [make(code) for code, make in kinds.items()]
    suppressed = hidden(findings, rules(**causes))
    wrong = {f.code for f in findings if not isinstance(f, Success)}
    assert not wrong or wrong - suppressed


@pytest.mark.parametrize(
    ("metadata", "description"),
    [
        ({"code": "a.b"}, 'Text. To exclude this rule add "a.b" to the `exclude` section'),
        ({"code": "a.b", "term": "t"}, 'Text. To exclude this rule add "a.b:t" to the'),
        (
            {"code": "a.b", "term": ["t", "", "u"]},
            'Text. To exclude this rule add one or more of "a.b:t", "a.b:u" to the',
        ),
        ({"code": "a.b", "term": ["t"]}, 'Text. To exclude this rule add "a.b:t" to the'),
        ({"code": "a.b", "term": 5}, 'Text. To exclude this rule add "a.b" to the'),
    ],
)
def test_a_violation_tells_how_to_exclude_it(metadata: dict[str, Any], description: str) -> None:
    for text in ("Text.", "Text"):
        found = with_exclude_note(Violation("no", metadata | {"description": text}))
        assert found.metadata["description"].startswith(description)
        assert found.metadata["description"].endswith(
            " to the `exclude` section of the policy configuration."
        )


@pytest.mark.parametrize("metadata", [{"code": "a.b"}, {"description": "Text."}, {}])
def test_without_description_or_code_there_is_no_note(metadata: dict[str, Any]) -> None:
    assert with_exclude_note(Violation("no", metadata)).metadata == metadata


def test_only_code_date_and_term_survive_trimming() -> None:
    metadata = {"title": "T", "code": "a.b", "term": ["t"], "effective_on": "x", "own": 1}
    assert without_details(failed("x")) == failed("x")
    assert without_details(Violation("no", metadata)) == Violation(
        "no", {"code": "a.b", "effective_on": "x", "term": ["t"]}
    )


def test_findings_are_ordered_by_code_first_term_and_message() -> None:
    ordered = [
        Violation("z", {}),
        Violation("a", {"code": "A"}),
        Violation("b", {"code": "a"}),
        Violation("b", {"code": "a", "term": ["", "s"]}),
        Violation("a", {"code": "a", "term": "t"}),
        Violation("b", {"code": "a", "term": "t"}),
        Violation("a", {"code": "é"}),
    ]
    assert list(in_report_order(reversed(ordered))) == ordered


def test_findings_are_sorted_by_kind_and_nothing_is_merged() -> None:
    title = {"code": "a", "title": "T"}
    given_findings = [Success("Pass", title), failed("b"), warned("c"), failed("b"), failed("a")]
    found = Findings.of(given_findings, info=False)
    assert found.violations == (failed("a"), failed("b"), failed("b"))
    assert found.warnings == (warned("c"),)
    assert found.successes == (passed("a"),)
    assert Findings.of(given_findings, info=True).successes == (Success("Pass", title),)
