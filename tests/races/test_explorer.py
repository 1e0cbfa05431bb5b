"""The explorer finds nothing in the cache, and finds what is wrong with the bad examples."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from conforma.cache import fs
from conforma.cache.disk import LayerStore
from conforma.cache.locks import EntryLock
from conforma.oci.digest import Hasher
from tests.cache.candidates import BAD_EXAMPLES
from tests.races.explorer import Explorer
from tests.races.fills import Filler

COMMON = settings(
    deadline=None,
    database=None,
    print_blob=True,
    report_multiple_bugs=False,
    stateful_step_count=50,
    # What fails is told as it was found: making it shorter can take minutes.
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)

pytestmark = pytest.mark.slow


@pytest.fixture
def explorer() -> Iterator[type[Explorer]]:
    """A machine of its own for each test, in memory where that can be: it is not about disks."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(
        prefix="conforma-explorer-", dir=place, ignore_cleanup_errors=True
    ) as base:
        filler = Filler()
        attributes = {"base": Path(base), "filler": filler, "totals": Counter()}
        yield type("Exploration", (Explorer,), attributes)
        filler.close()


def explore(machine: type[Explorer], **changes: Any) -> None:
    run_state_machine_as_test(machine, settings=settings(COMMON, **changes))


def test_exploring_the_cache_finds_nothing(explorer: type[Explorer]) -> None:
    explore(explorer, derandomize=True, max_examples=25)
    print(json.dumps(explorer.totals))
    # It is worth something only if it got around.
    for name in ("killed", "coalesced", "quarantines", "collect", "lose"):
        assert explorer.totals[name] > 0, name


@pytest.mark.soak
def test_exploring_the_cache_for_long_finds_nothing(explorer: type[Explorer]) -> None:
    """As long as ``CONFORMA_EXPLORE_SECONDS`` says, by default for five minutes; never the same twice."""
    ends = time.monotonic() + float(os.environ.get("CONFORMA_EXPLORE_SECONDS", "300"))
    while time.monotonic() < ends:
        explore(explorer, max_examples=50, stateful_step_count=60)
    print(json.dumps(explorer.totals))


def found(machine: type[Explorer]) -> None:
    """The first counterexample is enough; how short it could be does not matter here."""
    with pytest.raises((AssertionError, Flaky)):
        explore(machine, derandomize=True, max_examples=200)


@pytest.mark.parametrize("kind", BAD_EXAMPLES)
def test_exploring_a_bad_example_finds_a_defect(explorer: type[Explorer], kind: str) -> None:
    explorer.kind = kind
    explorer.patience = 1.0  # it will hang
    found(explorer)


def forgets_pins(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fs, "is_unused", lambda _descriptor: True)


def looks_at_no_size(patch: pytest.MonkeyPatch) -> None:
    opened = LayerStore.open
    patch.setattr(LayerStore, "open", lambda store, key, _size: opened(store, key, None))


def checks_no_digest(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Hasher, "check", lambda _hasher, _what: None)


def takes_no_lock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(EntryLock, "try_acquire", lambda _lock: True)


@pytest.mark.parametrize(
    "plant",
    [forgets_pins, looks_at_no_size, checks_no_digest, takes_no_lock],
)
def test_exploring_finds_a_planted_defect(
    explorer: type[Explorer],
    plant: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    found(explorer)
