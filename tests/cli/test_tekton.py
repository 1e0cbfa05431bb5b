"""The task in docs/tekton.md does what the page says, with the shell of the steps and the command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.program import LIMIT, environment
from tests.cli.shop import Shop

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "tekton.md"


def steps() -> dict[str, dict[str, Any]]:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return {step["name"]: step for step in yaml.safe_load(text)["spec"]["steps"]}


@dataclass
class Task:
    """Runs the steps one after the other, as Tekton would."""

    shop: Shop
    home: Path

    def run(self, **params: str) -> tuple[int, int]:
        """The exit statuses of both steps."""
        values = {
            "IMAGES": json.dumps({"components": self.shop.components}),
            "POLICY_CONFIGURATION": self.shop.policy(),
            "PUBLIC_KEY": self.shop.key.public_pem,
            "IGNORE_REKOR": "true",
            "WORKERS": "4",
        } | params
        validate, judge = steps()["validate"], steps()["assert"]
        declared = {entry["name"] for entry in validate["env"]}
        assert declared == {*values, "EC_CACHE_DIR"}, "the step passes on what the script reads"
        return self._step(validate, values), self._step(judge, {})

    @property
    def result(self) -> dict[str, Any]:
        """The task's TEST_OUTPUT."""
        text = (self.home / "TEST_OUTPUT").read_text()
        assert text.count("\n") == 1
        found: dict[str, Any] = json.loads(text)
        return found

    @property
    def report(self) -> dict[str, Any]:
        """The report that the task leaves in its volume."""
        found: dict[str, Any] = json.loads((self.home / "report.json").read_text())
        return found

    def _step(self, step: dict[str, Any], values: dict[str, str]) -> int:
        programs = self.home / "bin"
        programs.mkdir(exist_ok=True)
        (programs / "conforma").write_text(f'#!/bin/sh\nexec {sys.executable} -m conforma "$@"\n')
        (programs / "conforma").chmod(0o755)
        changes = values | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "EC_CACHE_DIR": str(self.home / "layers"),
            "TEST_OUTPUT": str(self.home / "TEST_OUTPUT"),
        }
        script = self.home / step["name"]
        script.write_text(step["script"])
        script.chmod(0o755)
        done = subprocess.run(
            [script], env=environment(changes), capture_output=True, timeout=LIMIT, check=False
        )
        assert b"Traceback" not in done.stderr, done.stderr
        return done.returncode


@pytest.fixture
def task(shop: Shop, tmp_path: Path) -> Task:
    shop.publish("web")
    (tmp_path / "home").mkdir()
    return Task(shop, tmp_path / "home")


def test_a_good_release_passes_the_task(task: Task) -> None:
    assert task.run() == (0, 0)
    assert task.result["result"] == "SUCCESS"
    assert (task.result["failures"], task.result["warnings"]) == (0, 0)
    assert {"policy", "key", "effective-time", "success"} <= task.report.keys()


def test_a_bad_image_fails_the_assertion_and_not_the_validation(task: Task) -> None:
    task.shop.publish("api", labels={"debug": "true"})
    assert task.run() == (0, 1)
    assert (task.result["result"], task.result["failures"]) == ("FAILURE", 1)


def test_an_outage_is_status_3_with_all_outputs(task: Task) -> None:
    task.shop.components.append({"name": "down", "containerImage": "127.0.0.1:1/shop/down:1"})
    assert task.run() == (3, 1)
    assert (task.result["result"], task.result["failures"]) == ("FAILURE", 0)
    assert task.report["undecided"] == 1


def test_input_that_cannot_be_used_leaves_no_result(task: Task) -> None:
    validated, asserted = task.run(IMAGES="[]")
    assert validated == 1
    assert asserted != 0
    assert not (task.home / "TEST_OUTPUT").exists()
