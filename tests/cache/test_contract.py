"""The defects that killed the reference's cache, as a contract for any cache.

Each check is run twice: the cache we ship must pass it, the in-place tee cache
must fail it, or the check would not notice the defect either.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conforma.cache.disk import Key
from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.errors import RegistryUnreachable
from conforma.oci.digest import Digest
from tests.cache.tee import TeeCache
from tests.cache.upstream import PATIENCE, Gate, Sample, Upstream, sample, together


class Candidate:
    """A cache under test and where it keeps its final names."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind, self.directory = kind, directory
        if kind == "tee":
            self.cache: Any = TeeCache(directory)
        else:
            self.cache = SafeCache.open(CacheOptions(directory))

    def read(self, upstream: Upstream, view: str = "compressed") -> bytes:
        what = upstream.sample
        layer = self.cache.layer(what.descriptor, what.diff_id, upstream.fetch)
        with getattr(layer, view)() as source:
            return bytes(source.read())

    def final_name(self, digest: Digest) -> Path:
        if self.kind == "tee":
            return self.cache.final_name(digest)  # type: ignore[no-any-return]
        return self.cache.store.path(Key.of("blobs", digest))  # type: ignore[no-any-return]


def readers_racing_a_writer(candidate: Candidate) -> None:
    """A reader that comes while the writer is at work gets every byte."""
    upstream = Upstream(sample())
    half = len(upstream.content) // 2
    gate = upstream.hold[half] = Gate()
    writer = together(1, lambda _: candidate.read(upstream), wait=False)
    gate.wait_reached()
    readers = together(4, lambda _: candidate.read(upstream), wait=False)
    # The writer stands still until somebody has had the chance to read too early.
    for thread in readers._threads:
        thread.join(0.2)
        if not thread.is_alive():
            break
    gate.open()
    results = writer.join().results + readers.join().results
    assert all(result == upstream.content for result in results)


def an_empty_file_under_a_final_name(candidate: Candidate) -> None:
    """A file of length 0 is never a layer without files."""
    upstream = Upstream(sample())
    path = candidate.final_name(upstream.sample.descriptor.digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert candidate.read(upstream) == upstream.content


def a_truncated_file_under_a_final_name(candidate: Candidate) -> None:
    """Nor is a shorter one."""
    upstream = Upstream(sample())
    path = candidate.final_name(upstream.sample.descriptor.digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(upstream.content[:1000])
    assert candidate.read(upstream) == upstream.content


def a_download_that_broke(candidate: Candidate) -> None:
    """What a failed download left is not mistaken for the layer by the next one."""
    upstream = Upstream(sample())
    half = len(upstream.content) // 2
    upstream.fail_at[half] = lambda: RegistryUnreachable("the line went dead")
    with pytest.raises(RegistryUnreachable):
        candidate.read(upstream)
    upstream.fail_at.clear()
    assert candidate.read(upstream) == upstream.content


def wrong_bytes_from_upstream(candidate: Candidate) -> None:
    """Bytes that are not the ones asked for are neither served nor kept."""
    honest = sample()
    flipped = bytearray(honest.blob)
    flipped[len(flipped) // 2] ^= 1
    with pytest.raises(Exception, match="digest mismatch"):
        candidate.read(Upstream(honest, bytes(flipped)))
    assert candidate.read(Upstream(honest)) == honest.blob


def a_writer_killed_half_way(candidate: Candidate) -> None:
    """What a killed process left is not mistaken for the layer by the next one."""
    what = sample()
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.cache.test_contract import Candidate\n"
        "from tests.cache.upstream import Upstream, sample\n"
        "class Gate:\n"
        "    def pass_through(self): os.kill(os.getpid(), signal.SIGKILL)\n"
        "upstream = Upstream(sample())\n"
        "upstream.hold[len(upstream.content) // 2] = Gate()\n"
        "Candidate(sys.argv[1], Path(sys.argv[2])).read(upstream)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, candidate.kind, str(candidate.directory)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    assert candidate.read(Upstream(what)) == what.blob


def one_download_for_both_views(candidate: Candidate) -> None:
    """Compressed and uncompressed, at the same moment, by many: one request."""
    upstream = Upstream(sample())

    def read(number: int) -> bool:
        view = ("compressed", "uncompressed")[number % 2]
        want = (upstream.sample.blob, upstream.sample.plain)[number % 2]
        return candidate.read(upstream, view) == want

    gate = upstream.hold[0] = Gate()
    readers = together(8, read, wait=False)
    gate.wait_reached()
    gate.open()
    assert readers.join().results == [True] * 8
    assert upstream.requests == 1


CHECKS = [
    readers_racing_a_writer,
    an_empty_file_under_a_final_name,
    a_truncated_file_under_a_final_name,
    a_download_that_broke,
    wrong_bytes_from_upstream,
    a_writer_killed_half_way,
    one_download_for_both_views,
]


@pytest.mark.parametrize("check", CHECKS)
def test_the_safe_cache_keeps(check: Callable[[Candidate], None], tmp_path: Path) -> None:
    check(Candidate("safe", tmp_path / "cache"))


@pytest.mark.parametrize("check", CHECKS)
def test_the_in_place_tee_cache_breaks(check: Callable[[Candidate], None], tmp_path: Path) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(Candidate("tee", tmp_path / "cache"))


def test_the_sample_is_larger_than_any_buffer() -> None:
    what: Sample = sample()
    assert len(what.blob) > 128 * 1024
