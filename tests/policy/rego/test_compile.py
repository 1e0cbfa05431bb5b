"""Compiling: what is refused, where the fault is, and what the rules say about themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conforma.errors import CompileFailed, PolicyError
from conforma.policy.rego.engine import Engine

Write = Callable[..., Path]


def test_a_syntax_error_has_file_row_and_column(engine: Engine, policy_dir: Write) -> None:
    directory = policy_dir("package main\n\ndeny contains x := 1\n")
    with pytest.raises(CompileFailed, match=r"main\.rego:\d+: rego_parse_error") as caught:
        engine.compile([directory])
    [problem] = caught.value.problems
    assert problem.file == str(directory / "main.rego")
    assert (problem.row, problem.column, problem.code) == (3, 17, "rego_parse_error")


@pytest.mark.parametrize(
    "call",
    [
        "opa.runtime()",
        'http.send({"method": "get", "url": "http://127.0.0.1"})',
        'net.lookup_ip_addr("localhost")',
        'ec.oci.unheard_of("r")',
    ],
)
def test_removed_and_unknown_functions_are_refused(
    engine: Engine, policy_dir: Write, call: str
) -> None:
    directory = policy_dir(f"package main\n\nv := {call}\n")
    with pytest.raises(CompileFailed) as caught:
        engine.compile([directory])
    [problem] = caught.value.problems
    name = call.partition("(")[0]
    assert (problem.code, problem.message, problem.row, problem.column) == (
        "rego_type_error",
        f"undefined function {name}",
        3,
        6,
    )
    assert str(caught.value).startswith("policy compilation error: ")
    assert str(caught.value).endswith(
        "Details:\n  load: loading policies: get compiler: 1 error occurred: "
        f"{directory}/main.rego:3: rego_type_error: undefined function {name}"
    )
    assert f"in this version of Conforma CLI ({engine.opa_version})." in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "v := ec.oci.image_manifest(1)",
        'v := ec.oci.image_manifest("r").artifactType',
        'v := ec.oci.image_manifest("r").layers[1]',
        'v := ec.oci.image_manifests(["r"])',
        'v if ec.purl.is_valid("p") == true',
        'v := ec.purl.parse("p").nmae',
        'v := ec.sigstore.verify_image("r", {"ignore_rekor": "no"})',
        'v := ec.oci.image_referrers("r")[0].platform',
        'v := conforma.oci.image_tree("r", {})[7].owner',
    ],
)
def test_the_compiler_checks_calls_against_the_declared_types(
    engine: Engine, policy_dir: Write, text: str
) -> None:
    with pytest.raises(CompileFailed, match="rego_type_error"):
        engine.compile([policy_dir(f"package main\n{text}\n")])


def test_test_files_must_compile_too(engine: Engine, policy_dir: Write) -> None:
    policy_dir("package main\nv := 1\n")
    directory = policy_dir("package main_test\nv := unknown(1)\n", "main_test.rego")
    with pytest.raises(CompileFailed, match=r"main_test\.rego:2"):
        engine.compile([directory])


def test_if_without_contains_is_refused(engine: Engine, policy_dir: Write) -> None:
    directory = policy_dir("package main\n\ndeny.sub if { input.bad }\n")
    with pytest.raises(
        CompileFailed, match=r"'if' keyword without 'contains'.*main\.rego at line 3"
    ):
        engine.compile([directory])


def test_a_directory_without_rules_is_refused(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(CompileFailed, match="no policies found"):
        engine.compile([tmp_path])
    with pytest.raises(CompileFailed, match="no rego files found in policy subdirectory"):
        engine.inspect(tmp_path)


def test_data_files_are_merged_at_the_top_and_below_their_folders(
    engine: Engine, policy_dir: Write, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    (data / "a.json").write_text('{"a": {"x": 1}}')
    (data / "b.yaml").write_text("a:\n  z: [yes]\n")
    (data / "sub" / "c.yml").write_text("c: 3\n")
    (data / "notes.txt").write_text("not data")
    ruleset = engine.compile(
        [policy_dir("package main\nv := [data.a, data.c, data.sub.c, data.d]")],
        [data],
        {"d": 4},
    )
    assert ruleset.evaluate(b"{}", ["data.main.v"]) == [[[{"x": 1, "z": [True]}, 3, 3, 4]]]


@pytest.mark.parametrize(
    ("second", "reason"), [("a: 1", "merge error"), ("- 1", "document must be of type object")]
)
def test_data_files_that_collide_or_are_no_objects_are_refused(
    engine: Engine, policy_dir: Write, tmp_path: Path, second: str, reason: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.json").write_text('{"a": 1}')
    (data / "b.yaml").write_text(second)
    with pytest.raises(PolicyError, match=rf"load: load documents: 1 error .*b\.yaml.*{reason}"):
        engine.compile([policy_dir("package main\nv := 1")], [data])


def test_annotations_describe_every_rule_but_those_of_tests(
    engine: Engine, policy_dir: Write
) -> None:
    policy_dir("package main_test\ntest_x if true\n", "main_test.rego")
    directory = policy_dir(
        """\
        # METADATA
        # title: Package
        package a.b

        # METADATA
        # title: First
        # custom:
        #   short_name: first
        #   effective_on: 2024-01-01T00:00:00Z
        deny contains result if {
            result := {"code": "a.first", "msg": "m"}
        }

        warn contains 1 if true

        helper := [1]
        """
    )
    first, second, third = engine.inspect(directory)
    assert (first.file, first.row, first.column) == ("main.rego", 10, 1)
    assert first.package == ("a", "b")
    assert (first.name, first.path) == ("deny", ("a", "b", "deny"))
    assert (first.shape, first.supported, first.text, first.code) == ("var", True, "", "a.first")
    rule, package = first.chain
    assert (rule.of_rule, rule.scope, rule.custom["short_name"]) == (True, "rule", "first")
    assert rule.custom["effective_on"] == "2024-01-01T00:00:00Z"
    assert (package.of_rule, package.scope, package.path) == (False, "package", ("a", "b"))
    assert (rule.row, rule.column, package.row, package.column) == (10, 1, 3, 1)
    assert [(term["type"], term["value"]) for term in rule.terms] == [
        ("var", "data"),
        ("string", "a"),
        ("string", "b"),
        ("string", "deny"),
    ]
    assert package.content is not None
    assert package.content["title"] == "Package"
    assert (second.name, second.shape, second.supported) == ("warn", "number", False)
    assert second.text == "warn contains 1 if { true }"
    assert second.chain[0].content is None
    assert (third.name, third.shape) == ("helper", "array")


def test_inspection_of_broken_files_names_them_relative_to_the_source(
    engine: Engine, policy_dir: Write
) -> None:
    directory = policy_dir("package main\ndeny contains x := 1\n")
    with pytest.raises(CompileFailed, match=r"^1 error occurred: main\.rego:\d+: rego_parse_error"):
        engine.inspect(directory)


def test_rules_that_do_not_compile_are_compiled_once(engine: Engine, policy_dir: Write) -> None:
    directory = policy_dir("package main\nv := unknown(1)\n")
    ruleset = engine.compile([directory], wait=False)
    with pytest.raises(CompileFailed) as first:
        ruleset.ready()
    policy_dir("package main\nv := 1\n")
    with pytest.raises(CompileFailed) as second:
        ruleset.evaluate(b"{}", ["data.main.v"])
    assert second.value is first.value


def test_odd_characters_in_a_path_are_nothing_special(
    engine: Engine, policy_dir: Write, tmp_path: Path
) -> None:
    directory = policy_dir("package main\nv := data.a\n", folder="x:y z%20é")
    data = tmp_path / "a:b"
    data.mkdir()
    (data / "a.json").write_text('{"a": 1}')
    ruleset = engine.compile([directory], [data])
    assert ruleset.evaluate(b"{}", ["data.main.v"]) == [[1]]
    assert [rule.file for rule in ruleset.annotations] == ["main.rego"]
