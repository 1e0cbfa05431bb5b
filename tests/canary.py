"""Everything a test could read or log, searched for the passwords and tokens it used.

pytest keeps only what a test did not read itself, so the places through which
tests read are listened to: captured output, the output of our own child
processes, log records, and every error that was made, whether it was caught or
not.
"""

from __future__ import annotations

import base64
import functools
import logging
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from conforma.errors import ConformaError
from conforma.serve.auth import BearerAuth

CANARY: Final = "c4nary-"
"""Every password that a test logs in with begins like this."""


def _encoded(text: str) -> Iterable[str]:
    """What ``text`` looks like inside of base64, wherever it stands in what was encoded."""
    for before in range(3):
        whole = base64.b64encode(bytes(before) + text.encode()).decode()
        # The first and last characters depend on the neighbours.
        yield whole[(before * 8 + 5) // 6 : (before + len(text)) * 8 // 6]


_SECRETS: Final = (CANARY, *_encoded(CANARY))


class Told:
    """What was told since the last look. Thread safe, as appending to a list is."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._tokens: set[str] = set()

    def note(self, text: object) -> None:
        """Somebody could have read this."""
        if text:
            self._texts.append(
                text.decode(errors="replace") if isinstance(text, bytes) else str(text)
            )

    def token(self, token: object) -> None:
        """A token service gave this away, for the eyes of one client."""
        self._tokens.add(str(token))

    def secrets(self, more: Iterable[str] = ()) -> list[str]:
        """The secrets in all of that and in ``more``; begins anew."""
        texts, self._texts = [*self._texts, *more], []
        tokens, self._tokens = self._tokens, set()
        whole = "\n".join(texts)
        found = secrets_in(whole)
        return found + ["a token" for token in tokens if token in whole]


class _Handler(logging.Handler):
    """Notes log lines of every level, with their tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        told.note(self.format(record))
        told.note(getattr(record, "fields", None))


def secrets_in(text: str) -> list[str]:
    """The test passwords that a text gives away, plain or as they travel."""
    return [secret for secret in _SECRETS if secret in text]


@functools.cache
def listen() -> None:
    """Begin to note what is told, except to logs; once for the process."""
    _after(pytest.CaptureFixture, "readouterr", lambda _, read: told.note(f"{read.out}{read.err}"))
    _after(subprocess.Popen, "communicate", _child_told)
    _after(ConformaError, "__init__", lambda error, _: told.note(f"{error.message} {error.hint}"))
    _after(BearerAuth, "issue", lambda _, found: told.token(found["token"]) if found else None)


@contextmanager
def hearing_logs() -> Iterator[None]:
    """Note the log lines of every level, and leave the logger as it was.

    A command that is run in this process sends its log elsewhere, to what is
    captured; for the next test that must not hold.
    """
    logger = logging.getLogger("conforma")
    before = logger.level, logger.propagate, list(logger.handlers)
    logger.addHandler(_Handler(logging.DEBUG))
    logger.setLevel(logging.DEBUG)
    yield
    level, logger.propagate, logger.handlers = before
    logger.setLevel(level)


def _child_told(process: Any, read: tuple[Any, Any]) -> None:
    # Credential helpers and other people's programs may say what they like.
    arguments = process.args if isinstance(process.args, list | tuple) else [process.args]
    if any("conforma" in str(argument) for argument in arguments):
        for text in read:
            told.note(text)


def _after(owner: type, name: str, notice: Callable[[Any, Any], object]) -> None:
    """Have ``notice`` called with the object and the result after each call of a method."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def noticed(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(self, *args, **kwargs)
        notice(self, result)
        return result

    setattr(owner, name, noticed)


told = Told()
