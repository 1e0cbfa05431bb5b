"""Components judged by real rules in the real engine (section 4)."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from conforma.errors import (
    CompileFailed,
    EvaluationFailed,
    PolicyError,
    RegistryUnreachable,
)
from conforma.findings import Finding, PolicyWarning, Success, Violation
from conforma.oci.reference import Reference
from conforma.policy.effective_time import nanoseconds
from conforma.policy.evaluation import SourceGroupEvaluator, judge_all
from conforma.policy.judgement import GroupOutcome
from conforma.policy.rego.engine import Engine
from conforma.policy.selection import FilterType
from conforma.policy.source_group import Criterion, Patterns, SourceGroup, Volatile

NOW = datetime(2025, 7, 20, 12, tzinfo=UTC)
DIGEST = "sha256:" + "1" * 64
IMAGE = Reference.parse(f"reg.example/shop/web@{DIGEST}")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine.start() as running:
        yield running


Evaluator = Callable[..., SourceGroupEvaluator]


@pytest.fixture
def evaluator(engine: Engine, tmp_path: Path) -> Evaluator:
    def make(
        *modules: str,
        group: SourceGroup | None = None,
        configuration: Patterns | None = None,
        mode: FilterType = "include-exclude",
        data: dict[str, Any] | None = None,
    ) -> SourceGroupEvaluator:
        directory = tmp_path / "policy"
        directory.mkdir(exist_ok=True)
        for number, text in enumerate(modules):
            (directory / f"{number}.rego").write_text(dedent(text), encoding="utf-8")
        data_dirs = []
        if data is not None:
            (tmp_path / "data").mkdir()
            (tmp_path / "data" / "data.json").write_text(json.dumps(data), encoding="utf-8")
            data_dirs = [tmp_path / "data"]
        return SourceGroupEvaluator(
            engine,
            group or SourceGroup(),
            policy_dirs=[directory],
            data_dirs=data_dirs,
            configuration=configuration,
            sigstore_options={"rekor_url": "https://rekor.example"},
            started=NOW,
            mode=mode,
        )

    return make


def judge(
    evaluator: SourceGroupEvaluator,
    document: dict[str, Any] | None = None,
    *,
    image: Reference = IMAGE,
    component: str = "web",
    moment: datetime = NOW,
    builtins: dict[str, Callable[..., Any]] | None = None,
) -> GroupOutcome:
    return evaluator.judge(
        json.dumps(document or {}).encode(),
        image=image,
        component_name=component,
        moment=moment,
        builtins=builtins,
    )


def told(outcome: GroupOutcome) -> list[tuple[str, str]]:
    """Kind and what it is about: the code with terms, else the message."""

    def about(finding: Finding) -> str:
        return ":".join([finding.code, *finding.terms]) if finding.code else finding.message

    return sorted((type(found).__name__, about(found)) for found in outcome.findings)


EXCLUDE_PKG = SourceGroup(config=Patterns(exclude=("pkg",)))

TERMS = """
    package main

    # METADATA
    # title: Rejector
    # description: Rejects what is named.
    # custom:
    #   short_name: reject
    #   solution: Name nothing.
    #   collections: [strict]
    deny contains result if {
        some name in input.names
        result := {"msg": sprintf("%s is rejected.", [name]), "code": "main.reject", "term": name}
    }
