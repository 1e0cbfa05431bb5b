"""What all runs together have had from a cache directory."""

import os
import subprocess
import sys
from pathlib import Path

from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.cache.stats import CacheStats
from conforma.cache.totals import Totals
from tests.cache.upstream import Upstream, sample

ROOT = Path(__file__).parents[2]
ROUNDS, PROCESSES = 5, 6
# Each process ends this many runs, so the additions of all of them meet in the database.
RUNS = """
import sys
from pathlib import Path
from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from tests.cache.upstream import Upstream, sample
for number in range(int(sys.argv[2])):
    with SafeCache.open(CacheOptions(Path(sys.argv[1]))) as cache:
        upstream = Upstream(sample("shared", 20_000))
        what = upstream.sample
        for _ in range(3):
            cache.layer(what.descriptor, None, upstream.fetch).compressed().close()
        print(upstream.requests, upstream.sent, sep=",")
"""


def test_lc_39_totals_are_exact_over_processes_and_agree_with_what_upstream_sent(
    tmp_path: Path,
) -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", RUNS, str(tmp_path / "c"), str(ROUNDS)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _ in range(PROCESSES)
    ]  # fmt: skip
    lines = [line for process in running for line in process.communicate(timeout=60)[0].split()]
    assert [process.returncode for process in running] == [0] * PROCESSES
    upstream = [tuple(map(int, line.split(","))) for line in lines]
    with SafeCache.open(CacheOptions(tmp_path / "c")) as cache:
        totals = cache.totals()
    assert totals.runs == len(upstream) == ROUNDS * PROCESSES
    assert totals.hits + totals.misses == 3 * totals.runs
    assert totals.transfers == sum(requests for requests, _ in upstream) == 1
    assert totals.network_bytes == sum(sent for _, sent in upstream)
    assert totals.saved_bytes == totals.hits * len(sample("shared", 20_000).blob)


def test_a_run_that_reads_nothing_is_not_counted_and_closing_twice_counts_once(
    tmp_path: Path,
) -> None:
    SafeCache.open(CacheOptions(tmp_path / "c")).close()
    upstream = Upstream(sample())
    with SafeCache.open(CacheOptions(tmp_path / "c")) as cache:
        cache.put(upstream.sample.descriptor, upstream.fetch)
        cache.close()
    with SafeCache.open(CacheOptions(tmp_path / "c")) as cache:
        totals = cache.totals()
    assert (totals.runs, totals.hits, totals.misses) == (1, 0, 1)
    assert totals.hit_rate == 0.0


def test_totals_survive_their_own_form_and_damage_counts_as_nothing() -> None:
    stats = CacheStats(requests=5, hits=2, coalesced=1, leaders=1, pass_through=1, saved_bytes=9)
    once = Totals.of(CacheStats(), stats, 1000.0)
    twice = once.plus(Totals.of(CacheStats(), stats, 2000.0))
    assert Totals.parse(twice.as_text()) == twice
    assert (twice.since, twice.runs, twice.hits, twice.misses) == (1000.0, 2, 6, 4)
    assert twice.saved_bytes == 18
    for damaged in (None, b"", "{", "[]", '{"since": []}', '{"since": "x"}'):
        assert Totals.parse(damaged) == Totals()
