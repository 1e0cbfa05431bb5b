"""``conforma validate input``: JSON and YAML documents judged by a policy."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from conforma.cli.root import run
from conforma.cli.version import version
from conforma.serve.signing_key import SigningKey
from tests.cli.shop import Outcome

pytestmark = pytest.mark.slow

SPAM = """
package spam

import rego.v1

# METADATA
# title: Spam
# description: There has to be some.
# custom:
#   short_name: valid
#   solution: Add it.
deny contains result if {
    not input.spam
    result := {"code": "spam.valid", "msg": "spam is not true", "term": data.conftest.file.name}
}

# METADATA
# title: Later
# custom:
#   short_name: later
#   effective_on: "2999-01-01T00:00:00Z"
deny contains {"code": "spam.later", "msg": "Not yet"} if input.later
"""
HAM = """
package ham

import rego.v1

# METADATA
# title: Ham
# custom:
#   short_name: delicious
warn contains {"code": "ham.delicious", "msg": "ham is not delicious"} if input.ham == "rotten"
"""
NOW = "2030-01-02T03:04:05Z"


@dataclass
class Desk:
    """A directory with rules and documents, in which the program is run."""

    directory: Path
    capture: pytest.CaptureFixture[str]

    def write(self, name: str, content: Any) -> str:
        file = self.directory / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return name

    def policy(self, *, both: bool = False, **members: Any) -> str:
        sources = [{"policy": ["./spam"]}]
        if both:
            sources.append({"policy": ["./ham"]})
        return json.dumps({"sources": sources} | members)

    def judge(self, *args: str, policy: str | None = None, output: str = "json") -> Outcome:
        self.capture.readouterr()
        status = run(
            [
                *("validate", "input", "--policy", policy or self.policy()),
                *("--effective-time", NOW, "--output", output, *args),
            ]
        )
        captured = self.capture.readouterr()
        return Outcome(status, captured.out, captured.err)

    def results(self, *args: str, **options: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.judge(*args, **options).report["filepaths"]
        return found


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EC_CACHE_DIR", str(tmp_path / "cache"))
    made = Desk(tmp_path, capsys)
    made.write("spam/main.rego", SPAM)
    made.write("ham/main.rego", HAM)
    made.write("good.yaml", "---\nspam: true\n")
    made.write("bad.json", {"spam": False})
    made.write("stale.json", {"spam": True, "ham": "rotten"})
    return made


def violation(name: str) -> Mapping[str, Any]:
    return {"msg": "spam is not true", "metadata": {"code": "spam.valid", "term": name}}


def test_the_whole_document(desk: Desk) -> None:
    done = desk.judge("bad.json", "good.yaml", "stale.json", policy=desk.policy(both=True))
    assert (done.status, done.err) == (1, "Error: success criteria not met\n")
    assert done.out.count("\n") == 1
    assert list(done.report.items()) == [
        ("success", False),
        (
            "filepaths",
            [
                {
                    "filepath": "stale.json",
                    "violations": [],
                    "warnings": [
                        {"msg": "ham is not delicious", "metadata": {"code": "ham.delicious"}}
                    ],
                    "successes": None,
                    "success": True,
                    "success-count": 2,
                },
                {
                    "filepath": "good.yaml",
                    "violations": [],
                    "warnings": [],
                    "successes": None,
                    "success": True,
                    "success-count": 3,
                },
                {
                    "filepath": "bad.json",
                    "violations": [violation("bad.json")],
                    "warnings": [],
                    "successes": None,
                    "success": False,
                    "success-count": 2,
                },
            ],
        ),
        ("policy", {"sources": [{"policy": ["./spam"]}, {"policy": ["./ham"]}]}),
        ("ec-version", version()),
        ("effective-time", NOW),
    ]
    assert yaml.safe_load(desk.judge("bad.json", "good.yaml", "stale.json", output="yaml").out) == (
        desk.judge("bad.json", "good.yaml", "stale.json").report
    )


def test_numbers_of_a_result_keep_their_digits_in_json(desk: Desk) -> None:
    desk.write("spam/main.rego", 'package n\n\ndeny contains {"msg": "m", "a": 7.0, "b": 1e400}\n')
    assert '"metadata":{"a":7.0,"b":1e400}' in desk.judge("good.yaml", "--info").out
    shown = desk.judge("good.yaml", "--info", output="yaml").out
    assert "metadata:\n      a: 7\n      b: 1e400\n" in shown


def test_what_is_judged_passes_unless_it_is_strict(desk: Desk) -> None:
    assert desk.judge("good.yaml").status == 0
    done = desk.judge("bad.json", "--strict=false")
    assert (done.status, done.err, done.report["success"]) == (0, "", False)


def test_flags_say_what_documents_show(desk: Desk) -> None:
    both = desk.policy(both=True)
    (hidden,) = desk.results("stale.json", "--show-warnings=false", policy=both)
    assert (hidden["warnings"], hidden["success"]) == (None, True)
    (shown,) = desk.results("good.yaml", "--show-successes", "--info")
    assert [success["metadata"]["code"] for success in shown["successes"]] == [
        "spam.later",
        "spam.valid",
    ]
    assert shown["successes"][1]["metadata"]["title"] == "Spam"
    (bad,) = desk.results("bad.json", "--info")
    assert bad["violations"][0]["metadata"]["solution"] == "Add it."


def test_the_effective_time_decides(desk: Desk) -> None:
    later = desk.write("later.json", {"spam": True, "later": True})
    (now,) = desk.results(later)
    (warning,) = now["warnings"]
    assert warning["msg"] == "Not yet. This will become a failure starting on 2999-01-01T00:00:00Z"
    (then,) = desk.results(later, "--effective-time", "2999-02-01")
    assert [violation["msg"] for violation in then["violations"]] == ["Not yet"]
    past = desk.judge(later, "--effective-time", "2020-01-01")
    assert past.status == 1
    assert "2020-01-01T00:00:00Z is in the past; use --allow-past-effective-time" in past.err


def test_text_for_one_file_and_for_several(desk: Desk) -> None:
    one = desk.judge("bad.json", "--show-policy-docs-link", output="text")
    assert one.out.splitlines() == [
        "Success: false",
        "Result: FAILURE",
        "Violations: 1, Warnings: 0, Successes: 1",
        "Input File: bad.json",
        "",
        "Results:",
        "✕ [Violation] spam.valid",
        "  FilePath: bad.json",
        "  Reason: spam is not true",
        "  Term: bad.json",
        "",
        "For more information about policy issues, see the policy documentation: "
        "https://conforma.dev/docs/policy/",
    ]
    both = desk.policy(both=True)
    two = desk.judge("good.yaml", "stale.json", policy=both, output="text").out
    assert two.startswith(
        "Success: true\nResult: WARNING\nViolations: 0, Warnings: 1, Successes: 5\n\n"
        "Input Files:\n- FilePath: stale.json\n  Violations: 0, Warnings: 1, Successes: 2\n\n"
        "- FilePath: good.yaml\n  Violations: 0, Warnings: 0, Successes: 3\n\n"
        "Results:\n› [Warning] ham.delicious\n  FilePath: stale.json\n"
    )
    quiet = desk.judge("stale.json", "--show-warnings=false", policy=both, output="text").out
    assert quiet == (
        "Success: true\nResult: SUCCESS\nViolations: 0, Warnings: 0, Successes: 2\n"
        "Input File: stale.json\n\n"
    )
    colored = desk.judge("good.yaml", "--color", "--show-successes", output="text").out
    assert "\x1b[32m✓\x1b[0m \x1b[32m[Success] spam.valid\x1b[0m\n" in colored


def test_totals_for_machines(desk: Desk) -> None:
    summary = desk.judge("bad.json", output="summary").report
    assert summary == {
        "filepaths": [
            {
                "name": "bad.json",
                "success": False,
                "violations": {"spam.valid": ["spam is not true"]},
                "warnings": {},
                "successes": {},
                "total_violations": 1,
                "total_warnings": 0,
                "total_successes": 1,
            }
        ],
        "success": False,
        "key": "",
    }
    totals = desk.judge("bad.json", "good.yaml", output="appstudio").report
    assert totals.pop("timestamp").isdecimal()
    assert totals == {
        "namespace": "",
        "successes": 3,
        "failures": 1,
        "warnings": 0,
        "result": "FAILURE",
    }


def test_reports_go_into_files(desk: Desk) -> None:
    done = desk.judge("good.yaml", "-o", "summary=sum.json", "-o", "text", output="json=out.json")
    assert done.out.startswith("Success: true\n")
    assert json.loads(Path("sum.json").read_text())["success"] is True
    assert json.loads(Path("out.json").read_text())["filepaths"][0]["filepath"] == "good.yaml"
    unknown = desk.judge("good.yaml", output="junit")
    assert (unknown.status, unknown.out) == (1, "")
    assert unknown.err == (
        'Error: "junit" is not a valid report format\n'
        "hint: the formats are appstudio, json, summary, text, yaml\n"
    )


def test_files_are_named_in_either_way_and_judged_once(desk: Desk) -> None:
    found = desk.results("good.yaml", " ", "bad.json", "-f", "bad.json,stale.json")
    assert [one["filepath"] for one in found] == ["stale.json", "good.yaml", "bad.json"]


def test_inline_documents(desk: Desk) -> None:
    texts = ['{"spam": false}', "spam: true\nother: 1\n"]
    assert {one["filepath"]: one["success"] for one in desk.results(*texts)} == {
        texts[0]: False,
        texts[1]: True,
    }
    desk.write("123", {"spam": True})
    assert desk.judge("123").status == 0, "a file is a file, whatever its name looks like"


def test_a_directory_is_one_entry(desk: Desk) -> None:
    desk.write("docs/a.json", {"spam": True})
    desk.write("docs/b.yaml", "spam: false")
    (found,) = desk.results("docs", "--show-successes")
    assert found["filepath"] == "docs"
    assert found["violations"] == [violation("b.yaml")]
    assert [one["metadata"]["code"] for one in found["successes"]] == ["spam.later"]


def test_the_elements_of_a_list_are_judged_one_by_one(desk: Desk) -> None:
    desk.write("list.json", [{"spam": True}, {"spam": False}])
    (found,) = desk.results("list.json")
    assert found["violations"] == [violation("list.json")]
    desk.write("fine.json", [{"spam": True}, {"spam": True}])
    (fine,) = desk.results("fine.json")
    assert (fine["success"], fine["success-count"]) == (True, 2)


def test_items_for_images_and_components_do_not_apply(desk: Desk) -> None:
    digest = "sha256:" + 64 * "0"
    scoped = [{"value": "spam.valid", "imageDigest": digest}]
    named = [{"value": "spam.valid", "componentNames": ["web"]}]
    for items in (scoped, named):
        source = {"policy": ["./spam"], "volatileConfig": {"exclude": items}}
        (found,) = desk.results("bad.json", policy=json.dumps({"sources": [source]}))
        assert found["violations"] == [violation("bad.json")]
    source = {"policy": ["./spam"], "config": {"exclude": ["spam.valid"]}}
    (excluded,) = desk.results("bad.json", policy=json.dumps({"sources": [source]}))
    assert excluded["violations"] == []


def test_a_policy_may_have_a_key(desk: Desk) -> None:
    key = SigningKey.generate().public_pem
    rule = (
        "package main\nimport rego.v1\n"
        "deny contains msg if msg := data.config.default_sigstore_opts.public_key"
    )
    desk.write("keyed/main.rego", rule)
    policy = json.dumps({"publicKey": key, "sources": [{"policy": ["./keyed"]}]})
    report = desk.judge("good.yaml", policy=policy).report
    assert report["policy"]["publicKey"] == key
    assert report["filepaths"][0]["violations"][0]["msg"].strip() == key.strip()


def test_of_a_key_and_an_identity_rules_are_given_the_key(desk: Desk) -> None:
    given = "data.config.default_sigstore_opts.certificate_identity"
    desk.write(
        "named/main.rego",
        f"package main\nimport rego.v1\ndeny contains msg if msg := {given}\n"
        f'warn contains "none" if {given} == ""',
    )
    identity = {"subject": "me@example.com", "issuer": "https://issuer.example"}
    sources = [{"policy": ["./named"]}]
    alone = {"identity": identity, "sources": sources}
    (found,) = desk.results("good.yaml", policy=json.dumps(alone))
    assert [one["msg"] for one in found["violations"]] == ["me@example.com"]
    both = alone | {"publicKey": SigningKey.generate().public_pem}
    (found,) = desk.results("good.yaml", policy=json.dumps(both))
    assert found["violations"] == []


def test_rules_know_the_directory_of_a_file(desk: Desk) -> None:
    desk.write(
        "where/main.rego",
        "package main\nimport rego.v1\ndeny contains msg if msg := data.conftest.file.dir",
    )
    desk.write("docs/one.yaml", "a: 1")
    policy = json.dumps({"sources": [{"policy": ["./where"]}]})
    (found,) = desk.results("docs/one.yaml", policy=policy)
    assert [one["msg"] for one in found["violations"]] == ["docs"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.yaml", "", "empty.yaml holds no document"),
        ("none.json", "[]", "none.json holds no document"),
        ("word.yaml", "hello", "word.yaml holds a single value and no JSON or YAML mapping"),
        ("broken.json", '{"spam": ', "broken.json cannot be judged: error converting YAML to JSON"),
        ("twice.yaml", "spam: 1\nspam: 2\n", "twice.yaml cannot be judged"),
        ("two.yaml", "spam: true\n---\nspam: false\n", "two.yaml cannot be judged"),
        ("deep/in/x.json", "{}", None),
    ],
)
def test_what_cannot_be_judged_is_an_error(
    desk: Desk, name: str, content: str, says: str | None
) -> None:
    if says is None:
        (desk.directory / "deep" / "in").mkdir(parents=True)
        name, says = "deep", "deep/in is a directory inside a directory"
    else:
        desk.write(name, content)
    done = desk.judge("good.yaml", name)
    assert (done.status, done.out) == (1, ""), "there is no report without all of the files"
    assert done.err.startswith(f"Error: error validating file {name}: {says}")


def test_all_errors_are_told(desk: Desk) -> None:
    (desk.directory / "void").mkdir()
    done = desk.judge("missing.yaml", "good.yaml", "void")
    assert done.status == 1
    assert done.err.splitlines() == [
        "Error: error validating file missing.yaml: unable to parse the provided input file: "
        "missing.yaml",
        "error validating file void: the directory void contained no files",
        "hint: there is no such file, and it is no JSON or YAML mapping or list either",
    ]


def test_rules_that_do_not_compile(desk: Desk) -> None:
    desk.write("broken/main.rego", "package main\ndeny {")
    policy = json.dumps({"sources": [{"policy": ["./broken"]}]})
    done = desk.judge("good.yaml", policy=policy)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("Error: error validating file good.yaml: evaluating policy: ")
    assert "main.rego:2" in done.err


def test_what_is_wrong_with_the_rules_is_told_alike_for_every_file(desk: Desk) -> None:
    twice = '# METADATA\n# custom:\n#   short_name: a\n{} contains "x"\n'
    desk.write("broken/main.rego", "package main\n" + twice.format("deny") + twice.format("warn"))
    desk.write("bad.yaml", "a: 1")
    policy = json.dumps({"sources": [{"policy": ["./broken"]}]})
    done = desk.judge("good.yaml", "bad.yaml", policy=policy)
    reason = "evaluating policy: found a second rule with the same code: `main.a`"
    assert done.err.splitlines() == [
        f"Error: error validating file good.yaml: {reason}",
        f"error validating file bad.yaml: {reason}",
        "hint: see main.rego:5 and main.rego:9",
    ]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--policy", "{}"], "at least one input file must be specified as a positional argument"),
        (["good.yaml"], 'required flag(s) "policy" not set'),
        (
            ["good.yaml", "-p", "name: bare"],
            "the policy has no sources, so no rule would judge any file",
        ),
        (["good.yaml", "-p", "./gone.yaml"], "open ./gone.yaml: no such file or directory"),
    ],
)
def test_bad_command_lines(desk: Desk, args: list[str], says: str) -> None:
    assert run(["validate", "input", *args]) == 1
    assert desk.capture.readouterr().err.startswith(f"Error: {says}")


def test_time_that_is_up_is_no_verdict(desk: Desk) -> None:
    os.mkfifo(desk.directory / "pipe")
    done = desk.judge("good.yaml", "pipe", "--timeout", "1s")
    assert (done.status, done.out) == (3, "")
    assert "exceeded allowed execution time of 1s" in done.err
