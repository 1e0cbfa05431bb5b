"""The engine's child process: its frames, its conversations and its end.

Nothing else talks to the child. Each request opens a conversation; the frames
that answer it arrive in that conversation's queue, so the thread that asked
also answers the builtins of its own evaluation, and no thread ever waits for
another one's turn.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import queue
import select
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from conforma.errors import EngineError
from conforma.policy.rego.frames import Bytes, Frame, read_frame, write_frame
from conforma.policy.rego.inputs import Shared

PROTOCOL = 2
_EXIT_OUT_OF_MEMORY = 86
_STDERR_BYTES = 1 << 16
_BUFFER = 1 << 16
_PATIENCE = 5.0
"""Seconds that a child which said its last word has for ending."""
_NO_MEMORY = ("memory", "cannot allocate")


class Died:
    """Arrives instead of a frame when the child has ended."""


class Woken:
    """Arrives when somebody else wants the conversation's thread to look up."""


class Conversation:
    """The frames of one request, in order. Used by the thread that opened it."""

    def __init__(self, process: EngineProcess, key: int) -> None:
        self.key = key
        self._process = process
        self._queue: queue.SimpleQueue[Frame | Died | Woken] = queue.SimpleQueue()
        self._ended = False

    def send(self, header: Mapping[str, Any], *body: Bytes) -> None:
        """Send one frame of this conversation; raises ``EngineError`` if the child is gone."""
        self._process.send({**header, "id": self.key}, *body)

    def receive(self) -> Frame | None:
        """Wait for the next frame; ``None`` when woken.

        Raises ``EngineError`` if the child has ended.
        """
        item = self._queue.get()
        if isinstance(item, Woken):
            return None
        if isinstance(item, Died):
            raise self._process.obituary()
        if item.header["type"] in ("result", "error"):
            self._ended = True
        return item

    def wake(self) -> None:
        """Make ``receive`` return ``None`` once; called from any thread, never blocks."""
        self._queue.put(Woken())

    def put(self, item: Frame | Died | Woken) -> None:
        """Hand an item to the waiting thread; called from any thread."""
        self._queue.put(item)

    @property
    def ended(self) -> bool:
        """Whether the child has said its last word in this conversation."""
        return self._ended


