"""What every test of the session is held to: no secret in anything that was printed or logged."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from typing import Any

import pytest

# Every password of the tests begins like this.
_CANARY = "c4nary-"
_ENCODED = tuple(
    base64.b64encode(f"me:{password}".encode()).decode()
    for password in ("c4nary-s3cret", "c4nary-chaos-s3cret")
)


def secrets_in(text: str) -> list[str]:
    """The test passwords that a text gives away, plain or as they travel."""
    return [secret for secret in (_CANARY, *_ENCODED) if secret in text]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long stress runs happen only when ``-m`` asks for them."""
    if "soak" not in str(config.getoption("markexpr")):
        soak = [item for item in items if item.get_closest_marker("soak")]
        items[:] = [item for item in items if item not in soak]
        config.hook.pytest_deselected(items=soak)


@pytest.fixture(autouse=True)
def every_log_line_counts() -> Iterator[None]:
    """Let debug lines be captured as well, so that they are searched for secrets."""
    logger = logging.getLogger("conforma")
    before = logger.level
    logger.setLevel(logging.DEBUG)
    yield
    logger.setLevel(before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A test that passed but told a secret has failed."""
    outcome: Any = yield
    report = outcome.get_result()
    # The account of a failure quotes the test itself.
    if report.passed and (found := secrets_in("".join(text for _, text in report.sections))):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} told a secret: {found}"
