"""A real engine, and policies written for one test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from conforma.policy.rego.engine import Engine, Ruleset


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine.start() as running:
        yield running


@pytest.fixture
def policy_dir(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str, name: str = "main.rego", folder: str = "policy") -> Path:
        directory = tmp_path / folder
        directory.mkdir(exist_ok=True)
        (directory / name).write_text(dedent(text), encoding="utf-8")
        return directory

    return write


@pytest.fixture
def rules(engine: Engine, policy_dir: Callable[..., Path]) -> Callable[..., Ruleset]:
    def compile(text: str, document: dict[str, object] | None = None) -> Ruleset:
        return engine.compile([policy_dir(text)], document=document)

    return compile
