"""The defects of other designs, as a contract for any cache.

Each check is run with the cache we ship, which must pass it, and with the bad
examples, each of which must fail those that its design is wrong about, or the
check would not notice the defect either.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conforma.errors import RegistryUnreachable
from conforma.oci.digest import Digest
from tests.cache.candidates import final_name, is_busy, opened, waiting
from tests.cache.upstream import PATIENCE, Gate, Joined, Sample, Upstream, sample, together
from tests.oci.scenery import until


class Candidate:
    """A cache under test and where it keeps its final names."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind, self.directory = kind, directory
        self.cache = opened(kind, directory)

    def read(self, upstream: Upstream, view: str = "compressed", length: int = -1) -> bytes:
        what = upstream.sample
        layer = self.cache.layer(what.descriptor, what.diff_id, upstream.fetch)
        with getattr(layer, view)() as source:
            return bytes(source.read(length))

    def final_name(self, digest: Digest) -> Path:
        return final_name(self.cache, digest)

    def until_waiting(self, readers: Joined, count: int) -> None:
        """Return when so many callers wait, or need not wait because they have an answer."""
        until(lambda: waiting(self.cache) + readers.ended >= count, PATIENCE)


def readers_racing_a_writer(candidate: Candidate) -> None:
    """A reader that comes while the writer is at work gets every byte."""
    upstream = Upstream(sample())
    half = len(upstream.content) // 2
    gate = upstream.hold[half] = Gate()
    writer = together(1, lambda _: candidate.read(upstream), wait=False)
    gate.wait_reached()
    readers = together(4, lambda _: candidate.read(upstream), wait=False)
    # The writer stands still until everybody has had the chance to read too early.
    candidate.until_waiting(readers, 4)
    gate.open()
    results = writer.join().results + readers.join().results
    assert all(result == upstream.content for result in results)


def a_reader_of_a_running_download(candidate: Candidate) -> None:
    """The first bytes come while the last ones are still on their way (LC-32)."""
    upstream = Upstream(sample())
    gate = upstream.hold[len(upstream.content) // 2] = Gate()
    writer = together(1, lambda _: candidate.read(upstream), wait=False)
    gate.wait_reached()
    early = together(1, lambda _: candidate.read(upstream, "stream", 1000), wait=False)
    candidate.until_waiting(early, 1)
    came = early.ended
    gate.open()
    assert early.join().results + writer.join().results == [
        upstream.content[:1000],
        upstream.content,
    ]
    assert came == 1


def a_reader_of_something_else(candidate: Candidate) -> None:
    """Another digest does not wait for this one (LC-9)."""
    upstream, other = Upstream(sample()), Upstream(sample("other"))
    gate = upstream.hold[0] = Gate()
    writer = together(1, lambda _: candidate.read(upstream), wait=False)
    gate.wait_reached()
    reader = together(1, lambda _: candidate.read(other), wait=False)
    candidate.until_waiting(reader, 1)
    came = reader.ended
    gate.open()
    assert reader.join().results + writer.join().results == [other.content, upstream.content]
    assert came == 1


def waiters_of_a_failing_download(candidate: Candidate) -> None:
    """Everybody who waited is told of the failure, and nobody repeats it (LC-11, LC-13)."""
    upstream = Upstream(sample())
    upstream.fail_at[1000] = lambda: RegistryUnreachable("the line went dead")
    gate = upstream.hold[0] = Gate()
    writer = together(1, lambda _: candidate.read(upstream), wait=False)
    gate.wait_reached()
    readers = together(4, lambda _: candidate.read(upstream), wait=False)
    candidate.until_waiting(readers, 4)
    gate.open()
    results = writer.join().results + readers.join().results
    assert [type(result) for result in results] == [RegistryUnreachable] * 5
    assert upstream.requests == 1


def two_who_share_only_the_directory(candidate: Candidate) -> None:
    """What one cache is fetching is not fetched by another one as well (LC-8)."""
    upstream = Upstream(sample())
    gate = upstream.hold[0] = Gate()
    writer = together(1, lambda _: candidate.read(upstream), wait=False)
    gate.wait_reached()
    # Opened later, so that nobody can mistake it for the same object's business.
    other = Candidate(candidate.kind, candidate.directory)
    reader = together(1, lambda _: other.read(upstream), wait=False)
    until(lambda: is_busy(other.cache) or reader.ended == 1 or upstream.requests > 1, PATIENCE)
    gate.open()
    assert reader.join().results + writer.join().results == [upstream.content] * 2
    assert upstream.requests == 1


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


CHECKS = {
    readers_racing_a_writer: {"tee"},
    a_reader_of_a_running_download: {"forwarding", "coarse"},
    a_reader_of_something_else: {"coarse"},
    waiters_of_a_failing_download: {"tee", "forwarding", "coarse"},
    two_who_share_only_the_directory: {"tee", "forwarding"},
    an_empty_file_under_a_final_name: {"tee", "forwarding", "coarse"},
    a_truncated_file_under_a_final_name: {"tee", "forwarding", "coarse"},
    a_download_that_broke: {"tee"},
    wrong_bytes_from_upstream: {"tee"},
    a_writer_killed_half_way: {"tee"},
    one_download_for_both_views: {"tee"},
}
"""Each check, and the designs that break it."""
BREAKS = [(check, kind) for check, kinds in CHECKS.items() for kind in sorted(kinds)]


@pytest.mark.parametrize("check", CHECKS)
def test_the_safe_cache_keeps(check: Callable[[Candidate], None], tmp_path: Path) -> None:
    check(Candidate("safe", tmp_path / "cache"))


@pytest.mark.parametrize(("check", "kind"), BREAKS)
def test_the_bad_example_breaks(
    check: Callable[[Candidate], None], kind: str, tmp_path: Path
) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(Candidate(kind, tmp_path / "cache"))


def test_the_sample_is_larger_than_any_buffer() -> None:
    what: Sample = sample()
    assert len(what.blob) > 128 * 1024
