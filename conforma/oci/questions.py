"""How each question to a registry was answered: from memory, an earlier run, or the network."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Literal

from conforma.oci.meter import Meter
from conforma.oci.options import QuestionSeen, RegistryOptions, Source

What = Literal["head", "manifest", "blob", "referrers"]
_COUNTED: Final[dict[Source, str]] = {
    "memory": "remembered",
    "store": "stored",
    "unchanged": "unchanged",
    "joined": "joined",
}


class Question:
    """One question while it is being answered; whoever answers it sets ``source``."""

    __slots__ = ("_questions", "_started", "_what", "lock", "name", "source")

    def __init__(self, questions: Questions, what: What, name: object) -> None:
        self._questions = questions
        self._what: What = what
        self._started = time.monotonic()
        self.name = name
        self.source: Source = "network"
        self.lock = 0.0

    def joined(self, seconds: float) -> None:
        """Another thread was asking the same."""
        self.source = "joined"
        self.lock += seconds

    def __enter__(self) -> Question:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._questions.answered(self, self._what, time.monotonic() - self._started)


class Questions:
    """Counts answers by source and tells the witness, if there is one."""

    def __init__(self, options: RegistryOptions, meter: Meter) -> None:
        self._witness: Callable[[QuestionSeen], None] | None = options.witness
        self._meter = meter

    def ask(self, what: What, name: object) -> Question:
        """Use as a context around finding the answer; ``name`` is shown as text."""
        return Question(self, what, name)

    def answered(self, question: Question, what: What, seconds: float) -> None:
        """Called when a question is answered, or cannot be."""
        counted = _COUNTED.get(question.source)
        if counted is not None:
            self._meter.add(**{counted: 1}, waited_lock=question.lock)
        if self._witness is not None:
            self._witness(
                QuestionSeen(what, str(question.name), question.source, seconds, question.lock)
            )
