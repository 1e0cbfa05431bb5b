"""A signal ends a wait whenever it comes."""

from __future__ import annotations

import subprocess
import sys

from tests.cli.program import LIMIT, environment

# A signal that only another thread is interrupted by is what one looks like that came just
# before the wait: Python knows of it, and the main thread sleeps.
UNNOTICED = """
import signal, threading
from pathlib import Path
from conforma.cli.signals import wait_for

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
main = threading.main_thread().native_id

def tell():
    while Path(f"/proc/self/task/{main}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        pass
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    threading.Event().wait()

threading.Thread(target=tell, daemon=True).start()
wait_for(stop)
print("ended")
"""


def test_a_signal_that_does_not_wake_the_main_thread_is_noticed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNNOTICED],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("ended\n", "")
