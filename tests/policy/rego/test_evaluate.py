"""Evaluation: values, builtins answered by Python, what is shared and what is not."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conforma.errors import EvaluationFailed, RegistryUnreachable
from conforma.policy.rego.engine import Engine, Input, Output, Ruleset, Shared, Undefined

Rules = Callable[..., Ruleset]


def test_every_query_gets_the_values_of_its_solutions(rules: Rules) -> None:
    ruleset = rules("""
        package main
        deny contains msg if { some msg in input.messages }
        never if { input.absent }
    """)
    queries = ["data.main.deny", "data.main.never", "[data.main.deny[_], input.n]"]
    found = ruleset.evaluate(b'{"messages": ["b", "a"], "n": 1}', queries)
    assert found == [[["a", "b"]], [], [["a", 1], ["b", 1]]]


def test_numbers_keep_their_digits(rules: Rules) -> None:
    ruleset = rules("package main\nvalue := input.value")
    found = ruleset.evaluate(b'{"value": [12345678901234567890, 1.5]}', ["data.main.value"])
    assert found == [[[12345678901234567890, 1.5]]]


def test_metadata_chain_reaches_rule_and_package(rules: Rules) -> None:
    ruleset = rules("""
        # METADATA
        # title: The package
        package main

        # METADATA
        # title: The rule
        # custom:
        #   short_name: speak
        deny contains [link.annotations.title | some link in rego.metadata.chain()]
    """)
    assert ruleset.evaluate(b"{}", ["data.main.deny"]) == [[[["The rule", "The package"]]]]


def test_match_schema_names_the_additional_property(rules: Rules) -> None:
    ruleset = rules("""
        package main
        schema := {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": false}
        result := json.match_schema(input, schema)
    """)
    [[[matches, errors]]] = ruleset.evaluate(b'{"b": 1}', ["data.main.result"])
    assert not matches
    assert [error["desc"] for error in errors] == ["Additional property b is not allowed"]


def test_a_schema_elsewhere_is_not_fetched(rules: Rules) -> None:
    ruleset = rules("""
        package main
        schema := {"$ref": "http://127.0.0.1:9/schema.json"}
        result := json.verify_schema(schema)
    """)
    [[[valid, reason]]] = ruleset.evaluate(b"{}", ["data.main.result"])
    assert not valid
    assert "policies have no access to the network" in reason


def test_regular_expressions_are_those_of_re2(rules: Rules) -> None:
    ruleset = rules(r"""
        package main
        valid := [regex.is_valid(p) | some p in [`^a+$`, `(?=a)`, `(a)\1`]]
        replaced := regex.replace("sha256-abc", `^(\w+)-`, "$1:")
    """)
    found = ruleset.evaluate(b"{}", ["data.main.valid", "data.main.replaced"])
    assert found == [[[True, False, False]], ["sha256:abc"]]


def test_fault_95_an_expression_built_to_backtrack_does_not(rules: Rules) -> None:
    # Where expressions backtrack, this would end with the universe.
    ruleset = rules("""
        package main
        found := regex.match(`^(a+)+$`, concat("", [input.many, "b"]))
    """)
    document = b'{"many": "%s"}' % (b"a" * 100_000)
    assert ruleset.evaluate(document, ["data.main.found"]) == [[False]]


def test_a_failing_function_of_opa_is_undefined_and_stops_nothing(rules: Rules) -> None:
    ruleset = rules('package main\nv := to_number("x")\nw := 1')
    assert ruleset.evaluate(b"{}", ["data.main.v", "data.main.w"]) == [[], [1]]


def test_a_contradiction_names_file_and_row(rules: Rules) -> None:
    ruleset = rules("""
        package main
        v := 1
        v := x if { x := input.x }
    """)
    with pytest.raises(EvaluationFailed, match=r"main\.rego:4: eval_conflict_error"):
        ruleset.evaluate(b'{"x": 2}', ["data.main.v"])


def test_the_data_of_one_evaluation_does_not_leak_into_another(rules: Rules) -> None:
    document = {"config": {"when": 1, "kept": True}, "list": [{"a": 1}]}
    ruleset = rules("package main\nv := [data.config, data.list[0].a]", document)
    changed = ruleset.evaluate(b"{}", ["data.main.v"], data={"config": {"when": 2}})
    plain = ruleset.evaluate(b"{}", ["data.main.v"])
    assert changed == [[[{"when": 2, "kept": True}, 1]]]
    assert plain == [[[{"when": 1, "kept": True}, 1]]]


MANIFEST_RULES = """
    package main
    manifest := ec.oci.image_manifest(input.ref)
    deny contains "no manifest" if { not manifest }
    deny contains config if { config := manifest.mediaType }
    warn contains "asked again" if { ec.oci.image_manifest(input.ref) }
"""


def test_builtins_are_asked_once_for_all_rules_of_an_evaluation(rules: Rules) -> None:
    asked: list[str] = []

    def image_manifest(ref: str) -> object:
        asked.append(ref)
        return {"mediaType": "m"}

    queries = ["data.main.deny", "data.main.warn", "ec.oci.image_manifest(input.ref).mediaType"]
    ruleset = rules(MANIFEST_RULES)
    for _ in range(2):
        found = ruleset.evaluate(
            b'{"ref": "r"}', queries, builtins={"ec.oci.image_manifest": image_manifest}
        )
        assert found == [[["m"]], [["asked again"]], ["m"]]
    assert asked == ["r", "r"]


def test_undefined_is_no_value_and_is_remembered_too(rules: Rules) -> None:
    asked: list[str] = []

    def image_manifest(ref: str) -> object:
        asked.append(ref)
        return Undefined

    found = rules(MANIFEST_RULES).evaluate(
        b'{"ref": "r"}',
        ["data.main.deny", "data.main.warn"],
        builtins={"ec.oci.image_manifest": image_manifest},
    )
    assert found == [[["no manifest"]], [[]]]
    assert asked == ["r"]


@pytest.mark.parametrize(
    ("call", "given"),
    [
        ("ec.oci.blob(input.v)", 1),
        ("ec.oci.image_manifests(input.v)", ["a"]),
        ('ec.oci.blob_files("r", input.v)', ["a", 1]),
        ('ec.oci.image_files("r", input.v)', "a"),
        ('conforma.oci.image_tree("r", input.v)', []),
    ],
)
def test_operands_of_a_wrong_type_are_undefined_unasked(
    rules: Rules, call: str, given: object
) -> None:
    ruleset = rules(f"package main\nv := {call}")
    assert ruleset.evaluate(json.dumps({"v": given}).encode(), ["data.main.v"]) == [[]]


def test_a_set_of_references_arrives_sorted(rules: Rules) -> None:
    ruleset = rules('package main\nv := ec.oci.image_manifests({"b", "a"})')
    asked: list[list[str]] = []
    ruleset.evaluate(
        b"{}",
        ["data.main.v"],
        builtins={"ec.oci.image_manifests": lambda refs: asked.append(refs) or {}},
    )
    assert asked == [["a", "b"]]


def test_bytes_and_text_become_strings(rules: Rules) -> None:
    ruleset = rules('package main\nv := [ec.oci.blob("bytes"), ec.oci.blob("text")]')
    answers = {"bytes": 'é"\n'.encode(), "text": 'é"\n'}
    found = ruleset.evaluate(
        b"{}", ["data.main.v"], builtins={"ec.oci.blob": lambda ref: answers[ref]}
    )
    assert found == [[['é"\n', 'é"\n']]]


def test_numbers_of_a_document_in_an_image_are_written_as_go_writes_them(rules: Rules) -> None:
    ruleset = rules('package main\nv := json.marshal(ec.oci.image_files("r", ["a"]))')
    found = ruleset.evaluate(
        b"{}",
        ["data.main.v"],
        builtins={"ec.oci.image_files": lambda *_: {"a": [1.0, 1e3, 0.5, 7, "<é>"]}},
    )
    assert found == [['{"a":[1,1000,0.5,7,"\\u003cé\\u003e"]}']]


def test_large_input_and_large_answers_arrive_whole(rules: Rules) -> None:
    ruleset = rules(
        'package main\nv := [count(input.text), count(ec.oci.blob("r")), ec.oci.blob("r")]'
    )
    blob = b"x" * 3_000_001
    document = json.dumps({"text": "y" * 2_000_001}).encode()
    [[[text, size, echoed]]] = ruleset.evaluate(
        document, ["data.main.v"], builtins={"ec.oci.blob": lambda _: blob}
    )
    assert (text, size, echoed) == (2_000_001, 3_000_001, blob.decode())


def test_an_error_in_a_builtin_comes_out_as_the_same_object(rules: Rules) -> None:
    outage = RegistryUnreachable("registry.example: connection refused")

    def blob(_: str) -> bytes:
        raise outage

    ruleset = rules('package main\nv := ec.oci.blob("r")')
    with pytest.raises(RegistryUnreachable) as caught:
        ruleset.evaluate(b"{}", ["data.main.v"], builtins={"ec.oci.blob": blob})
    assert caught.value is outage
    answered = ruleset.evaluate(b"{}", ["data.main.v"], builtins={"ec.oci.blob": lambda _: b"1"})
    assert answered == [["1"]]


def test_a_builtin_that_nobody_answers_is_an_error_not_a_pass(rules: Rules) -> None:
    ruleset = rules('package main\ndeny contains "bad" if { ec.oci.blob("r") }')
    with pytest.raises(EvaluationFailed, match=r"ec\.oci\.blob"):
        ruleset.evaluate(b"{}", ["data.main.deny"])


def test_callbacks_of_many_evaluations_are_in_flight_at_once(rules: Rules) -> None:
    ruleset = rules("package main\nv := ec.oci.blob(input.ref)")
    crowd = 12
    together = threading.Barrier(crowd, timeout=60)

    def blob(ref: str) -> str:
        together.wait()
        return f"content of {ref}"

    def evaluate(number: int) -> object:
        document = json.dumps({"ref": f"r{number}"}).encode()
        return ruleset.evaluate(document, ["data.main.v"], builtins={"ec.oci.blob": blob})

    with ThreadPoolExecutor(crowd) as pool:
        found = list(pool.map(evaluate, range(crowd)))
    assert found == [[[f"content of r{number}"]] for number in range(crowd)]


def test_many_threads_share_a_ruleset_that_is_still_compiling(
    engine: Engine, policy_dir: Callable[..., Path]
) -> None:
    directory = policy_dir("package main\nv := input.n * 2")
    ruleset = engine.compile([directory], wait=False)

    def evaluate(number: int) -> object:
        return ruleset.evaluate(json.dumps({"n": number}).encode(), ["data.main.v"])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(evaluate, range(64))) == [[[number * 2]] for number in range(64)]


def test_print_and_trace_reach_the_listener(rules: Rules) -> None:
    ruleset = rules("""
        package main
        deny contains "x" if {
            print("looking at", input.name, input.absent)
        }
    """)
    heard: list[Output] = []
    ruleset.evaluate(b'{"name": "n"}', ["data.main.deny"], trace=True, on_output=heard.append)
    printed = [output for output in heard if output.kind == "print"]
    traced = [output for output in heard if output.kind == "trace"]
    assert [(output.query, output.text.rsplit("/", 1)[-1]) for output in printed] == [
        ("data.main.deny", "main.rego:4: looking at n <undefined>")
    ]
    assert "Enter data.main.deny" in traced[0].text


def test_printed_text_is_logged_for_its_query(
    rules: Rules, caplog: pytest.LogCaptureFixture
) -> None:
    ruleset = rules('package main\ndeny contains "x" if { print("hello") }')
    with caplog.at_level("DEBUG", "conforma.rego"):
        ruleset.evaluate(b"{}", ["data.main.deny"])
    [line] = [record.getMessage() for record in caplog.records if "hello" in record.getMessage()]
    assert line.startswith("[data.main.deny] ")
    assert line.endswith("main.rego:2: hello")


def test_shared_values_are_handed_over_once_and_seen_by_every_evaluation(
    engine: Engine, rules: Rules
) -> None:
    ruleset = rules("package main\n\nv := [input.own, input.all.names, input.all]")
    everything = Shared(b'{"names": ["b", "a"]}')
    for own in (1, 2, 3):
        asked = Input(b'{"own": %d}' % own, {"all": everything})
        assert ruleset.evaluate(asked, ["data.main.v"]) == [
            [[own, ["b", "a"], {"names": ["b", "a"]}]]
        ]
    key = engine.process().given(everything)
    assert engine.process().given(everything) == key
    assert engine.process().given(Shared(everything.text)) != key
    with pytest.raises(EvaluationFailed, match="only an object has room for shared values"):
        ruleset.evaluate(Input(b"[]", {"all": everything}), ["data.main.v"])
    with pytest.raises(EvaluationFailed, match="all: "):
        ruleset.evaluate(Input(b"{}", {"all": Shared(b"no JSON")}), ["data.main.v"])
