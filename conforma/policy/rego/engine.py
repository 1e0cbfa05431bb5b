"""Rulesets: compiled once by the engine, evaluated from many threads, JSON in and out."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from conforma import gojson
from conforma.cancellation import Cancellation
from conforma.errors import EngineError, EvaluationFailed, PolicyError
from conforma.gojson import Numeral
from conforma.policy.rego.annotations import AnnotatedRule, RuleDetails
from conforma.policy.rego.failures import failure_of, too_deep
from conforma.policy.rego.frames import Frame, Undefined, encode_answer
from conforma.policy.rego.inputs import Input, Shared
from conforma.policy.rego.process import Conversation, EngineProcess
from conforma.policy.rego.program import EngineLimits, find_engine

__all__ = [
    "Builtin",
    "Engine",
    "EngineLimits",
    "Input",
    "Output",
    "Ruleset",
    "Shared",
    "Undefined",
    "find_engine",
    "relay_log",
]

log = logging.getLogger("conforma.rego")

Builtin = Callable[..., Any]


class Output(Struct, frozen=True):
    """What a policy printed (``file:line: text``), or the trace of one query."""

    kind: str
    query: str
    text: str


class Engine:
    """The policy engine. Thread safe; a child that died is replaced when next needed."""

    def __init__(self, cancellation: Cancellation | None, limits: EngineLimits) -> None:
        self._cancellation = cancellation
        self._limits = limits
        self._lock = threading.Lock()
        self._process: EngineProcess | None = None
        self._closed = False

    @classmethod
    def start(
        cls, cancellation: Cancellation | None = None, limits: EngineLimits | None = None
    ) -> Engine:
        """Start the engine's process without waiting for it to be ready.

        Raises ``EngineError`` if there is no engine or it cannot be started.
        """
        engine = cls(cancellation, limits or EngineLimits())
        engine.process()
        return engine

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process. Evaluations still running fail with ``EngineError``."""
        with self._lock:
            self._closed = True
            process, self._process = self._process, None
        if process is not None:
            process.close()

    @property
    def opa_version(self) -> str:
        """Such as ``v1.15.2``; waits for the process to be ready."""
        process = self.process()
        process.greeted()
        return process.opa_version

    def process(self) -> EngineProcess:
        """The living child, a new one if the last has died. Raises ``EngineError``."""
        with self._lock:
            if self._closed:
                raise EngineError("the policy engine has been closed")
            if self._process is None or not self._process.alive:
                self._process = EngineProcess(find_engine(), self._limits.memory_bytes)
            return self._process

    def compile(
        self,
        policy_dirs: Sequence[Path],
        data_dirs: Sequence[Path] = (),
        document: Mapping[str, Any] | bytes | None = None,
        *,
        wait: bool = True,
    ) -> Ruleset:
        """Compile all ``.rego`` files below ``policy_dirs``, tests included.

        ``data_dirs`` are loaded as section 3.6 of the specification says and
        merged with ``document``. Without ``wait`` the engine works in the
        background and the first use of the ruleset waits and raises.

        Raises ``CompileFailed`` with the positions of the faults,
        ``PolicyError`` for data that cannot be merged, ``EngineError``.
        """
        if document is not None and not isinstance(document, bytes):
            document = gojson.encode(document)
        ruleset = Ruleset(self, tuple(policy_dirs), tuple(data_dirs), document or b"")
        ruleset.begin()
        if wait:
            ruleset.ready()
        return ruleset

    def inspect(self, policy_dir: Path) -> tuple[AnnotatedRule, ...]:
        """Every rule below ``policy_dir`` except those of tests, in order of file and row.

        Raises ``CompileFailed`` for a file that does not parse and for a
        directory without rules, ``EngineError``.
        """
        process = self.process()
        process.greeted()
        with process.conversation() as talk:
            talk.send({"type": "inspect", "dir": str(policy_dir)})
            frame = self.last_word(talk, self._cancellation)
        return tuple(AnnotatedRule.parse(entry, policy_dir) for entry in json.loads(frame.body))

    @property
    def limits(self) -> EngineLimits:
        """What policies may use up."""
        return self._limits

    @property
    def cancellation(self) -> Cancellation | None:
        """What stops everything this engine does."""
        return self._cancellation

    def last_word(
        self,
        talk: Conversation,
        cancellation: Cancellation | None,
        on_frame: Callable[[Frame], None] | None = None,
    ) -> Frame:
        """Read a conversation to its end and return the result frame, or raise what it says."""
        forget = cancellation.on_cancel(talk.wake) if cancellation else lambda: None
        try:
            while True:
                frame = talk.receive()
                if cancellation is not None:
                    cancellation.raise_if_cancelled()
                if frame is None:
                    continue
                if frame.header["type"] == "result":
                    return frame
                if frame.header["type"] == "error":
                    raise failure_of(frame, self.opa_version)
                if on_frame is not None:
                    on_frame(frame)
        finally:
            forget()


