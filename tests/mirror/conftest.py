"""A shop to mirror from, and registries to mirror to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conforma.serve.registry import RegistryServer
from tests.cli.shop import Shop, open_shop
from tests.mirror.scene import Scene


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    with open_shop(tmp_path, capsys) as opened:
        yield opened


@pytest.fixture
def scene(capsys: pytest.CaptureFixture[str]) -> Iterator[Scene]:
    with RegistryServer() as source:
        yield Scene(source, capsys)


@pytest.fixture
def destination() -> Iterator[RegistryServer]:
    """A registry that refuses concurrent uploads of one digest, as some do."""
    with RegistryServer(exclusive_uploads=True) as server:
        yield server
