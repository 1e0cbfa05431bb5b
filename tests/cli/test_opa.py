"""``conforma opa`` is OPA's command line with functions that reach registries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from conforma.serve.registry import RegistryServer

ROOT = Path(__file__).parents[2]


def conforma(*args: str, directory: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "EC_CACHE_DIR": str(directory / "cache")}
    return subprocess.run(
        [sys.executable, "-m", "conforma", *args],
        capture_output=True,
        text=True,
        env=environment,
        cwd=directory,
        timeout=120,
        check=False,
    )


def test_a_rule_under_opa_reads_a_blob_of_a_registry(tmp_path: Path) -> None:
    with RegistryServer() as server:
        digest = server.store.put_blob("app", b'{"answer": 42}')
        query = f'ec.oci.parsed_blob("{server.host}/app@{digest}").answer'
        done = conforma("opa", "eval", "--format", "raw", query, directory=tmp_path)
    assert (done.returncode, json.loads(done.stdout)) == (0, 42)


def test_what_is_wrong_with_a_purl_is_one_line_on_stderr(tmp_path: Path) -> None:
    query = 'ec.purl.parse("this-is-not-a-valid-purl")'
    done = conforma("opa", "eval", "--format", "raw", query, directory=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "")
    assert done.stderr.strip().endswith(
        'level=error msg="failed to parse PURL" error="purl scheme is not \\"pkg\\": \\"\\"" '
        "function=ec.purl.parse purl=this-is-not-a-valid-purl"
    )


def test_flags_and_status_are_those_of_opa(tmp_path: Path) -> None:
    (tmp_path / "bad.rego").write_text("package bad\nv := unknown(1)\n")
    done = conforma("opa", "check", "--format", "json", "bad.rego", directory=tmp_path)
    assert done.returncode == 1
    assert json.loads(done.stderr)["errors"][0]["location"]["row"] == 2
    help_text = conforma("opa", "test", "--help", directory=tmp_path)
    assert help_text.returncode == 0
    assert "conforma opa test <path> [path [...]] [flags]" in help_text.stdout
    unknown = conforma("opa", "tset", directory=tmp_path)
    assert unknown.returncode == 1
    assert 'unknown command "tset" for "conforma opa"' in unknown.stderr


def test_the_policies_we_ship_pass_their_own_tests(tmp_path: Path) -> None:
    done = conforma("opa", "test", str(ROOT / "policies"), directory=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "PASS: " in done.stdout