class EngineProcess:
    """A running child. Any number of threads may hold conversations with it at once."""

    def __init__(self, executable: Path, memory_bytes: int) -> None:
        """Start the child and return at once; its greeting is read in the background.

        Raises ``EngineError`` if the program cannot be started.
        """
        environment = {**os.environ, "CONFORMA_ENGINE_MEMORY": str(memory_bytes)}
        try:
            # No shell, a fixed argument; the path is ours or the user's own choice.
            self._child = subprocess.Popen(  # noqa: S603
                [str(executable), "serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=environment,
            )
        except OSError as error:
            raise EngineError(
                f"cannot start the policy engine {executable}: {error.strerror or error}",
                hint="reinstall conforma, or name a working engine in CONFORMA_ENGINE",
            ) from error
        self.executable = executable
        self.opa_version = ""
        self._memory_bytes = memory_bytes
        self._writing = threading.Lock()
        self._lock = threading.Lock()
        self._keys = itertools.count(1)
        self._conversations: dict[int, Conversation] = {}
        self._giving = threading.Lock()
        self._given: dict[Shared, int] = {}
        self._greeted = threading.Event()
        self._wrong: str | None = None
        self._dead = False
        self._complaints = b""  # the first ones: the reason comes before its traces
        self._fault = ""
        self._ended, self._tell_ended = os.pipe()
        self._listener = threading.Thread(
            target=self._listen, name="conforma-engine-complaints", daemon=True
        )
        self._reader = threading.Thread(target=self._read, name="conforma-engine", daemon=True)
        try:
            self._listener.start()
            self._reader.start()
        except RuntimeError:  # no more threads; the child must not outlive the attempt
            self._child.kill()
            self._child.wait()
            raise

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether new conversations can be opened."""
        return not self._dead

    def greeted(self) -> None:
        """Wait until the child has said hello in our protocol; raises ``EngineError`` else."""
        self._greeted.wait()
        if self._wrong is not None:
            raise EngineError(
                self._wrong, hint="reinstall conforma, or correct or unset CONFORMA_ENGINE"
            )
        if self._dead:
            raise self.obituary()

    @contextlib.contextmanager
    def conversation(self) -> Iterator[Conversation]:
        """Open a conversation; leaving it early tells the child to stop working on it."""
        with self._lock:
            talk = Conversation(self, next(self._keys))
            self._conversations[talk.key] = talk
            if self._dead:
                talk.put(Died())
        try:
            yield talk
        finally:
            with self._lock:
                self._conversations.pop(talk.key, None)
            if not talk.ended and not self._dead:
                with contextlib.suppress(EngineError):
                    talk.send({"type": "cancel"})

    def send(self, header: Mapping[str, Any], *body: Bytes) -> None:
        """Write one frame; raises ``EngineError`` if the child is gone."""
        assert self._child.stdin is not None
        try:
            with self._writing:
                write_frame(self._child.stdin, header, *body)
        except OverflowError as error:
            raise EngineError(str(error)) from error
        except (OSError, ValueError) as error:
            raise self.obituary() from error

    def given(self, value: Shared) -> int:
        """The key by which the child knows ``value``, which it gets once.

        Raises ``EngineError`` if the child is gone.
        """
        with self._giving:
            key = self._given.get(value)
            if key is None:
                key = next(self._keys)
                self.send({"type": "share", "id": key}, value.text)
                self._given[value] = key
            return key

    def close(self) -> None:
        """End the child and wait for it; calling it again changes nothing."""
        if self._child.stdin is not None:
            with self._writing, contextlib.suppress(OSError):
                self._child.stdin.close()
        try:
            self._child.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._reader.join()
        self._listener.join()

    def obituary(self) -> EngineError:
        """Say why the child has ended, once it has."""
        self._reader.join(timeout=2 * _PATIENCE)
        status = self._child.poll()
        if status == _EXIT_OUT_OF_MEMORY:
            return EngineError(
                "the policy engine gave up: a policy needs more memory than "
                f"{_mebibytes(self._memory_bytes)} MiB",
                hint="look for a rule that builds a very large value, or raise the engine's "
                "memory limit",
            )
        how = "stopped answering"
        if status is not None and status < 0:
            how = f"was ended by {_signal_name(-status)}"
        elif status is not None:
            how = f"ended with status {status}"
        lines = [self._fault, *self._complaints.decode(errors="replace").splitlines()]
        said = next((line.rstrip() for line in lines if line.strip()), "")
        hint = "run the command again; if it was killed for its memory, validate with fewer workers"
        if not self.opa_version and any(word in said for word in _NO_MEMORY):
            hint = "the engine got no memory; raise the limit (ulimit -v)"
        elif not self.opa_version:
            hint = "reinstall conforma, or correct or unset CONFORMA_ENGINE"
        return EngineError(
            f"the policy engine (pid {self.pid}) {how}" + (f": {said}" if said else ""), hint=hint
        )

    def _read(self) -> None:
        try:
            assert self._child.stdout is not None
            # Lengths, header and body of a frame mostly arrive together.
            stream = io.BufferedReader(cast(io.FileIO, self._child.stdout), _BUFFER)
            while (frame := read_frame(stream)) is not None:
                self._dispatch(frame)
        except (OSError, ValueError) as error:
            self._fault = str(error)
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(timeout=_PATIENCE)
            os.write(self._tell_ended, b"\0")
            self._listener.join()
            os.close(self._tell_ended)
            os.close(self._ended)
            with self._lock:
                self._dead = True
                waiting = list(self._conversations.values())
            for talk in waiting:
                talk.put(Died())
            self._greeted.set()

    def _dispatch(self, frame: Frame) -> None:
        if frame.header["type"] == "hello":
            protocol = frame.header.get("protocol")
            self.opa_version = "v" + str(frame.header.get("opa", ""))
            if protocol != PROTOCOL:
                self._wrong = (
                    f"the policy engine {self.executable} speaks protocol {protocol}, "
                    f"this conforma speaks {PROTOCOL}"
                )
            self._greeted.set()
            return
        with self._lock:
            talk = self._conversations.get(frame.header.get("id", 0))
        if talk is not None:
            talk.put(frame)

    def _listen(self) -> None:
        """Collect what the child complains of, until it has ended and all of it is read.

        Others may hold the pipe open, so its end is not what to wait for.
        """
        assert self._child.stderr is not None
        pipe = self._child.stderr.fileno()
        os.set_blocking(pipe, False)
        waiting = select.poll()
        waiting.register(pipe, select.POLLIN)
        waiting.register(self._ended, select.POLLIN)
        ended = False
        while True:
            ended = ended or any(which == self._ended for which, _ in waiting.poll())
            try:
                piece = os.read(pipe, _STDERR_BYTES)
            except BlockingIOError:
                if ended:
                    break
                continue
            if not piece:
                break
            self._complaints += piece[: _STDERR_BYTES - len(self._complaints)]


def _mebibytes(size: int) -> int:
    return size >> 20


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
