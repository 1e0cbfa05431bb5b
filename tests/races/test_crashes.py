import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def enumerate_crashes(directory: Path, mode: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.races.crashes", str(directory), mode],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_lc_17_a_kill_before_any_step_leaves_no_corrupt_entry_and_no_repair_to_do(
    tmp_path: Path,
) -> None:
    reports = enumerate_crashes(tmp_path, "kill")
    assert len(reports) > 25  # every step of the protocol, not a few of them
    assert [r["finished"] for r in reports] == [False] * (len(reports) - 1) + [True]
    for report in reports:
        assert report["bad"] == [], report
        assert report["right"], report
        assert report["partials"] <= 1, report
        assert report["requests"] <= 1, report
    assert reports[-1]["requests"] == 0


def test_lc_20_after_a_loss_of_power_entries_are_absent_valid_or_found_out(tmp_path: Path) -> None:
    reports = enumerate_crashes(tmp_path, "power")
    for report in reports:
        assert "blobs" not in report["bad"], report  # they are synced before they are named
        assert report["right"], report
    # Plain tars are not synced; the test is worth something only if one was lost.
    assert any("layers" in report["bad"] for report in reports)
