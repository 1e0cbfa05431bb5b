"""Where reports go: ``--output fmt[=path][?option=value…]``, checked before work begins.

Specification section 7.1. Unlike the Go tool, an unknown format or option and
a directory that does not exist are found before anything is validated, and a
file keeps its former content until the new one is complete.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import parse_qsl

from msgspec import Struct
from msgspec.structs import replace

from conforma.errors import ConformaError, InputError, ResourcesExhausted
from conforma.gotext import parse_bool, quoted
from conforma.report.formats import FORMATS, Options, Piece, render
from conforma.validate.result import Report

_OPTIONS: Final = {
    "show-successes": "show_successes",
    "show-warnings": "show_warnings",
    "show-policy-docs-link": "show_policy_docs_link",
}
_ROOM: Final = "free some space, or write the report elsewhere"
#: Says nothing about the target that was named: the same one may do tomorrow.
_DISK: Final = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EIO: "check the disk, or write the report elsewhere",
}
#: A directory in which nothing can be made may still hold a file that can be written.
_CLOSED: Final = frozenset((errno.EACCES, errno.EPERM, errno.EROFS))


class Target(Struct, frozen=True):
    """One output; without a ``path`` it goes to standard output."""

    format: str
    options: Options
    path: str = ""


def parse(
    text: str, defaults: Options, formats: Collection[str] = FORMATS, unnamed: str = "json"
) -> Target:
    """Read one ``--output`` value, which without a name means the format ``unnamed``.

    Raises ``InputError``.
    """
    format_and_path, _, query = text.partition("?")
    name, _, path = format_and_path.partition("=")
    name = name or unnamed
    if name not in formats:
        raise InputError(
            f"{quoted(name)} is not a valid report format",
            hint=f"the formats are {', '.join(sorted(formats))}",
        )
    options = defaults
    given: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in _OPTIONS:
            raise InputError(
                f"{quoted(key)} in --output {quoted(text)} is not an output option",
                hint=f"the options are {', '.join(_OPTIONS)}",
            )
        given.setdefault(key, value)
    for key, value in given.items():
        if value:
            options = replace(options, **{_OPTIONS[key]: parse_bool(value)})
    return Target(name, options, path)


def parse_all(
    texts: Sequence[str],
    defaults: Options,
    formats: Collection[str] = FORMATS,
    unnamed: str = "json",
) -> tuple[Target, ...]:
    """All targets, ``text`` on standard output if there are none.

    Raises one ``InputError`` with everything that is wrong with any of them.
    """
    targets: list[Target] = []
    problems: list[str] = []
    hints: list[str] = []
    taken: set[Path | None] = set()
    for text in texts:
        try:
            target = parse(text, defaults, formats, unnamed)
            final = _check_path(target.path)
            if final in taken:
                raise InputError(f"two outputs to {target.path}: each would overwrite the other")
            taken |= {final} - {None}
            targets.append(target)
        except InputError as error:
            problems.append(error.message)
            hints.extend([error.hint] if error.hint else [])
    if problems:
        raise InputError("\n".join(problems), hint="\n".join(dict.fromkeys(hints)) or None)
    return tuple(targets) or (Target("text", defaults),)


def write(report: Report, targets: Iterable[Target], stdout: BinaryIO) -> None:
    """Write the report to every target; raises as ``write_each``."""
    write_each(targets, stdout, lambda target: render(report, target.format, target.options))


def write_each(
    targets: Iterable[Target], stdout: BinaryIO, pieces_of: Callable[[Target], Iterator[Piece]]
) -> None:
    """Write to every target, in order, the pieces of its report.

    A target that fails does not keep the others from being written; what was
    wrong with each is raised together afterwards: as ``InputError``, or as
    ``ResourcesExhausted`` if the disk failed any of them. Raises
    ``BrokenPipeError`` if all that is wrong is that nobody reads standard output.
    """
    problems: list[ConformaError] = []
    unread: BrokenPipeError | None = None
    for target in targets:
        pieces = pieces_of(target)
        try:
            if target.path:
                with _replacing(target.path) as file:
                    _write(pieces, file)
            else:
                _write(pieces, stdout)
                stdout.flush()
        except OSError as cause:
            if isinstance(cause, BrokenPipeError) and not target.path:
                unread = cause
                continue
            problems.append(_failed(target.path or "standard output", cause))
        except ConformaError as error:
            problems.append(error)
    if problems:
        undecided = any(error.exit_status != 1 for error in problems)
        hints = dict.fromkeys(error.hint for error in problems if error.hint)
        raise (ResourcesExhausted if undecided else InputError)(
            "\n".join(error.message for error in problems), hint="\n".join(hints) or None
        )
    if unread is not None:
        raise unread


def write_file(path: str, data: bytes) -> None:
    """``path`` holds ``data``; if that fails, what it held before.

    Raises ``InputError``, or ``ResourcesExhausted`` if the disk fails.
    """
    try:
        with _replacing(path) as file:
            file.write(data)
    except OSError as cause:
        raise _failed(path, cause) from cause


def _write(pieces: Iterator[Piece], file: BinaryIO) -> None:
    """All pieces, and a newline if they do not end with one."""
    last = b""
    for piece in pieces:
        data = piece if isinstance(piece, bytes) else piece.encode("utf-8", "replace")
        if data:
            file.write(data)
            last = data[-1:]
    if last != b"\n":
        file.write(b"\n")


@contextmanager
def _replacing(path: str) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` when it is complete, and only then.

    What is no regular file (a pipe, ``/dev/stderr``), a file in a directory we
    may not write to and one that is mounted by itself, as containers get them,
    are written in place.
    """
    final = Path(path).resolve()
    try:
        mode = final.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG | (0o666 & ~_umask())
    handle = -1
    if stat.S_ISREG(mode):
        try:
            handle, temporary = tempfile.mkstemp(prefix=f".{final.name[:200]}.", dir=final.parent)
        except OSError as cause:
            if cause.errno not in _CLOSED:
                raise
    if handle < 0:
        with Path(path).open("wb") as file:
            yield file
        return
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, stat.S_IMODE(mode))
            yield file
        try:
            Path(temporary).replace(final)
        except OSError as cause:
            if cause.errno != errno.EBUSY:
                raise
            shutil.copyfile(temporary, final)
            Path(temporary).unlink()
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _check_path(path: str) -> Path | None:
    """The file that ``path`` would become; ``None`` for what takes several reports in a row.

    Raises ``InputError`` for a path that could not be written.
    """
    if not path:
        return None
    final = Path(path).resolve()
    if final.is_dir():
        raise InputError(f"open {path}: is a directory")
    parent = final.parent
    if not parent.is_dir():
        raise InputError(f"open {path}: no such file or directory", hint=f"create {parent} first")
    writable = final if final.exists() else parent
    if not os.access(writable, os.W_OK):
        raise InputError(f"open {path}: permission denied")
    return None if final.exists() and not final.is_file() else final


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _failed(where: str, cause: OSError) -> ConformaError:
    """What kept us from writing: the disk's state, or a target that cannot be used."""
    message = f"write {where}: {(cause.strerror or str(cause)).lower()}"
    if cause.errno in _DISK:
        return ResourcesExhausted(message, hint=_DISK[cause.errno])
    return InputError(message)
