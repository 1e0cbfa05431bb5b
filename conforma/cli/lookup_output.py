"""What ``conforma lookup`` prints: answers in the order of the questions, as soon as they are known."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, TextIO

from conforma.errors import AccessDenied, ConformaError, InputError, NotFound
from conforma.oci.lookup import KINDS, Found
from conforma.report.numbers import binary_size
from conforma.report.wrapping import harmless_line

Answer = Found | ConformaError
_LONGEST: Final = 512
REFUSED: Final = "missing or not permitted"
"""Registries answer 401 or 403 for names that do not exist, lest anybody learn which do."""


class Printer:
    """Prints answers that may come in any order in theirs. Thread safe.

    ``form`` shows one answer, ``end`` says what comes last, given how many were printed.
    """

    def __init__(
        self,
        out: TextIO,
        form: Callable[[int, str, Answer], str],
        end: Callable[[int], str],
        *,
        first: str = "",
        between: str = "",
    ) -> None:
        self._out = out
        self._form = form
        self._end = end
        self._first = first
        self._between = between
        self._lock = threading.Lock()
        self._waiting: dict[int, str] = {}
        self._next = 0
        self._printed = 0
        self._ended = False

    def put(self, index: int, text: str, answer: Answer) -> None:
        """The answer to the question with this number, counted from 0."""
        shown = self._form(index, text, answer)
        with self._lock:
            if self._ended:
                return
            self._waiting[index] = shown
            while self._next in self._waiting:
                self._print(self._waiting.pop(self._next))
                self._next += 1

    def end(self) -> None:
        """No more answers come; those that waited for others are printed without them."""
        with self._lock:
            self._ended = True
            for index in sorted(self._waiting):
                self._print(self._waiting[index])
            self._out.write(self._end(self._printed))
            self._out.flush()

    def _print(self, shown: str) -> None:
        before = self._between if self._printed else self._first
        self._out.write(before + shown)
        self._printed += 1


def printer(output: str, out: TextIO, *, brief: bool) -> Printer:
    """A printer of the form ``output``: text, json or table."""
    if output == "json":
        return Printer(
            out,
            lambda _index, text, answer: json.dumps(as_dict(text, answer, brief=brief)),
            lambda printed: "\n]\n" if printed else "[]\n",
            first="[\n  ",
            between=",\n  ",
        )
    if output == "table":
        return _table(out, brief=brief)
    return Printer(
        out, lambda _index, text, answer: _block(text, answer, brief=brief), lambda _: ""
    )


def as_dict(text: str, answer: Answer, *, brief: bool) -> dict[str, Any]:
    """One answer as JSON; ``null`` is what could not be learnt."""
    if isinstance(answer, ConformaError):
        return {"reference": text, "status": status_of(answer), "error": _error(answer)}
    described = answer.described
    document: dict[str, Any] = {
        "reference": text,
        "status": "found",
        "pinned": str(answer.reference.pinned(described.digest)),
        "digest": str(described.digest),
        "mediaType": described.media_type,
        "size": described.size,
    }
    if not brief:
        platforms = answer.platforms
        document["contentSize"] = answer.content
        document["platforms"] = None if platforms is None else list(platforms)
        document["annotations"] = dict(answer.annotations or {})
        document.update((kind, answer.attached.get(kind)) for kind in KINDS)
        if answer.problems:
            document["problems"] = [_error(problem) for problem in answer.problems]
    return document


def status_of(error: ConformaError) -> str:
    """What an error says about the reference, in a word or a few."""
    if isinstance(error, NotFound):
        return "missing"
    if isinstance(error, AccessDenied):
        return REFUSED
    return "invalid" if isinstance(error, InputError) else "unknown"


def _error(error: ConformaError) -> dict[str, str]:
    hint = {"hint": error.hint} if error.hint else {}
    return {"kind": type(error).__name__, "message": error.message, **hint}


def _block(text: str, answer: Answer, *, brief: bool) -> str:
    lines = [_shown(text)]
    lines += [f"  {label:12} {harmless_line(value)}" for label, value in _rows(answer, brief=brief)]
    return "\n".join(lines) + "\n"


def _rows(answer: Answer, *, brief: bool) -> Iterator[tuple[str, str]]:
    if isinstance(answer, ConformaError):
        yield status_of(answer), answer.message
        if answer.hint:
            yield "hint", answer.hint
        return
    yield "digest", str(answer.described.digest)
    yield "media type", answer.described.media_type
    yield "size", _size(answer)
    if brief:
        return
    yield "platforms", _listed(answer.platforms)
    for name, value in sorted((answer.annotations or {}).items()):
        yield "annotation", f"{name}={value}"
    for kind in KINDS:
        count = answer.attached.get(kind)
        yield ("SBOMs" if kind == "sboms" else kind), "unknown" if count is None else str(count)
    for problem in answer.problems:
        yield "problem", problem.message


_HEADINGS: Final = ("REFERENCE", "DIGEST", "SIZE", "PLATFORMS", "SIG", "ATT", "SBOM")


def _table(out: TextIO, *, brief: bool) -> Printer:
    headings = _HEADINGS[:3] if brief else _HEADINGS
    rows: dict[int, tuple[str, ...]] = {}
    reasons: dict[int, str] = {}

    def keep(index: int, text: str, answer: Answer) -> str:
        rows[index] = _row(text, answer)[: len(headings)]
        errors = (answer,) if isinstance(answer, ConformaError) else answer.problems
        reasons[index] = "".join(
            f"{_shown(text)}: {harmless_line(error.message)}\n" for error in errors
        )
        return ""

    def whole(_printed: int) -> str:
        why = "".join(reasons[index] for index in sorted(reasons))
        return _aligned([headings, *(rows[i] for i in sorted(rows))]) + (why and f"\n{why}")

    return Printer(out, keep, whole)


def _row(text: str, answer: Answer) -> tuple[str, ...]:
    if isinstance(answer, ConformaError):
        return (_shown(text), status_of(answer))
    counts = (answer.attached.get(kind) for kind in KINDS)
    return (
        _shown(text),
        str(answer.described.digest),
        binary_size(answer.content if answer.content is not None else answer.described.size),
        harmless_line(_listed(answer.platforms)),
        *("?" if count is None else str(count) for count in counts),
    )


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [
        max((len(row[column]) for row in rows if column < len(row)), default=0)
        for column in range(len(_HEADINGS))
    ]
    lines = ("  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=False)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _shown(text: str) -> str:
    """A reference as it was given, for people; longer than any reference may be, its beginning."""
    return harmless_line(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")


def _listed(names: tuple[str, ...] | None) -> str:
    return "unknown" if names is None else ", ".join(names) or "none"


def _size(found: Found) -> str:
    manifest = binary_size(found.described.size)
    if found.content is None:
        return manifest
    return f"{binary_size(found.content)}, and {manifest} of manifest"