"""


def test_a_rule_that_speaks_is_a_violation_and_one_that_is_silent_a_success(
    evaluator: Evaluator,
) -> None:
    rules = evaluator(TERMS)
    assert told(judge(rules)) == [("Success", "main.reject")]
    (found,) = judge(rules, {"names": ["x"]}).findings
    assert found == Violation(
        "x is rejected.",
        {
            "code": "main.reject",
            "term": "x",
            "title": "Rejector",
            "description": 'Rejects what is named. To exclude this rule add "main.reject:x" to '
            "the `exclude` section of the policy configuration.",
            "solution": "Name nothing.",
            "collections": ["strict"],
        },
    )


def test_the_trail_tells_which_item_decided(evaluator: Evaluator) -> None:
    group = SourceGroup(config=Patterns(exclude=("main.reject:x",)))
    outcome = judge(evaluator(TERMS, group=group), {"names": ["x", "y"]})
    assert told(outcome) == [("Violation", "main.reject:y")]
    (step,) = [step for step in outcome.trail if step.fate == "excluded" and step.query]
    assert step.query == "data.main.deny"
    assert [(m.item.value, m.item.origin, m.score) for m in step.decision.exclude] == [
        ("main.reject:x", "config.exclude", 210)
    ]
    assert [(m.item.value, m.item.origin, m.score) for m in step.decision.include] == [
        ("*", "default", 1)
    ]


def test_when_all_that_failed_is_excluded_by_its_terms_the_rule_has_passed(
    evaluator: Evaluator,
) -> None:
    group = SourceGroup(config=Patterns(exclude=("main.reject:x",)))
    assert told(judge(evaluator(TERMS, group=group), {"names": ["x"]})) == [
        ("Success", "main.reject")
    ]


def test_only_violations_tell_how_to_exclude_them(evaluator: Evaluator) -> None:
    (found,) = judge(
        evaluator(TERMS.replace("deny contains", "warn contains")), {"names": ["x"]}
    ).findings
    assert found.metadata["description"] == "Rejects what is named."


def test_a_volatile_exclude_holds_for_its_component_and_time_only(evaluator: Evaluator) -> None:
    entry = Criterion("main.reject", effective_until="2025-07-21", component_names=("web",))
    rules = evaluator(TERMS, group=SourceGroup(volatile=Volatile(exclude=(entry,))))
    names = {"names": ["x"]}
    with pytest.raises(EvaluationFailed, match="check input"):
        judge(rules, names)
    with pytest.raises(EvaluationFailed, match="check input"):
        judge(rules, names, component=f"web-{DIGEST}-arm64")
    assert told(judge(rules, names, component="api")) == [("Violation", "main.reject:x")]
    assert told(judge(rules, names, moment=NOW + timedelta(days=2))) == [
        ("Violation", "main.reject:x")
    ]


def test_an_include_for_one_image_does_not_silence_the_others(evaluator: Evaluator) -> None:
    entry = Criterion("main.other", image_url="reg.example/shop/api")
    rules = evaluator(TERMS, group=SourceGroup(volatile=Volatile(include=(entry,))))
    assert told(judge(rules, {"names": ["x"]})) == [("Violation", "main.reject:x")]


def test_rules_without_annotations_report_without_metadata(evaluator: Evaluator) -> None:
    rules = evaluator("""
        package main
        deny contains "bad" if input.bad
        warn contains {"msg": "odd", "code": "main.odd"} if input.odd
    """)
    outcome = judge(rules, {"bad": True, "odd": True})
    assert outcome.findings == (
        Violation("bad", {}),
        PolicyWarning("odd", {"code": "main.odd"}),
    )


def test_a_failure_with_the_code_of_a_warning_stays_a_failure(evaluator: Evaluator) -> None:
    rules = evaluator("""
        package main
        deny contains {"msg": "broken", "code": "main.same"}
        warn contains {"msg": "odd", "code": "main.same"}
        deny_plain contains "same words"
        warn_plain contains "same words"
    """)
    assert sorted((type(f).__name__, f.message) for f in judge(rules).findings) == [
        ("PolicyWarning", "odd"),
        ("PolicyWarning", "same words"),
        ("Violation", "broken"),
        ("Violation", "same words"),
    ]


def test_complete_rules_and_odd_members_are_heard(evaluator: Evaluator) -> None:
    rules = evaluator("""
        package main
        deny := "as text" if true
        deny_object := {"msg": "as object"} if true
        deny_list := x if x := ["as list"]
        deny_flag := x if x := input.flag
        deny_members contains x if some x in [7, [1], "", {"msg": "as member"}]
    """)
    outcome = judge(rules, {"flag": True})
    assert sorted(finding.message for finding in outcome.findings) == [
        "as list",
        "as member",
        "as object",
        "as text",
        "unexpected policy result type array: [1]",
        "unexpected policy result type boolean: true",
        "unexpected policy result type number: 7",
    ]
    assert all(isinstance(finding, Violation) for finding in outcome.findings)
    messages = [finding.message for finding in judge(rules, {"flag": False}).findings]
    assert not any("boolean" in message for message in messages)


def test_an_object_without_a_message_stops_the_component(evaluator: Evaluator) -> None:
    rules = evaluator('package main\ndeny contains {"code": "main.x"}')
    with pytest.raises(EvaluationFailed, match='"msg" field must be present and a string'):
        judge(rules)


def test_packages_of_several_segments_are_judged_and_told_apart(evaluator: Evaluator) -> None:
    one = 'package a.pkg\ndeny contains {"msg": "no", "code": "a.pkg.rule"}'
    two = 'package b.pkg\ndeny contains {"msg": "no", "code": "b.pkg.rule"}'
    assert told(judge(evaluator(one, two))) == [
        ("Violation", "a.pkg.rule"),
        ("Violation", "b.pkg.rule"),
    ]
    group = SourceGroup(config=Patterns(exclude=("a.pkg",)))
    assert told(judge(evaluator(one, two, group=group))) == [("Violation", "b.pkg.rule")]
    with pytest.raises(EvaluationFailed, match="check input"):
        judge(evaluator(one, two, group=EXCLUDE_PKG))


def test_packages_with_unusual_names_are_judged(evaluator: Evaluator) -> None:
    rules = evaluator('package odd["name-with dots.x"]["import"]\ndeny contains "heard"')
    assert told(judge(rules)) == [("Violation", "heard")]


def test_an_annotated_rule_without_a_short_name_is_judged(evaluator: Evaluator) -> None:
    named = TERMS
    nameless = """
        package other
        # METADATA
        # title: Without a short name
        deny contains "heard"
    """
    assert ("Violation", "heard") in told(judge(evaluator(named, nameless)))


def test_a_package_that_is_left_out_is_not_evaluated(evaluator: Evaluator) -> None:
    broken = """
        package pkg
        value := 1 if input.broken
        value := 2 if input.broken
        deny contains {"msg": "never", "code": "pkg.rule"} if value
    """
    document = {"broken": True, "names": ["x"]}
    rules = evaluator(TERMS, broken, group=EXCLUDE_PKG)
    outcome = judge(rules, document)
    assert outcome.packages.names == ("main",)
    assert told(outcome) == [("Violation", "main.reject:x")]
    with pytest.raises(EvaluationFailed, match="eval_conflict_error"):
        judge(evaluator(TERMS, broken), document)


def test_an_include_that_matches_nothing_is_a_warning(evaluator: Evaluator) -> None:
    group = SourceGroup(config=Patterns(include=("main", "not-a-rule")))
    assert told(judge(evaluator(TERMS, group=group))) == [
        ("PolicyWarning", "Include criterion 'not-a-rule' doesn't match any policy rule"),
        ("Success", "main.reject"),
    ]


def test_nothing_examined_is_an_error(evaluator: Evaluator) -> None:
    rules = evaluator("package main\nhelper := 1")
    with pytest.raises(EvaluationFailed) as error:
        judge(rules)
    assert error.value.message == "no successes, warnings, or failures, check input"
    assert error.value.exit_status == 1


def test_an_exception_silences_the_rule_it_names_and_no_other(evaluator: Evaluator) -> None:
    rules = evaluator("""
        package main
        deny_one contains "one"
        deny_two contains "two"
        warn_one contains "also one"
        deny contains "bare"
        exception contains ["one", ""] if input.excepted
    """)
    assert told(judge(rules)) == [
        ("PolicyWarning", "also one"),
        ("Violation", "bare"),
        ("Violation", "one"),
        ("Violation", "two"),
    ]
    outcome = judge(rules, {"excepted": True})
    assert told(outcome) == [("Violation", "two")]
    excepted = [step for step in outcome.trail if step.fate == "excepted"]
    assert {step.decision.reason for step in excepted} == {"data.main.exception names the rule"}


def test_a_result_that_is_excepted_may_have_any_metadata(evaluator: Evaluator) -> None:
    rules = evaluator("""
        package main
        deny contains {"msg": "known", "code": "main.known", "collections": null}
        deny_two contains "two"
        exception contains [""]
    """)
    outcome = judge(rules)
    assert told(outcome) == [("Violation", "two")]
    (excepted,) = (step.finding for step in outcome.trail if step.fate == "excepted")
    assert excepted.metadata == {"code": "main.known"}


def test_dates_and_severity_decide_the_kind(evaluator: Evaluator) -> None:
    rules = evaluator("""
        package main
        # METADATA
        # custom:
        #   short_name: later
        #   effective_on: 2025-08-01T00:00:00Z
        deny contains {"msg": "Soon.", "code": "main.later"}
        deny contains {"msg": "mild", "code": "main.mild", "severity": "warning"}
        warn contains {"msg": "grave", "code": "main.grave", "severity": "failure"}
    """)
    assert told(judge(rules)) == [
        ("PolicyWarning", "main.later"),
        ("PolicyWarning", "main.mild"),
        ("Violation", "main.grave"),
    ]
    messages = {finding.code: finding.message for finding in judge(rules).findings}
    assert messages["main.later"] == (
        "Soon. This will become a failure starting on 2025-08-01T00:00:00Z"
    )
    later = judge(rules, moment=NOW + timedelta(days=30))
    assert ("Violation", "main.later") in told(later)


def test_consequences_are_left_out_and_explained(evaluator: Evaluator) -> None:
    rules = evaluator("""
        package main
        # METADATA
        # custom:
        #   short_name: cause
        deny contains {"msg": "cause", "code": "main.cause"} if input.broken
        # METADATA
        # custom:
        #   short_name: effect
        #   depends_on: [main.cause, main.absent]
        deny contains {"msg": "effect", "code": "main.effect"} if input.broken
        # METADATA
        # custom:
        #   short_name: silent
        #   depends_on: main.cause
        deny contains {"msg": "silent", "code": "main.silent"} if input.absent
    """)
    outcome = judge(rules, {"broken": True})
    assert told(outcome) == [("Violation", "main.cause")]
    assert {step.finding.code for step in outcome.trail if step.fate == "consequence"} == {
        "main.effect",
        "main.silent",
    }
    assert len(told(judge(rules))) == 3


def test_ec_policy_mode_reads_the_intention_of_the_rule_data(evaluator: Evaluator) -> None:
    modules = """
        package main
        # METADATA
        # custom:
        #   short_name: release
        #   pipeline_intention: [release]
        deny contains {"msg": "no", "code": "main.release"}
        # METADATA
        # custom:
        #   short_name: plain
        deny contains {"msg": "no", "code": "main.plain"}
    """
    group = SourceGroup(rule_data={"pipeline_intention": "release"})
    assert told(judge(evaluator(modules, group=group, mode="ec-policy"))) == [
        ("Violation", "main.release")
    ]
    assert told(judge(evaluator(modules, mode="ec-policy"))) == [("Violation", "main.plain")]
    assert len(told(judge(evaluator(modules, group=group)))) == 2


DATA = """
    package main
    deny contains json.marshal([
        data.config.policy.when_ns,
        data.config.default_sigstore_opts,
        data.rule_data__configuration__,
        data.conftest.file.name,
        data.own,
    ])
