"""From rule values to findings (4.4, 4.9, 4.10), against a plain model of the table."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conforma.errors import EvaluationFailed
from conforma.findings import PolicyWarning, Success, Violation
from conforma.policy.outcomes import (
    RuleResult,
    classified,
    described,
    results_of,
    success_of,
)
from conforma.policy.rules import Kind, Rule
from conforma.policy.scoring import Subject


def nested(levels: int) -> Any:
    value: Any = "x"
    for level in range(levels):
        value = [value] if level % 2 else {"inner": value}
    return value


@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: {"msg": "m", "more": v}])
def test_what_is_nested_too_deeply_to_be_reported_is_refused(wrap: Callable[[Any], Any]) -> None:
    levels = 100 - (1 if isinstance(wrap(""), dict) else 0)
    if levels < 100:
        assert read([wrap(nested(levels))]) == [("m", {"more": nested(levels)})]
    with pytest.raises(EvaluationFailed, match="nested in more than 100 levels") as caught:
        read([wrap(nested(levels + 1))])
    assert "deny" in str(caught.value.hint)


NOW = datetime(2025, 7, 20, 12, tzinfo=UTC)


def stamp(days: float) -> str:
    return (NOW + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")


def read(value: Any) -> list[tuple[str, dict[str, Any]]]:
    found = results_of(value, package="main", rule="deny", kind="failure")
    return [(result.message, dict(result.metadata)) for result in found]


def result(kind: Kind = "failure", message: str = "Fails.", **metadata: Any) -> RuleResult:
    return RuleResult("main", "deny" if kind == "failure" else "warn", kind, message, metadata)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([], []),
        (["Fails"], [("Fails", {})]),
        (["a", "", "b"], [("a", {}), ("b", {})]),
        ([{"msg": "m", "code": "c", "_loc": {"file": "x"}}], [("m", {"code": "c"})]),
        ([{"msg": ""}], []),
        # A rule that is not a set speaks as well.
        ("Fails", [("Fails", {})]),
        ("", []),
        ({"msg": "m", "term": "t"}, [("m", {"term": "t"})]),
        ({}, []),
        (False, []),
        ([False], []),
        # What is no result is named, not passed over.
        ([5], [("unexpected policy result type number: 5", {})]),
        ([True], [("unexpected policy result type boolean: true", {})]),
        ([["a"]], [('unexpected policy result type array: ["a"]', {})]),
        ([None], [("unexpected policy result type null: null", {})]),
        (True, [("unexpected policy result type boolean: true", {})]),
        (1.5, [("unexpected policy result type number: 1.5", {})]),
    ],
)
def test_what_a_rule_yields(value: Any, expected: list[tuple[str, dict[str, Any]]]) -> None:
    assert read(value) == expected


def test_a_huge_unexpected_value_is_shortened() -> None:
    ((message, _),) = read([["x" * 1000]])
    assert len(message) < 300
    assert message.endswith("…")


@pytest.mark.parametrize("value", [[{}], [{"msg": 5}], {"a": "b"}, {"msg": None}])
def test_an_object_without_a_message_is_a_fault_of_the_policy(value: Any) -> None:
    with pytest.raises(EvaluationFailed) as error:
        read(value)
    assert error.value.message == (
        'query rule: check: query rule: new result: "msg" field must be present and a string'
    )
    assert error.value.hint is not None
    assert error.value.hint.startswith("data.main.deny yields {")


RULE = Rule(
    "main.x",
    "main",
    "x",
    title="Title",
    description="Description.",
    solution="Solution",
    effective_on=stamp(10),
    collections=("a", "b"),
    depends_on=("main.y",),
)


def test_the_annotation_replaces_what_the_result_says_about_itself() -> None:
    found = described(
        result(code="main.x", title="own", severity="warning", collections=["own"], extra=1),
        {"main.x": RULE},
        NOW,
    )
    assert found.metadata == {
        "code": "main.x",
        "title": "Title",
        "description": "Description.",
        "solution": "Solution",
        "effective_on": stamp(10),
        "collections": ["a", "b"],
        "depends_on": ["main.y"],
        "severity": "warning",
        "extra": 1,
    }
    assert found.subject == Subject("main.x", (), ("a", "b"))


def test_empty_members_of_the_annotation_replace_nothing() -> None:
    own = {"code": "main.x", "title": "own", "collections": ["own"]}
    assert described(result(**own), {"main.x": Rule("main.x", "main")}, NOW).metadata == own


def test_an_unknown_code_keeps_its_metadata() -> None:
    found = described(result(code="x.y", collections=["a", 5, True]), {}, NOW)
    assert found.metadata == {"code": "x.y", "collections": ["a", "5", "true"]}


def test_collections_that_are_no_list_are_dropped() -> None:
    found = described(result(code="x.y", collections="a"), {}, NOW)
    assert found.metadata == {"code": "x.y"}
    assert found.subject == Subject("x.y")


def test_a_result_without_a_code_keeps_its_metadata() -> None:
    own = {"collections": "a", "effective_on": stamp(-1000), "term": "t"}
    found = described(result(**own), {}, NOW)
    assert found.metadata == own
    assert found.subject == Subject("")


@pytest.mark.parametrize(
    ("effective_on", "kept"),
    [
        (stamp(-89.9), True),
        (stamp(-90), True),
        (stamp(-90.1), False),
        (stamp(10), True),
        ("long ago", True),
        ("2020-01-01", True),
        (5, True),
    ],
)
def test_a_date_long_past_is_dropped(effective_on: Any, kept: bool) -> None:
    found = described(result(code="x.y", effective_on=effective_on), {}, NOW)
    assert ("effective_on" in found.metadata) == kept


def test_a_failure_that_is_not_in_force_tells_since_when_it_will_be() -> None:
    found = classified(result(effective_on=stamp(1)), NOW)
    assert isinstance(found, PolicyWarning)
    assert found.message == f"Fails. This will become a failure starting on {stamp(1)}"
    found = classified(result(message="No dot", effective_on=stamp(1)), NOW)
    assert found.message == f"No dot. This will become a failure starting on {stamp(1)}"


def model_kind(kind: Kind, metadata: dict[str, Any]) -> type:
    """The table of section 4.9, row by row."""
    severity = metadata.get("severity")
    if kind == "warning":
        return Violation if severity == "failure" else PolicyWarning
    if severity == "warning":
        return PolicyWarning
    date = metadata.get("effective_on")
    if date in {stamp(0), stamp(1), stamp(400)}:
        return PolicyWarning
    return Violation


@given(
    st.sampled_from(["failure", "warning"]),
    st.fixed_dictionaries(
        {},
        optional={
            "severity": st.sampled_from(["failure", "warning", "Warning", "", 5, None]),
            "effective_on": st.sampled_from(
                [stamp(-400), stamp(-1), stamp(0), stamp(1), stamp(400), "2999-01-01", "", 5, None]
            ),
        },
    ),
)
def test_kinds_agree_with_the_model(kind: Kind, metadata: dict[str, Any]) -> None:
    assert type(classified(result(kind, **metadata), NOW)) is model_kind(kind, metadata)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"severity": 5}, 'Ignoring non-string "severity" value 5'),
        ({"severity": "high"}, 'Ignoring unexpected "severity" value high'),
        ({"effective_on": ["x"]}, 'Ignoring non-string "effective_on" value ["x"]'),
        ({"effective_on": "soon"}, 'Invalid "effective_on" value "soon"'),
    ],
)
def test_unusable_metadata_is_told(
    metadata: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert isinstance(classified(result(**metadata), NOW), Violation)
    assert caplog.messages == [message]


def test_a_success_has_no_solution() -> None:
    assert success_of(RULE) == Success(
        "Pass",
        {
            "code": "main.x",
            "title": "Title",
            "description": "Description.",
            "collections": ["a", "b"],
            "depends_on": ["main.y"],
            "effective_on": stamp(10),
        },
    )
    assert success_of(Rule("main.z", "main")) == Success("Pass", {"code": "main.z"})
