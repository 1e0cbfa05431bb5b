"""What the engine knows about the making of a rule."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from conforma.errors import EngineError
from conforma.policy.rego.engine import Engine, Ruleset

POLICY = """\
    package main

    import data.lib

    deny contains "a" if {
        some attestation in lib.attestations
        attestation.type == data.rule_data.types[_]
        ec.oci.blob(input.image.ref)
    }

    warn contains "b" if 1 == 1
"""
LIB = """\
    package lib

    attestations := [a | a := input.attestations[_].statement; ec.purl.is_valid(a.purl)]
"""


@pytest.fixture(scope="module")
def ruleset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ruleset]:
    directory = tmp_path_factory.mktemp("policy")
    (directory / "lib").mkdir()
    (directory / "main.rego").write_text(dedent(POLICY))
    (directory / "lib" / "lib.rego").write_text(dedent(LIB))
    with Engine.start() as engine:
        yield engine.compile([directory])


def test_a_rule_depends_on_what_the_rules_it_uses_look_at(ruleset: Ruleset) -> None:
    found = ruleset.describe("main.rego", 5)
    assert found.text.startswith('deny contains "a" if {\n    some') and found.text.endswith("}")
    assert set(found.depends) == {
        ("input", "attestations"),
        ("input", "image", "ref"),
        ("data", "rule_data", "types"),
    }
    assert found.functions == ("ec.oci.blob", "ec.purl.is_valid")


def test_a_rule_may_depend_on_nothing(ruleset: Ruleset) -> None:
    found = ruleset.describe("main.rego", 11)
    assert (found.text, found.depends, found.functions) == ('warn contains "b" if 1 == 1', (), ())


def test_describing_does_not_disturb_evaluation(ruleset: Ruleset) -> None:
    assert ruleset.evaluate(b"{}", ["data.main.warn"]) == [[["b"]]]
    ruleset.describe("main.rego", 5)
    assert ruleset.evaluate(b"{}", ["data.main.warn"]) == [[["b"]]]


def test_a_file_that_is_not_there_is_our_fault(ruleset: Ruleset) -> None:
    with pytest.raises(EngineError, match="no module was read from nowhere"):
        ruleset.describe(str(Path("nowhere.rego")), 1)
