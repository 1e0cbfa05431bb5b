"""What every test of the session is held to: no secret in anything that could be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests import canary


def pytest_configure() -> None:
    """Listen before the first test is collected."""
    canary.listen()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long stress runs happen only when ``-m`` asks for them."""
    if "soak" not in str(config.getoption("markexpr")):
        soak = [item for item in items if item.get_closest_marker("soak")]
        items[:] = [item for item in items if item not in soak]
        config.hook.pytest_deselected(items=soak)


@pytest.fixture(autouse=True)
def every_log_line_counts() -> Iterator[None]:
    """Let debug lines be captured as well, so that they are searched for secrets."""
    with canary.hearing_logs():
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A test that passed but told a secret has failed."""
    outcome: Any = yield
    report = outcome.get_result()
    found = canary.told.secrets(text for _, text in report.sections)
    # The account of a failure quotes the test itself.
    if report.passed and found:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} told a secret: {found}"
