"""The command as a process of its own: what only a process shows, and what only one can suffer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

import conforma
from tests.cli.shop import Outcome

LIMIT = 120
"""Seconds after which a process counts as hanging."""


def environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Our own environment with ``changes``; ``None`` removes a variable."""
    paths = [str(Path(conforma.__file__).parents[1]), *filter(None, sys.path)]
    wanted = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(changes or {})}
    return {name: value for name, value in wanted.items() if value is not None}


def start(
    arguments: Sequence[str],
    *,
    changes: Mapping[str, str | None] | None = None,
    cwd: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    user: int | None = None,
    before: Callable[[], None] | None = None,
) -> subprocess.Popen[bytes]:
    """Start the command; ``user`` is who runs it, ``before`` is called in the child."""
    return subprocess.Popen(
        [sys.executable, "-m", "conforma", *arguments],
        env=environment(changes),
        cwd=cwd,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        preexec_fn=before,
    )


def finish(process: subprocess.Popen[bytes]) -> Outcome:
    """Wait for a command; one that hangs is killed and fails the test."""
    try:
        out, err = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Outcome(process.returncode, (out or b"").decode(), (err or b"").decode())


def run_program(
    arguments: Sequence[str],
    *,
    changes: Mapping[str, str | None] | None = None,
    cwd: Path | None = None,
    user: int | None = None,
    before: Callable[[], None] | None = None,
) -> Outcome:
    """Run the command to its end."""
    return finish(start(arguments, changes=changes, cwd=cwd, user=user, before=before))


def run_with_mounts(mount: str, arguments: Sequence[str]) -> Outcome:
    """Run the command with mounts of its own, made by ``mount``, a line for the shell.

    Skips the test where the system lets nobody mount anything.
    """
    own = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*own, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount anything")
    command = [sys.executable, "-m", "conforma", *arguments]
    done = subprocess.run(
        [*own, "sh", "-c", f'{mount} && exec "$@"', "sh", *command],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def read_only(directory: Path) -> str:
    """The mount that makes ``directory`` unwritable even for root."""
    return f"mount --bind {directory} {directory} && mount -o remount,bind,ro {directory}"
