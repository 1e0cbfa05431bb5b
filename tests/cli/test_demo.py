"""``conforma demo --serve`` goes on until it is told to stop, whoever started it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from conforma.serve.demo_release import fresh_release
from tests.cli.program import finish, start

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("demo") / "kept"
    with fresh_release(directory):
        return directory


def ignored() -> None:
    """As for a command that a script started with '&'."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_even_where_a_script_had_it_ignored(
    kept: Path, number: signal.Signals
) -> None:
    serving = start(["demo", f"--serve={kept}"], before=ignored)
    assert serving.stdout is not None
    line = b""
    while not line.startswith(b"Serving "):
        line = serving.stdout.readline()
        assert line, "the registry was not served"
    serving.send_signal(number)
    done = finish(serving)
    assert done.status == 0, done.err
    assert done.err == ""
