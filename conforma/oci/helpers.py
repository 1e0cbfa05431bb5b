"""Asking a docker credential helper: a program we do not trust to be quick or brief.

It is started without a shell, gets the server's name and nothing else to read,
and is ended with its whole process group when it takes too long or prints too
much. What it printed never appears in a message: it may be the secret.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from typing import Final

from conforma.cancellation import Cancellation
from conforma.errors import AccessDenied

TIME_LIMIT: Final = 10.0
"""Seconds a helper may take."""
_SIZE_LIMIT: Final = 64 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# What the helpers of docker/docker-credential-helpers print when they have nothing.
_NOTHING_FOUND: Final = "credentials not found"


def ask_helper(
    name: str,
    server: str,
    environment: Mapping[str, str],
    cancellation: Cancellation,
    *,
    time_limit: float = TIME_LIMIT,
) -> tuple[str, str] | None:
    """User name and secret that ``docker-credential-<name>`` has for ``server``.

    ``None`` if it has none. Raises ``AccessDenied`` if it is missing, fails,
    takes longer than ``time_limit`` seconds or answers something else.
    """
    program = f"docker-credential-{name}"
    path = shutil.which(program, path=environment.get("PATH")) if _NAME.fullmatch(name) else None
    if path is None:
        raise _failed(program, "is not installed", "install it, or log in without a helper")
    output, status = _run([path, "get"], server, environment, cancellation, program, time_limit)
    text = output.decode("utf-8", "replace").strip()
    if status != 0:
        if _NOTHING_FOUND in text.lower():
            return None
        raise _failed(program, f"ended with status {status}", "run it by hand to see why")
    try:
        answer = json.loads(text)
        username, secret = answer["Username"], answer["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        # No cause attached: the text of a JSON error may quote the secret.
        raise _failed(program, "did not answer a JSON credential", "update it") from None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise _failed(program, "did not answer a JSON credential", "update it")
    return (username, secret) if secret else None


def _run(
    command: list[str],
    server: str,
    environment: Mapping[str, str],
    cancellation: Cancellation,
    program: str,
    time_limit: float,
) -> tuple[bytes, int]:
    try:
        process = subprocess.Popen(  # noqa: S603  an argument list, never a shell
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            start_new_session=True,
        )
    except OSError as cause:
        raise _failed(program, f"cannot be started: {cause.strerror}", "check it") from cause
    stop = cancellation.on_cancel(lambda: _end(process))
    try:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(server.encode())
            process.stdin.close()
        return _read_all(process, program, time_limit)
    finally:
        stop()
        _end(process)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        cancellation.raise_if_cancelled()


def _read_all(
    process: subprocess.Popen[bytes], program: str, time_limit: float
) -> tuple[bytes, int]:
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    poller = select.poll()
    poller.register(descriptor, select.POLLIN | select.POLLHUP)
    deadline = time.monotonic() + time_limit
    output = b""
    try:
        while (left := deadline - time.monotonic()) > 0 and poller.poll(left * 1000):
            piece = os.read(descriptor, 16 * 1024)
            if not piece:
                return output, process.wait(max(deadline - time.monotonic(), 0.0))
            output += piece
            if len(output) > _SIZE_LIMIT:
                raise _failed(program, f"printed more than {_SIZE_LIMIT} bytes", "run it by hand")
    except subprocess.TimeoutExpired:
        pass
    raise _failed(program, f"did not answer within {time_limit:g} s", "run it by hand")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)


def _failed(program: str, what: str, hint: str) -> AccessDenied:
    return AccessDenied(f"credential helper {program} {what}", hint=hint)
