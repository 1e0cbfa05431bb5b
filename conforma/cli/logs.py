"""Log lines in the format of the Go tool: ``time="…" level=warning msg="…" key=value``.

Modules log with the standard library; fields that belong to a line are passed
as ``extra={"fields": {...}}``.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from conforma import gojson
from conforma.gotext import quoted
from conforma.report.wrapping import harmless

if TYPE_CHECKING:
    from conforma.cli.options import Globals

TRACE: Final = 5
_CATEGORIES: Final = frozenset(("none", "all", "perf", "cpu", "mem", "opa", "log"))
_PROFILES: Final = frozenset(("perf", "cpu", "mem"))
_BARE: Final = re.compile(r"[A-Za-z0-9\-._/@^+]+")
_LEVELS: Final = {
    TRACE: "trace",
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "fatal",
}
_COLORS: Final = {"warning": "33", "error": "31", "fatal": "31", "debug": "37", "trace": "37"}


def trace_categories(values: Iterable[str]) -> frozenset[str]:
    """What ``--trace`` asks for (specification of commands, section 2); ``all`` is everything."""
    found: set[str] = set()
    for value in values:
        word = value.strip().lower()
        if word in ("none", "all"):
            return frozenset() if word == "none" else _CATEGORIES - {"none", "all"}
        if word in ("", "1", "t", "true"):
            found.add("log")
        elif word in _CATEGORIES:
            found.add(word)
    return frozenset(found)


def start_as(settings: Globals) -> frozenset[str]:
    """Log as the global flags ask from now on; returns the categories of ``--trace``."""
    trace = trace_categories(settings.trace)
    start(
        quiet=settings.quiet,
        verbose=settings.verbose,
        debug=settings.debug,
        trace=trace,
        logfile=settings.logfile,
    )
    return trace


def serve() -> None:
    """From now on write JSON lines, and at least those of level info, as services do."""
    logger = logging.getLogger("conforma")
    if logger.level > logging.INFO:
        logger.setLevel(logging.INFO)
    for handler in logger.handlers:
        handler.setFormatter(JSONFormatter())


def start(*, quiet: bool, verbose: bool, debug: bool, trace: frozenset[str], logfile: str) -> None:
    """Send the log lines of the program to stderr or the end of ``logfile`` from now on.

    The most talkative of several flags wins. A log file that cannot be opened
    is announced on stderr, which then gets the lines.
    """
    if trace & {"log", "opa"}:
        level = TRACE
    elif debug or verbose:
        level = logging.DEBUG
    else:
        level = logging.ERROR if quiet else logging.WARNING
    handler = _handler(logfile, with_place=debug)
    logger = logging.getLogger("conforma")
    for old in list(logger.handlers):
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    logging.addLevelName(TRACE, "TRACE")
    if unavailable := sorted(trace & _PROFILES):
        logger.warning("--trace=%s: profiles are not available", ",".join(unavailable))


def _handler(logfile: str, *, with_place: bool) -> logging.Handler:
    if logfile:
        try:
            handle = os.open(logfile, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as cause:
            print(  # noqa: T201 - there is no log yet
                f"Unable to create log file {quoted(logfile)}, log lines will appear on standard "
                f"error. Error was: open {harmless(logfile)}: {(cause.strerror or '').lower()}",
                file=sys.stderr,
            )
        else:
            os.close(handle)
            return _LogFile(Path(logfile), LineFormatter(with_place=with_place))
    handler = _StandardError()
    on_terminal = sys.stderr.isatty()
    handler.setFormatter(TerminalFormatter() if on_terminal else LineFormatter(with_place))
    return handler


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what ``sys.stderr`` is at the time; a progress display replaces it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class _LogFile(logging.FileHandler):
    """The end of a file; once a line cannot be written there, stderr gets it and all later ones."""

    def __init__(self, path: Path, formatter: logging.Formatter) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(formatter)
        self._instead: _StandardError | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line where lines go at the time."""
        if self._instead is None:
            super().emit(record)
        else:
            self._instead.emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Say once that the file takes no more, such as on a full disk; other errors are bugs."""
        cause = sys.exc_info()[1]
        if not isinstance(cause, OSError):
            super().handleError(record)
            return
        self._instead = _StandardError()
        self._instead.setFormatter(self.formatter)
        name = self.baseFilename
        print(  # noqa: T201 - it is the log that cannot tell
            f"Unable to write log file {quoted(name)}, further log lines will appear on standard "
            f"error. Error was: write {harmless(name)}: {(cause.strerror or '').lower()}",
            file=sys.stderr,
        )
        self._instead.emit(record)


class LineFormatter(logging.Formatter):
    """One line of ``key=value`` pairs."""

    def __init__(self, with_place: bool = False) -> None:
        super().__init__()
        self._with_place = with_place

    def format(self, record: logging.LogRecord) -> str:
        """The line, in which no value can start another one."""
        pairs: dict[str, Any] = {
            "time": _rfc3339(record.created),
            "level": _level(record.levelno),
            "msg": record.getMessage(),
        }
        if self._with_place:
            pairs["func"] = f"{record.module}.{record.funcName}"
            pairs["file"] = f"{record.filename}:{record.lineno}"
        pairs |= _fields(record)
        return " ".join(f"{key}={_value(value)}" for key, value in pairs.items())


class JSONFormatter(logging.Formatter):
    """One JSON object on a line, with sorted members."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; a field with the name of one of ours gets a prefix, as in the Go tool."""
        pairs: dict[str, Any] = {
            "time": _rfc3339(record.created),
            "level": _level(record.levelno),
            "msg": record.getMessage(),
        }
        for key, value in _fields(record).items():
            name = f"fields.{key}" if key in pairs else key
            pairs[name] = value if isinstance(value, int | float) else str(value)
        return gojson.dumps(pairs, sort_keys=True)


class TerminalFormatter(logging.Formatter):
    """The short form for people."""

    def format(self, record: logging.LogRecord) -> str:
        """The message behind a coloured level, without anything a terminal would obey."""
        level = _level(record.levelno)
        label = f"\x1b[{_COLORS.get(level, '36')}m{level.upper()[:4]}\x1b[0m"
        fields = "".join(f" {key}={_value(value)}" for key, value in _fields(record).items())
        return f"{label} {harmless(record.getMessage())}{fields}"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    given: Mapping[str, Any] = getattr(record, "fields", None) or {}
    fields = {key: given[key] for key in sorted(given)}
    if record.exc_info and record.exc_info[1] is not None:
        fields.setdefault("error", record.exc_info[1])
    return fields


def _level(number: int) -> str:
    return _LEVELS[max((known for known in _LEVELS if known <= number), default=TRACE)]


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    return text if _BARE.fullmatch(text) else quoted(text)


def _rfc3339(moment: float) -> str:
    text = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(moment))
    return f"{text[:-5]}Z" if text.endswith("+0000") else f"{text[:-2]}:{text[-2:]}"
