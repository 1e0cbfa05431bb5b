"""A shop for the tests of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.bad_release import GOOD, BadRelease
from tests.cli.shop import Shop, open_shop


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    with open_shop(tmp_path, capsys) as opened:
        yield opened


@pytest.fixture
def release(shop: Shop) -> BadRelease:
    """A release whose good component is there already."""
    shop.publish(GOOD)
    return BadRelease(shop)