class Ruleset:
    """Compiled rules with their data: immutable, evaluated from any number of threads."""

    def __init__(
        self,
        engine: Engine,
        policy_dirs: tuple[Path, ...],
        data_dirs: tuple[Path, ...],
        document: bytes,
    ) -> None:
        self._engine = engine
        self._policy_dirs = policy_dirs
        self._data_dirs = data_dirs
        self._document = document
        self._lock = threading.Lock()
        self._pending: _Compilation | None = None
        self._home: EngineProcess | None = None
        self._key = 0
        self._fault: PolicyError | None = None
        self._annotations: tuple[AnnotatedRule, ...] | None = None

    def begin(self) -> None:
        """Have the engine start compiling, unless it did already."""
        with self._lock:
            self._begin()

    def ready(self) -> tuple[EngineProcess, int]:
        """Wait until the rules are compiled in a living engine; raises as ``compile`` does."""
        with self._lock:
            if self._fault is not None:
                raise self._fault.with_traceback(None)
            if self._home is None or not self._home.alive:
                compilation = self._begin()
                try:
                    self._key = compilation.finish(self._engine)
                except PolicyError as error:
                    # Everybody meets the same fault; it is looked for once.
                    self._fault = error
                    raise
                finally:
                    self._pending = None
                self._home = compilation.process
            return self._home, self._key

    def _begin(self) -> _Compilation:
        if self._pending is None or not self._pending.process.alive:
            self._pending = _Compilation(
                self._engine.process(), self._policy_dirs, self._data_dirs, self._document
            )
        return self._pending

    @property
    def annotations(self) -> tuple[AnnotatedRule, ...]:
        """Every rule of the policy directories, one directory after the other."""
        if self._annotations is None:
            found = [self._engine.inspect(directory) for directory in self._policy_dirs]
            self._annotations = tuple(rule for rules in found for rule in rules)
        return self._annotations

    def describe(self, file: str, row: int) -> RuleDetails:
        """What the rule at a row of a file, relative to its policy directory, is made of.

        Raises as ``compile`` does, and ``EngineError`` if there is no such file.
        """
        process, key = self.ready()
        path = next((d / file for d in self._policy_dirs if (d / file).is_file()), Path(file))
        with process.conversation() as talk:
            talk.send({"type": "describe", "ruleset": key, "file": str(path), "row": row})
            frame = self._engine.last_word(talk, self._engine.cancellation)
        return RuleDetails.parse(json.loads(frame.body))

    def evaluate(
        self,
        input: bytes | Input,
        queries: Sequence[str],
        *,
        builtins: Mapping[str, Builtin] | None = None,
        cancellation: Cancellation | None = None,
        data: Mapping[str, Any] | None = None,
        trace: bool = False,
        on_output: Callable[[Output], None] | None = None,
    ) -> list[list[Any]]:
        """Answer Rego queries such as ``data.main.deny`` for one input document.

        For each query, in order, the list of the values of its solutions: empty
        if it is undefined. All queries share one session, so what rules have
        in common is computed once. The members of ``data`` replace those of the
        ruleset's documents, object by object, for this evaluation only.

        Builtins are called in this thread. An exception from one ends the
        evaluation and comes out unchanged. Raises ``EvaluationFailed`` for a
        fault of a rule, ``EngineError`` when the engine died or a limit was
        passed, and what ``cancellation`` raises.
        """
        process, key = self.ready()
        document = input if isinstance(input, Input) else Input(input)
        overlay = json.dumps(data).encode() if data is not None else b""
        listener = on_output
        if listener is None and log.isEnabledFor(logging.DEBUG):
            listener = _log_output
        request = {
            "type": "evaluate",
            "ruleset": key,
            "queries": list(queries),
            "shared": {name: process.given(one) for name, one in document.shared.items()},
            "overlay": data is not None,
            "split": len(overlay),
            "seconds": self._engine.limits.seconds,
            "print": listener is not None,
            "trace": trace,
        }
        with process.conversation() as talk:
            talk.send(request, overlay, document.text)

            def on_frame(frame: Frame) -> None:
                _serve(talk, frame, builtins or {}, listener)

            frame = self._engine.last_word(
                talk, cancellation or self._engine.cancellation, on_frame
            )
        try:
            result: list[list[Any]] = json.loads(frame.body, parse_float=Numeral)
        except RecursionError as cause:
            raise too_deep(f"asked for {', '.join(queries[:3])}") from cause
        return result

    def close(self) -> None:
        """Let the engine forget the rules."""
        with self._lock:
            if self._home is not None and self._home.alive:
                self._home.send({"type": "release", "id": self._key})
            self._home = None


class _Compilation:
    """A compile request on its way."""

    def __init__(
        self,
        process: EngineProcess,
        policy_dirs: Sequence[Path],
        data_dirs: Sequence[Path],
        document: bytes,
    ) -> None:
        self.process = process
        self._open = process.conversation()
        self._talk = self._open.__enter__()
        header = {
            "type": "compile",
            "policy_dirs": [str(path) for path in policy_dirs],
            "data_dirs": [str(path) for path in data_dirs],
        }
        self._talk.send(header, document)

    def finish(self, engine: Engine) -> int:
        try:
            self.process.greeted()
            engine.last_word(self._talk, engine.cancellation)
            return self._talk.key
        finally:
            self._open.__exit__(None, None, None)


def _serve(
    talk: Conversation,
    frame: Frame,
    builtins: Mapping[str, Builtin],
    listener: Callable[[Output], None] | None,
) -> None:
    header = frame.header
    match header["type"]:
        case "call":
            function = builtins.get(header["name"])
            if function is None:
                raise EvaluationFailed(
                    f"a rule calls {header['name']}, which is not available in this command"
                )
            kind, body = encode_answer(function(*json.loads(frame.body)))
            talk.send({"type": "answer", "call": header["call"], "kind": kind}, body)
        case "print" | "trace" if listener is not None:
            listener(Output(header["type"], header["name"], frame.body.decode(errors="replace")))
        case "log":
            relay_log(frame)
        case _:
            return


def relay_log(frame: Frame) -> None:
    """Log what the engine wants logged."""
    level = logging.getLevelNamesMapping()[frame.header["level"].upper()]
    log.log(level, "%s", frame.header["text"], extra={"fields": frame.header.get("fields", {})})


def _log_output(output: Output) -> None:
    for line in output.text.splitlines():
        log.debug("[%s] %s", output.query, line)