"""


def test_rules_see_their_data_and_the_moment_of_their_component(evaluator: Evaluator) -> None:
    group = SourceGroup(rule_data={"key": ["value", 1.0, 1e3]})
    rules = evaluator(DATA, group=group, data={"own": 7})
    for moment in (NOW, NOW + timedelta(days=1)):
        (found,) = judge(rules, moment=moment).findings
        assert json.loads(found.message) == [
            nanoseconds(moment),
            {"rekor_url": "https://rekor.example"},
            {"key": ["value", 1, 1000]},
            "input.json",
            7,
        ]
        assert '["value",1,1000]' in found.message  # as Go reads and writes 1.0 and 1e3


def test_without_rule_data_there_is_no_such_document(evaluator: Evaluator) -> None:
    rules = evaluator("""
        package main
        deny contains "there is" if data.rule_data__configuration__
        deny contains "there is none" if not data.rule_data__configuration__
    """)
    assert told(judge(rules)) == [("Violation", "there is none")]


def test_rules_are_compiled_once_and_asked_once_for_each_component(
    evaluator: Evaluator, tmp_path: Path
) -> None:
    modules = [
        f'package p{n}\ndeny contains ec.oci.blob("reg.example/a@{DIGEST}") if true'
        for n in range(5)
    ]
    rules = evaluator(*modules)
    calls: list[str] = []

    def blob(reference: str) -> str:
        calls.append(reference)
        return "content"

    first = judge(rules, builtins={"ec.oci.blob": blob})
    assert len(first.findings) == 5
    assert len(calls) == 1
    shutil.rmtree(tmp_path / "policy")
    judge(rules, builtins={"ec.oci.blob": blob})
    assert len(calls) == 2


def test_an_outage_met_by_a_builtin_comes_out_unchanged(evaluator: Evaluator) -> None:
    rules = evaluator('package main\ndeny contains "x" if not ec.oci.blob("a")')
    outage = RegistryUnreachable("reg.example did not answer in time")

    def blob(_: str) -> str:
        raise outage

    with pytest.raises(RegistryUnreachable) as error:
        judge(rules, builtins={"ec.oci.blob": blob})
    assert error.value is outage


def test_components_are_judged_at_the_same_time_without_mixing(evaluator: Evaluator) -> None:
    rules = evaluator("""
        package main
        deny contains {"msg": m, "code": "main.x", "term": input.names[0]} if m := ec.oci.blob("a")
    """)
    everyone_is_in = threading.Barrier(4, timeout=30)

    def blob(_: str) -> str:
        everyone_is_in.wait()
        return "seen"

    def one(number: int) -> list[tuple[str, str]]:
        return told(judge(rules, {"names": [f"n{number}"]}, builtins={"ec.oci.blob": blob}))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(4)))
    assert found == [[("Violation", f"main.x:n{number}")] for number in range(4)]


def test_a_removed_function_is_a_compilation_error_with_advice(evaluator: Evaluator) -> None:
    rules = evaluator('package main\ndeny contains "x" if http.send({})')
    with pytest.raises(CompileFailed) as error:
        judge(rules)
    assert error.value.message.startswith(
        "policy compilation error: the policy references Rego built-in functions not available "
    )
    assert "rego_type_error: undefined function http.send" in error.value.message


def test_a_file_that_does_not_parse_is_named(evaluator: Evaluator) -> None:
    rules = evaluator("package main\ndeny contains if {")
    for _ in range(2):
        with pytest.raises(CompileFailed, match=r"0\.rego:2: rego_parse_error"):
            judge(rules)


def test_two_rules_with_one_code_are_refused(evaluator: Evaluator) -> None:
    rules = evaluator(TERMS, TERMS)
    with pytest.raises(PolicyError, match=r"second rule with the same code: `main\.reject`"):
        judge(rules)


def test_an_unsupported_rule_is_refused_with_its_place(evaluator: Evaluator) -> None:
    rules = evaluator("package main\n\ndeny = true if { true }")
    with pytest.raises(PolicyError) as error:
        judge(rules)
    assert error.value.message == (
        'the rule "deny = true if { true }" returns an unsupported value, at 0.rego:3'
    )


def test_source_groups_are_added_up_with_the_built_in_checks(evaluator: Evaluator) -> None:
    rules = evaluator(TERMS)
    builtin = Success("Pass", {"code": "builtin.x", "title": "Title"})
    arguments: dict[str, Any] = {
        "image": IMAGE,
        "component_name": "web",
        "moment": NOW,
        "also": [builtin],
    }
    found = judge_all([rules] * 3, b'{"names": ["b", "a"]}', **arguments)
    assert [finding.terms for finding in found.violations] == [("a",)] * 3 + [("b",)] * 3
    assert found.successes == (Success("Pass", {"code": "builtin.x"}),)
    assert found.violations[0].metadata == {"code": "main.reject", "term": "a"}
    found = judge_all([rules], b'{"names": ["b", "a"]}', info=True, **arguments)
    assert found.successes == (builtin,)
    assert found.violations[0].metadata["title"] == "Rejector"
    assert judge_all([], b"{}", **arguments).successes == (Success("Pass", {"code": "builtin.x"}),)


def test_a_trace_is_logged_under_the_name_of_the_query(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "main.rego").write_text('package main\ndeny contains "x"', encoding="utf-8")
    rules = SourceGroupEvaluator(
        engine, SourceGroup(), policy_dirs=[tmp_path], started=NOW, trace=True
    )
    with caplog.at_level(1, logger="conforma.rego"):
        judge(rules)
    assert any(
        message.startswith("[data.main.deny] ") and "Enter data.main.deny" in message
        for message in caplog.messages
    )
