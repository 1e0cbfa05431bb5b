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


def test_a_word_is_explained_or_unknown(tmp_path: Path) -> None:
    explained = conforma("opa", "help", "check", directory=tmp_path)
    assert (explained.returncode, explained.stdout.splitlines()[0]) == (
        0,
        "Check Rego source files for parse and compilation errors.",
    )


def test_help_lists_the_flags_that_every_command_has(tmp_path: Path) -> None:
    listed = conforma("opa", "--help", directory=tmp_path).stdout
    own, _, shared = listed.partition("Global Flags:")
    assert "  conforma opa [command]" in own
    assert "  -h, --help   help for opa" in own
    assert {line.split()[0] for line in shared.splitlines() if line.startswith("      --")} == {
        *("--debug", "--kubeconfig", "--logfile", "--quiet", "--retry-duration", "--retry-factor"),
        *("--retry-jitter", "--retry-max-retry", "--retry-max-wait", "--timeout", "--trace"),
        "--verbose",
    }


def test_flags_of_every_command_stand_before_the_word_or_behind_it(tmp_path: Path) -> None:
    query = 'ec.oci.descriptor("127.0.0.1:1/nobody:v1")'
    for name, place in ("before.log", 0), ("behind.log", 1), ("last.log", 4):
        args = ["opa", "eval", "--format=raw", query]
        args.insert(place, f"--logfile={name}")
        done = conforma(*args, "--retry-max-retry=0", directory=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert "127.0.0.1:1/nobody:v1" in (tmp_path / name).read_text()
    wrong = conforma("opa", "eval", "1", "--retry-factor=x", directory=tmp_path)
    assert wrong.returncode == 1
    assert wrong.stderr.splitlines() == [
        'Error: invalid argument "x" for "--retry-factor" flag: strconv.ParseFloat: parsing "x": '
        "invalid syntax"
    ]


def test_a_flag_that_opa_has_as_well_is_its_own_behind_the_command(tmp_path: Path) -> None:
    (tmp_path / "a_test.rego").write_text("package a\n\ntest_one if true\n")
    done = conforma("opa", "test", "--verbose", "a_test.rego", directory=tmp_path)
    assert "data.a.test_one: PASS" in done.stdout


def test_the_time_that_a_command_may_take_can_be_limited(tmp_path: Path) -> None:
    serving = ("run", "--server", "--addr=127.0.0.1:0", "--log-level=error")
    for args in ("--timeout=1s", "opa", *serving), ("opa", *serving, "--timeout=1s"):
        done = conforma(*args, directory=tmp_path)
        assert done.returncode == 3
        assert "Error: exceeded allowed execution time of 1s" in done.stderr


def test_the_policies_we_ship_pass_their_own_tests(tmp_path: Path) -> None:
    done = conforma("opa", "test", str(ROOT / "policies"), directory=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "PASS: " in done.stdout
