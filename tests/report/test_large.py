"""Reports of any size are written without a second copy of them in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from conforma.findings import PolicyWarning, Success, Violation
from conforma.report.formats import Options
from conforma.report.targets import Target, write
from conforma.validate.result import Report
from tests.report.samples import component, report

MIB = 1 << 20
SIZE = 100 * MIB
EACH = 25_000
STREAMED = ["json", "yaml", "text", "junit", "html", "sarif"]


@pytest.fixture(scope="module")
def huge() -> Report:
    """One component with 100 MiB of violations, half of a kind each."""
    count = SIZE // EACH + 1
    violations = tuple(
        Violation(f"{number:08}" * (EACH // 8), {"code": f"main.rule_{number % 2}"})
        for number in range(count)
    )
    return report(component(violations=violations))


@pytest.mark.slow
@pytest.mark.parametrize("name", STREAMED)
def test_a_report_of_100_mb_on_one_component_takes_almost_no_memory(
    name: str, huge: Report, tmp_path: Path
) -> None:
    target = tmp_path / "report"
    tracemalloc.start()
    try:
        write(huge, [Target(name, Options(), str(target))], None)  # type: ignore[arg-type]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    size = target.stat().st_size
    target.unlink()
    assert size > SIZE
    assert peak < 8 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("name", STREAMED)
def test_many_small_findings_cost_little_beside_themselves(name: str, tmp_path: Path) -> None:
    metadata = {"code": "main.rule", "title": "A rule", "description": "What it says."}
    finding = (PolicyWarning("Something is odd", metadata),) * 200
    passed = (Success("Pass", metadata),) * 300
    many = report(
        *(component(f"c{n}", warnings=finding, successes=passed) for n in range(100)),
        show_successes=True,
    )
    target = tmp_path / "report"
    tracemalloc.start()
    try:
        options = Options(show_successes=True)
        write(many, [Target(name, options, str(target))], None)  # type: ignore[arg-type]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # 50,000 findings; what a format needs to group them is a reference or two for each.
    assert target.stat().st_size > 50_000 * 60
    assert peak < 10 * MIB
