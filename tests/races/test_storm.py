"""The storm: many processes and threads, errors, kills and evictions at once, and no wrong byte."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from tests.races.storm import samples

ROOT = Path(__file__).parents[2]
EXPECTED = {
    "read",
    "wrong",
    "left early",
    "RegistryUnreachable",
    "SizeMismatch",
    "DigestMismatch",
    "Diverged",
}


def storm(directory: Path, processes: int, threads: int, seconds: float) -> Counter[str]:
    """The totals, once every promise was checked. One process is killed, and replaced."""
    # Layers as small as these are kept packed alone, so this is a third of what is wanted.
    cap = sum(len(what.blob) for what in samples()) // 3

    def start(number: int, lasting: float) -> subprocess.Popen[str]:
        words = [str(directory), str(number), str(threads), str(lasting), str(cap)]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.races.storm", *words],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    ends = time.monotonic() + seconds
    running = [start(number, seconds) for number in range(processes)]
    number = processes
    while (left := ends - time.monotonic()) > 1:
        victim = running[number % processes]
        try:
            victim.wait(min(1.0, left))
        except subprocess.TimeoutExpired:
            victim.kill()
            victim.communicate()
            running[number % processes] = start(number, max(0.5, ends - time.monotonic()))
        number += 1
    totals: Counter[str] = Counter(processes=number)
    for process in running:
        output, _ = process.communicate(timeout=seconds + 120)
        assert process.returncode == 0
        report: dict[str, Any] = json.loads(output)
        stats = report["stats"]
        assert report["hanging"] == 0
        ended = sum(stats[name] for name in ("hits", "leaders", "coalesced", "pass_through"))
        assert stats["requests"] == ended
        totals.update(report["totals"])
        totals.update({name: stats[name] for name in ("evictions", "takeovers", "quarantines")})
    unexpected = set(totals) - EXPECTED - {"processes", "evictions", "takeovers", "quarantines"}
    assert not unexpected
    assert totals["wrong"] == 0
    assert totals["read"] > 0
    assert totals["evictions"] > 0
    check(directory, cap)
    return totals


def check(directory: Path, cap: int) -> None:
    """What is left is right, within the limit, and nothing is locked."""
    with SafeCache.open(CacheOptions(directory, max_bytes=cap, grace=0.0)) as cache:
        *_, verdict = cache.upkeep().verify()
        assert verdict.bad == []
        cache.collect()
        usage = cache.usage()
        assert usage.bytes <= cap
        assert usage.partials == 0
        assert usage.bytes == sum(
            f.stat().st_blocks * 512
            for area in ("blobs", "layers", "tocs", "links", "quarantine")
            for f in (directory / "v1" / area).rglob("*")
            if f.is_file()
        )


@pytest.mark.slow
def test_lc_02_08_17_30_a_short_storm(tmp_path: Path) -> None:
    storm(tmp_path / "c", processes=3, threads=8, seconds=4)


@pytest.mark.soak
def test_lc_02_08_17_30_a_long_storm(tmp_path: Path) -> None:
    totals = storm(tmp_path / "c", processes=8, threads=16, seconds=60)
    print(json.dumps(totals))
