"""The policies we ship hold their own tests, say what they do, and can be configured."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conforma.policy.config import PolicyConfig

ROOT = Path(__file__).parents[2]
POLICIES = ROOT / "policies"


def opa(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "conforma", "opa", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def rules() -> list[dict[str, Any]]:
    """The annotations of every deny and warn rule, with code and file."""
    inspected = json.loads(opa("inspect", "-a", "-f", "json", "policies/release").stdout)
    found = []
    for entry in inspected["annotations"]:
        location = entry["location"]["file"]
        if entry["annotations"]["scope"] == "rule" and not location.endswith("_test.rego"):
            package = entry["path"][-2]["value"]
            custom = entry["annotations"]["custom"]
            found.append({**entry["annotations"], "code": f"{package}.{custom['short_name']}"})
    return found


@pytest.mark.slow
def test_the_unit_tests_of_the_policies_pass() -> None:
    done = opa("test", "policies", "--format=json")
    results = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert not [result["name"] for result in results if result.get("fail")]
    tested = {result["package"] for result in results}
    packages = {
        re.search(r"^package (\S+)", file.read_text(), re.MULTILINE)[1]  # type: ignore[index]
        for file in POLICIES.rglob("*.rego")
        if not file.name.endswith("_test.rego")
    }
    assert {f"data.{package}_test" for package in packages} == tested


@pytest.mark.slow
def test_every_rule_says_what_it_wants_and_what_to_do() -> None:
    found = rules()
    assert len(found) == 16
    for rule in found:
        custom = rule["custom"]
        assert rule["title"] and rule["description"], rule["code"]
        assert custom["failure_msg"] and custom["solution"], rule["code"]
        assert set(custom["collections"]) <= {"minimal", "release"}, rule["code"]


@pytest.mark.slow
def test_the_readme_lists_every_rule_with_its_collections() -> None:
    table = re.findall(r"^\| `(\S+)` \| ([a-z, ]+) \|", (POLICIES / "README.md").read_text(), re.M)
    assert {code: names.split(", ") for code, names in table} == {
        rule["code"]: rule["custom"]["collections"] for rule in rules()
    }


@pytest.mark.parametrize("name", ["release", "minimal"])
def test_configurations_name_what_is_there(name: str) -> None:
    config = PolicyConfig.parse((POLICIES / "configurations" / name / "policy.yaml").read_text())
    assert config.name.lower() == name
    [group] = config.sources
    for source in (*group.policy, *group.data):
        assert (ROOT / source).is_dir()


def test_settings_in_the_data_are_settings_of_the_rules() -> None:
    import yaml

    data = yaml.safe_load((POLICIES / "data" / "rule_data.yaml").read_text())
    known = re.findall(r'^\t"(\w+)": ', (POLICIES / "lib" / "settings.rego").read_text(), re.M)
    used = set()
    for file in (POLICIES / "release").glob("*.rego"):
        used |= set(re.findall(r'settings\.value\("(\w+)"\)', file.read_text()))
    assert set(data) == {"rule_data"}
    assert set(data["rule_data"]) <= set(known)
    assert used == set(known)
