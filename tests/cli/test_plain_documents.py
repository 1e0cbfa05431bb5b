"""``conforma init policies`` and ``conforma test``: rules held against plain documents."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conforma.findings import Finding
from conforma.policy.conftest import Checked
from conforma.report.as_conftest import FORMATS
from tests.cli.program import run_program
from tests.cli.shop import Outcome
from tests.report.samples import HOSTILE

pytestmark = pytest.mark.slow
RULES = """
package main

import rego.v1

deny contains result if {
    input.bad
    result := {"msg": "Is bad", "severity": data.severity}
}

deny contains "Is very bad" if input.bad == "very"

warn_size contains "Is large" if input.size > 10

deny_name contains "Has no name" if not input.name

exception contains ["name"] if input.anonymous
"""
OTHER = 'package other\nimport rego.v1\nviolation contains "No" if input.bad\n'


@dataclass
class Desk:
    directory: Path

    def document(self, name: str, content: Any) -> str:
        file = self.directory / name
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(file)

    def test(self, *arguments: str) -> Outcome:
        return run_program(
            ["test", *arguments], changes={"EC_EXPERIMENTAL": "1"}, cwd=self.directory
        )


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path)
    (tmp_path / "policy").mkdir()
    made.document("policy/main.rego", RULES)
    made.document("policy/other.rego", OTHER)
    made.document("data.yaml", "severity: high\n")
    return made


def test_the_sample_passes(desk: Desk, tmp_path: Path) -> None:
    place = tmp_path / "deep" / "sample"
    assert run_program(["init", "policies", "--dest-dir", str(place)]).status == 0
    sample = (place / "sample.rego").read_text()
    assert run_program(["init", "policies"]).out == sample
    assert sample.startswith("# Simplest never-failing policy\npackage main\n")
    done = desk.test("-p", str(place), desk.document("empty.json", {}), "-o", "json")
    assert (done.status, done.err) == (0, "")
    (found,) = json.loads(done.out)
    assert found["successes"] == 1


def test_every_kind_of_result(desk: Desk) -> None:
    document = desk.document("it.json", {"bad": "very", "size": 11, "anonymous": True})
    done = desk.test("--data", "data.yaml", document, "-o", "json")
    assert done.status == 1
    assert json.loads(done.out) == [
        {
            "filename": document,
            "namespace": "main",
            "successes": 0,
            "warnings": [{"msg": "Is large", "metadata": {"query": "data.main.warn_size"}}],
            "failures": [
                {"msg": "Is very bad", "metadata": {"query": "data.main.deny"}},
                {"msg": "Is bad", "metadata": {"query": "data.main.deny", "severity": "high"}},
            ],
            "exceptions": [{"msg": 'data.main.exception[_][_] == "name"'}],
        }
    ]


def test_text_for_people_and_for_machines(desk: Desk) -> None:
    good = desk.document("good.yaml", "name: it\n")
    bad = desk.document("bad.json", {"bad": "very", "name": "it", "size": 11})
    done = desk.test("-n", "main,other,empty", good, bad)
    assert done.status == 1
    assert done.out.splitlines() == [
        f"WARN - {bad} - main - Is large",
        f"FAIL - {bad} - main - Is very bad",
        f"FAIL - {bad} - other - No",
        f"? - {good} - empty - no policies found",
        f"? - {bad} - empty - no policies found",
        "",
        "10 tests, 7 passed, 1 warning, 2 failures, 0 exceptions",
    ]
    tap = desk.test("-o", "tap", bad).out.splitlines()
    assert tap[:4] == [
        "1..4",
        f"not ok 1 - {bad} - main - Is very bad",
        "# warnings",
        f"not ok 2 - {bad} - main - Is large",
    ]
    everywhere = desk.test("--all-namespaces", "-o", "json", good)
    assert [found["namespace"] for found in json.loads(everywhere.out)] == ["main", "other"]


@pytest.mark.parametrize(
    ("document", "flags", "status"),
    [
        ({"name": "it"}, [], 0),
        ({"name": "it", "size": 11}, [], 0),
        ({"name": "it", "size": 11}, ["--fail-on-warn"], 1),
        ({"size": 11}, ["--fail-on-warn"], 2),
        ({}, [], 1),
        ({}, ["--no-fail"], 0),
    ],
)
def test_the_exit_status(
    desk: Desk, document: dict[str, Any], flags: list[str], status: int
) -> None:
    assert desk.test(desk.document("it.json", document), *flags).status == status


def test_quiet_prints_what_failed_only(desk: Desk) -> None:
    good, bad = desk.document("good.json", {"name": "it"}), desk.document("bad.json", {})
    for output in ("stdout", "json", "appstudio"):
        assert desk.test(good, "--quiet", "-o", output) == Outcome(0, "", "")
    assert desk.test(bad, "--quiet") == desk.test(bad)
    assert desk.test(bad, "--quiet", "--no-fail").out == desk.test(bad).out


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("several.yaml", "name: it\n---\nbad: no\n---\n{name: it, bad: very}\n"),
        ("list.yaml", "- {name: it}\n- {bad: no}\n- {name: it, bad: very}\n"),
        ("list.json", [{"name": "it"}, {"bad": False}, {"name": "it", "bad": "very"}]),
    ],
)
def test_every_document_of_a_file_is_checked(desk: Desk, name: str, content: Any) -> None:
    done = desk.test("-d", "data.yaml", desk.document(name, content), "-o", "json")
    (found,) = json.loads(done.out)
    messages = [failure["msg"] for failure in found["failures"]]
    assert messages == ["Has no name", "Is very bad", "Is bad"]
    assert found["successes"] == 3 * 4 - 3


def test_documents_are_checked_together(desk: Desk) -> None:
    desk.document(
        "policy/all.rego",
        "package all\nimport rego.v1\n"
        'deny contains sprintf("%s: %v", [f.path, f.contents.size]) if some f in input\n',
    )
    files = [
        desk.document("b.yaml", "- size: 1\n- size: 2\n"),
        desk.document("a.json", {"size": 3}),
    ]
    done = desk.test("--combine", "-n", "all", *files)
    assert done.out.splitlines()[:-2] == [
        f"FAIL - Combined - all - {desk.directory / name}: {size}"
        for name, size in (("a.json", 3), ("b.yaml", 1), ("b.yaml", 2))
    ]


def test_files_of_directories_can_be_left_out(desk: Desk) -> None:
    (desk.directory / "many").mkdir()
    for name in ("keep.json", "skip-me.json", "skip-me.yaml"):
        desk.document(f"many/{name}", {})
    done = desk.test("--ignore", r"skip-\w+\.json$", "-o", "json", "many", "many/skip-me.json")
    assert [found["filename"] for found in json.loads(done.out)] == [
        "many/keep.json",
        "many/skip-me.yaml",
        "many/skip-me.json",
    ]
    wrong = desk.test("--ignore", "(", "many")
    assert wrong.status == 1
    assert wrong.err.startswith("Error: running test: given regexp couldn't be parsed :")


def test_exceptions_can_be_left_out_of_the_list(desk: Desk) -> None:
    document = desk.document("it.json", {"anonymous": True})
    assert "EXCP - " in desk.test(document).out
    done = desk.test("--suppress-exceptions", document)
    assert "EXCP - " not in done.out and ", 1 exception\n" in done.out


@pytest.mark.parametrize("message", HOSTILE, ids=range(len(HOSTILE)))
def test_what_rules_say_cannot_command_a_terminal_or_forge_a_test(message: str) -> None:
    said = (Finding(message, {}),)
    results = [Checked(f"it{message}", "main", 1, said, said, said)]
    for name in "stdout", "tap":
        shown = FORMATS[name](results, False, True)
        assert all(c.isprintable() or c in "\n\t\ufeff" for c in shown)
    numbered = re.findall(r"^(?:not )?ok (\d+) ", FORMATS["tap"](results, False, True), re.M)
    assert numbered == ["1", "2", "3", "4"]
    (found,) = json.loads(FORMATS["json"](results, False, True))
    assert found["failures"][0]["msg"] == message.replace("\ud800", "\ufffd")


def test_the_task_result(desk: Desk) -> None:
    target = desk.directory / "result.json"
    done = desk.test(desk.document("it.json", {}), "-o", f"appstudio={target}")
    assert (done.status, done.out) == (1, "")
    found = json.loads(target.read_text())
    assert found.pop("timestamp").isdigit()
    assert found == {
        "namespace": "main",
        "successes": 3,
        "failures": 1,
        "warnings": 0,
        "result": "FAILURE",
        "note": "Failures detected",
    }
    assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "missing required arguments"),
        (
            ["nowhere.json", "-p", "x.rego"],
            "running test: parse files: get file info: stat nowhere.json: no such file or directory",
        ),
        (["none", "--ignore", "none"], "running test: parse files: no files found"),
        (
            ["it.txt", "-p", "x.rego"],
            "running test: parse configurations: new parser: new: unknown parser: txt, path: it.txt",
        ),
        (
            ["it.json", "--parser", "toml"],
            "parse configurations: new parser: unknown parser: toml, path: it.json",
        ),
        (["it.json", "-p", "x.rego"], "1 error occurred during loading: stat x.rego: no such file"),
        (
            ["it.json", "-d", "x.json"],
            "load: load documents: 1 error occurred during loading: stat x.json",
        ),
        (["it.json", "-o", "sarif"], "running test: unknown output format: sarif"),
        (["torn.json"], "unmarshal json: unexpected end of JSON input, path: torn.json"),
        (["odd.json"], "unmarshal json: invalid character 'o' looking for beginning of value"),
    ],
)
def test_what_cannot_be_tested_is_told(desk: Desk, arguments: list[str], reason: str) -> None:
    (desk.directory / "none").mkdir(exist_ok=True)
    for name, content in (
        ("it.json", "{}"),
        ("it.txt", "text"),
        ("torn.json", '{"a": "b'),
        ("odd.json", "odd"),
    ):
        desk.document(name, content)
    done = desk.test(*arguments)
    assert done.status == 1
    assert reason in done.err
    asked = desk.test(*arguments, "-o", "appstudio")
    if arguments and "sarif" not in arguments:
        assert json.loads(asked.out)["result"] == "ERROR"


def test_a_file_that_is_named_twice_is_tested_once(desk: Desk) -> None:
    bad = desk.document("bad.json", {"bad": "very", "name": "it"})
    assert len(json.loads(desk.test(bad, bad, "-o", "json").out)) == 1


def test_standard_input_has_no_name_in_text_and_tap() -> None:
    said = (Finding("No", {}),)
    results = [Checked("", "main", 0, failures=said)]
    assert FORMATS["stdout"](results, False, True).startswith("FAIL - - main - No\n")
    assert FORMATS["tap"](results, False, True) == "1..1\nnot ok 1 - - main - No\n"


def test_the_command_is_experimental() -> None:
    done = run_program(["test", "x"], changes={"EC_EXPERIMENTAL": None})
    assert done.status == 1
    assert 'unknown command "test"' in done.err
