"""``conforma opa``: OPA's own commands, statuses and output, with our functions."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

import pytest

from conforma.errors import RegistryUnreachable
from conforma.policy.rego.command import run_opa
from conforma.policy.rego.engine import Undefined


def test_functions_are_answered_by_us(capfd: pytest.CaptureFixture[str]) -> None:
    answers = {"a": b"text", "b": Undefined}
    builtins = {"ec.oci.blob": lambda ref: answers[ref]}
    query = '[x | some r in ["a", "b"]; x := ec.oci.blob(r)]'
    assert run_opa(["eval", "--format", "raw", query], lambda: builtins) == 0
    assert json.loads(capfd.readouterr().out) == ["text"]


def test_what_they_need_is_opened_at_the_first_call_only() -> None:
    opened: list[int] = []

    def open_builtins() -> dict[str, object]:
        opened.append(1)
        return {"ec.oci.blob": lambda _: "x"}

    assert run_opa(["eval", "1 + 1"], open_builtins) == 0  # type: ignore[arg-type]
    assert opened == []
    assert run_opa(["eval", 'ec.oci.blob("a"); ec.oci.blob("b")'], open_builtins) == 0  # type: ignore[arg-type]
    assert opened == [1]


def test_an_outage_is_logged_and_looks_like_an_unreachable_registry(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> object:
        raise RegistryUnreachable("registry.example: connection refused")

    builtins = {"ec.oci.image_manifests": fail, "ec.sigstore.verify_image": fail}
    query = '[ec.oci.image_manifests({"r"}), ec.sigstore.verify_image("r", {"ignore_rekor": true})]'
    with caplog.at_level(logging.ERROR, "conforma.rego"):
        assert run_opa(["eval", "--format", "raw", query], lambda: builtins) == 0
    manifests, verified = json.loads(capfd.readouterr().out)
    assert manifests == {}
    assert (verified["success"], verified["signatures"]) == (False, [])
    assert "registry.example: connection refused" in caplog.text


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (["eval", "--fail", "data.absent"], 1),
        (["eval", "--fail-defined", "1"], 1),
        (["eval", "x :="], 2),
        (["nonsense"], 1),
        (["version"], 0),
    ],
)
def test_the_exit_status_is_that_of_opa(args: list[str], status: int) -> None:
    assert run_opa(args, dict) == status


POLICY = """package main
manifest := ec.oci.image_manifest(input.ref)
deny contains "unlabelled" if { not manifest.annotations.label }
"""
TEST = """package main_test
import data.main
test_mocked if count(main.deny) == 0 with input.ref as "r"
  with ec.oci.image_manifest as {"annotations": {"label": "x"}}
test_unreachable if count(main.deny) == 1 with input.ref as "r"
"""


def test_rego_unit_tests_can_replace_functions(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "main.rego").write_text(POLICY)
    (tmp_path / "main_test.rego").write_text(TEST)
    assert run_opa(["test", str(tmp_path)], dict) == 0
    assert "PASS: 2/2" in capfd.readouterr().out
    (tmp_path / "main_test.rego").write_text(TEST.replace("== 0", "== 5"))
    assert run_opa(["test", str(tmp_path)], dict) == 2
    assert "FAIL: 1/2" in capfd.readouterr().out


def test_parallel_tests_are_answered_in_parallel(tmp_path: Path) -> None:
    together = threading.Barrier(2, timeout=60)

    def blob(ref: str) -> str:
        together.wait()
        return ref

    (tmp_path / "main_test.rego").write_text(
        'package main_test\ntest_a if ec.oci.blob("a") == "a"\ntest_b if ec.oci.blob("b") == "b"\n'
    )
    args = ["test", "--parallel", "2", str(tmp_path)]
    assert run_opa(args, lambda: {"ec.oci.blob": blob}) == 0
