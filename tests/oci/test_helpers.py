from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from conforma.cancellation import Cancellation
from conforma.errors import AccessDenied, Interrupted
from conforma.oci.helpers import ask_helper
from tests.oci.scenery import until


@pytest.fixture
def hanging(tmp_path: Path) -> Path:
    """A helper that writes the process ids of itself and its child, then hangs."""
    script = tmp_path / "docker-credential-hang"
    script.write_text(
        f"#!/bin/sh\nsleep 60 &\necho $$ $! >{tmp_path}/pids.new\n"
        f"mv {tmp_path}/pids.new {tmp_path}/pids\nwait\n"
    )
    script.chmod(0o755)
    return tmp_path


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
def test_a_helper_that_hangs_is_ended_with_its_children(hanging: Path) -> None:
    env = {"PATH": f"{hanging}:{os.environ['PATH']}"}
    with pytest.raises(AccessDenied, match=r"did not answer within 0\.5 s"):
        ask_helper("hang", "r.example", env, Cancellation(), time_limit=0.5)
    until(lambda: not any(is_running(int(p)) for p in (hanging / "pids").read_text().split()))


def test_stopping_the_run_ends_a_helper(hanging: Path) -> None:
    cancellation = Cancellation()
    env = {"PATH": f"{hanging}:{os.environ['PATH']}"}
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            ask_helper("hang", "r.example", env, cancellation)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    until((hanging / "pids").exists)
    cancellation.cancel()
    thread.join(20)
    assert isinstance(caught[0], Interrupted)
    until(lambda: not any(is_running(int(p)) for p in (hanging / "pids").read_text().split()))
