"""The progress display: a line for each running component, totals, and silence elsewhere."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import threading

import pytest

from conforma.cache.stats import CacheStats
from conforma.cli import progress
from conforma.cli.progress import Board
from conforma.errors import RegistryUnreachable
from conforma.findings import Violation
from conforma.validate.result import ComponentResult
from conforma.validate.snapshot import Component

WEB, API, EVIL = (
    Component("web", "i/web"),
    Component("api", "i/api"),
    Component("\x1b[2J[red]evil\n", "i/evil"),
)
STATS = CacheStats(requests=10, hits=6, coalesced=2, leaders=2, network_bytes=5 * 1024 * 1024)


def in_thread(work: object) -> None:
    thread = threading.Thread(target=work)  # type: ignore[arg-type]
    thread.start()
    thread.join()


def test_shows_who_is_running_and_what_became_of_the_others() -> None:
    now = [100.0]
    board = Board(5, lambda: STATS, clock=lambda: now[0])
    board.started(WEB)
    now[0] = 101.5
    in_thread(lambda: board.started(EVIL))
    assert board.lines() == [
        "    1.5s  web",
        "    0.0s  \\x1b[2J[red]evil\\n",
        "0/5 done, 0 passed, layers: 8 of 10 from the cache, 5 MiB fetched",
    ]
    board.finished(ComponentResult(WEB, "i/web"))
    in_thread(lambda: board.finished(ComponentResult(API, "i", violations=(Violation("v"),))))
    in_thread(lambda: board.finished(ComponentResult(API, "i", error=RegistryUnreachable("x"))))
    assert board.lines()[-1].startswith("3/5 done, 1 passed, 1 failed, 1 undecided, layers:")


def test_many_components_are_summed_up() -> None:
    board = Board(30, CacheStats)
    hold, ready = threading.Event(), threading.Barrier(21)

    def run(number: int) -> None:
        board.started(Component(f"c{number}", "i"))
        ready.wait(10)
        hold.wait(10)  # thread identities are reused once a thread has ended

    threads = [threading.Thread(target=run, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    ready.wait(10)
    lines = board.lines()
    hold.set()
    for thread in threads:
        thread.join()
    assert len(lines) == 18
    assert lines[-2:] == ["          and 4 more", "0/30 done, 0 passed"]


def test_markup_in_a_name_is_text() -> None:
    board = Board(1, CacheStats)
    board.started(EVIL)
    assert "[red]" in board.render().plain


def test_without_a_terminal_or_with_quiet_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress.shown(1, CacheStats, quiet=False) as watcher:
        assert watcher is None


@pytest.mark.slow
@pytest.mark.parametrize(("quiet", "visible"), [(False, True), (True, False)])
def test_on_a_terminal_it_is_on_stderr_only(quiet: bool, visible: bool) -> None:
    program = f"""
import sys
from conforma.cache.stats import CacheStats
from conforma.cli import progress
from conforma.validate.snapshot import Component
with progress.shown(1, CacheStats, quiet={quiet}) as watcher:
    if watcher: watcher.started(Component("the-web", "i"))
print("report")
"""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # Linux says EIO when the other side has closed
                break
            if not piece:
                break
            seen += piece
        assert process.stdout is not None
        assert process.stdout.read() == b"report\n"
    os.close(ours)
    assert (b"the-web" in seen) is visible
    assert (seen == b"") is not visible
