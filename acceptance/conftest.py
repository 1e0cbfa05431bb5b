"""Gives every scenario its own world and all steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from acceptance.steps.cache import *  # noqa: F403
from acceptance.steps.documents import *  # noqa: F403
from acceptance.steps.images import *  # noqa: F403
from acceptance.steps.judging import *  # noqa: F403
from acceptance.steps.ledger import *  # noqa: F403
from acceptance.steps.outcome import *  # noqa: F403
from acceptance.steps.policy import *  # noqa: F403
from acceptance.steps.pulling import *  # noqa: F403
from acceptance.steps.running import *  # noqa: F403
from acceptance.world import World
from tests.conftest import every_log_line_counts, pytest_configure, pytest_runtest_makereport

# What the scenarios print and log is searched for secrets as that of every test.
__all__ = ["every_log_line_counts", "pytest_configure", "pytest_runtest_makereport", "world"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An empty world that is cleaned up after the scenario."""
    world = World(tmp_path)
    yield world
    world.close()
