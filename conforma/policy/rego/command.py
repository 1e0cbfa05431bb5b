"""OPA's own command line as a child process whose questions we answer."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from conforma.errors import ConformaError, EngineError
from conforma.policy.rego.engine import Builtin, find_engine, relay_log
from conforma.policy.rego.frames import Frame, RawWriter, encode_answer, read_frame, write_frame

log = logging.getLogger("conforma.rego")

_ANSWERING_THREADS = 8


def run_opa(
    args: Sequence[str],
    open_builtins: Callable[[], Mapping[str, Builtin]],
    *,
    name: str = "conforma",
    when_started: Callable[[Callable[[], None]], None] = lambda _: None,
    when_told: Callable[[Sequence[str]], None] = lambda _: None,
    when_ended: Callable[[], None] = lambda: None,
) -> int:
    """Run ``opa`` with ``args`` on our own standard streams; returns its exit status.

    ``name`` is what help and errors call this program. ``when_started`` gets
    the way to stop it; ``when_told`` gets those of our own flags that stand
    behind the word ``opa``, if there are any, before any function is called.

    ``open_builtins`` is called when the first function is, ``when_ended`` when
    nobody waits for answers any more. A function that fails for its
    surroundings is logged and answered as the Go tool does: as if the registry
    could not be reached. Raises ``EngineError``.
    """
    answers_in, answers_out = os.pipe()
    calls_in, calls_out = os.pipe()
    theirs = (answers_in, calls_out)
    program = find_engine()
    with open(answers_out, "wb", 0) as answers, open(calls_in, "rb", 0) as calls:  # noqa: PTH123
        try:
            # No shell; the arguments are the user's own and go to OPA alone.
            child = subprocess.Popen(  # noqa: S603
                [str(program), "opa", *args],
                pass_fds=theirs,
                env={
                    **os.environ,
                    "CONFORMA_ENGINE_CALLBACKS": f"{answers_in},{calls_out}",
                    "CONFORMA_ENGINE_NAME": name,
                },
            )
        except OSError as error:
            raise EngineError(
                f"cannot start the policy engine {program}: {error.strerror or error}",
                hint="reinstall conforma, or name a working engine in CONFORMA_ENGINE",
            ) from error
        finally:
            for end in theirs:
                os.close(end)
        desk = _Desk(answers, open_builtins)
        with child, _ctrl_c_is_theirs(), ThreadPoolExecutor(_ANSWERING_THREADS) as threads:
            when_started(child.terminate)
            while (frame := read_frame(calls)) is not None:
                if frame.header["type"] == "flags":
                    when_told(frame.header["args"])
                elif frame.header["type"] == "call":
                    threads.submit(desk.answer, frame)
                elif frame.header["type"] == "log":
                    relay_log(frame)
            status = child.wait()
            when_ended()
    return status if status >= 0 else 128 - status


class _Desk:
    """Where calls are answered, by several threads."""

    def __init__(
        self, answers: RawWriter, open_builtins: Callable[[], Mapping[str, Builtin]]
    ) -> None:
        self._answers = answers
        self._open_builtins = open_builtins
        self._builtins: Mapping[str, Builtin] | None = None
        self._lock = threading.Lock()

    def answer(self, frame: Frame) -> None:
        name = frame.header["name"]
        kind, body = "unreachable", b""
        try:
            value = self._function(name)(*json.loads(frame.body))
            kind, body = encode_answer(value)  # type: ignore[assignment]
        except ConformaError as error:
            log.error("%s", error, extra={"fields": {"function": name}})
        except Exception:
            log.exception("internal error", extra={"fields": {"function": name}})
        finally:
            # Also after a bug: OPA must not wait for ever.
            header = {"type": "answer", "call": frame.header["call"], "kind": kind}
            with self._lock, contextlib.suppress(OSError):
                write_frame(self._answers, header, body)

    def _function(self, name: str) -> Builtin:
        with self._lock:
            if self._builtins is None:
                self._builtins = self._open_builtins()
        function = self._builtins.get(name)
        if function is None:
            raise EngineError(f"{name} is not available in this command")
        return function


@contextlib.contextmanager
def _ctrl_c_is_theirs() -> Iterator[None]:
    """Leave Ctrl-C to OPA, which gets it from the terminal as we do."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
