"""``conforma validate policy``: what conforms, what does not, and what could not be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conforma.cli.root import run
from tests.policy.services import git_backend, repository, serving

CONFORMS = "Policy configuration conforms to the EnterpriseContractPolicy spec\n"
DOES_NOT = "Error: policy configuration does not conform to the EnterpriseContractPolicy spec: "
POLICY = {
    "description": "All there is",
    "sources": [
        {
            "policy": ["git::https://nowhere.invalid/rules.git"],
            "config": {"include": ["@minimal"]},
            "volatileConfig": {"exclude": [{"value": "a.b", "effectiveUntil": "2024-01-01"}]},
        }
    ],
    "publicKey": "k8s://no/secret",
}


@pytest.mark.parametrize(
    "document",
    [
        json.dumps(POLICY),
        json.dumps({"apiVersion": "v1", "kind": "EnterpriseContractPolicy", "spec": POLICY}),
        "sources:\n- policy: [x]\n",
        '{"sources": []}',
        "{}\n",
    ],
)
def test_what_conforms(document: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", "policy", "--policy", document]) == 0
    assert capsys.readouterr() == (CONFORMS, "")


def test_files_and_repositories_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(json.dumps(POLICY))
    assert run(["validate", "policy", "-p", str(file)]) == 0
    repository(tmp_path / "git" / "config.git", {".ec/policy.yaml": "sources: {}\n"})
    with serving(git_backend(tmp_path / "git"), tmp_path) as hub:
        monkeypatch.setenv("SSL_CERT_FILE", str(hub.ca_file))
        assert capsys.readouterr() == (CONFORMS, "")
        assert run(["validate", "policy", "-p", f"git::https://{hub.host}/config.git"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(DOES_NOT)
    assert "/sources" in told.err


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ('{"source": []}', "additionalProperties 'source' not allowed"),
        ('{"sources": [{"policy": "x"}]}', "/sources/0/policy"),
        ('{"spec": {"identity": {"subject": 1}}}', "/identity/subject"),
        ("sources: [\n", "unable to parse EnterpriseContractPolicySpec: error converting YAML"),
        ('["a:b"]', "json: cannot unmarshal array"),
    ],
)
def test_what_does_not_conform_is_told_with_the_reason(
    document: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["validate", "policy", f"--policy={document}"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(DOES_NOT)
    assert reason in told.err


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("acceptance/ec-policy", "a policy in a cluster is not looked up by name"),
        ("missing.yaml", "there is no file missing.yaml"),
    ],
)
def test_names_are_not_looked_up(name: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", "policy", "--policy", name]) == 1
    expected = f'{DOES_NOT}"{name}" is no document\nhint: {hint}\n'
    assert capsys.readouterr() == ("", expected)


def test_a_policy_is_required_and_must_be_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["validate", "policy"]) == 1
    assert capsys.readouterr() == ("", 'Error: required flag(s) "policy" not set\n')
    assert run(["validate", "policy", "--policy="]) == 1
    assert capsys.readouterr() == ("", "Error: there is no policy configuration to check\n")
    empty = tmp_path / "empty.yaml"
    empty.touch()
    assert run(["validate", "policy", "--policy", str(empty)]) == 1
    assert capsys.readouterr() == ("", f"Error: file {empty} is empty\n")
