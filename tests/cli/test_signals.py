"""A signal stops a run whenever it comes."""

from __future__ import annotations

import subprocess
import sys

from tests.cli.program import LIMIT, environment

# A signal that only another thread is interrupted by is what one looks like that came just
# before the wait: Python knows of it, and the main thread sleeps.
UNNOTICED = """
import signal, threading
from pathlib import Path
from conforma.cli.signals import run_until_told

stop = threading.Event()
main = threading.main_thread().native_id

def tell():
    while Path(f"/proc/self/task/{main}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        pass
    for _ in range(SIGNALS):
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    threading.Event().wait()

with run_until_told(None) as cancellation:
    cancellation.on_cancel(REACTION)
    threading.Thread(target=tell, daemon=True).start()
    stop.wait()
    print("ended")
"""


def run(*, signals: int, reaction: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-c",
            UNNOTICED.replace("SIGNALS", str(signals)).replace("REACTION", reaction),
        ],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def test_a_signal_that_does_not_wake_the_main_thread_stops_the_run() -> None:
    done = run(signals=1, reaction="stop.set")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


def test_a_second_signal_ends_a_run_that_does_not_stop() -> None:
    done = run(signals=2, reaction="lambda: None")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
