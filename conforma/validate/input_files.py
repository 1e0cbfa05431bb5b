"""What ``validate input`` judges: files, directories, inline text and requests become documents.

Whatever is named is judged or an error, never passed over: a file that holds
nothing, a second YAML document or a directory inside a directory would
otherwise look as if the policy had found nothing wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from conforma import gojson, yamljson
from conforma.errors import InputError

_NO_FILES: Final = (
    "at least one input file must be specified as a positional argument or via the --file flag"
)
_JSON: Final = "application/json"
_YAML: Final = frozenset(("application/yaml", "application/x-yaml", "text/yaml"))


@dataclass(frozen=True, slots=True)
class Document:
    """One JSON value for rules to judge, encoded; ``file`` is its ``data.conftest.file``."""

    raw: bytes
    file: Mapping[str, str] = field(
        default_factory=lambda: {"name": "input.json", "dir": "/"}, hash=False
    )


def entries_of(texts: Iterable[str]) -> tuple[str, ...]:
    """What is to be judged, each once, in the order given. Raises ``InputError`` for nothing."""
    entries = tuple(dict.fromkeys(text for text in texts if text.strip()))
    if not entries:
        raise InputError(_NO_FILES)
    return entries


def read(entry: str) -> tuple[Document, ...]:
    """The documents of an existing file or directory, or of JSON or YAML written inline.

    A directory stands for the files in it, a list for its elements, as with
    Conftest. Raises ``InputError`` for what is neither, or cannot be judged
    as a whole.
    """
    path = Path(entry)
    if not _exists(path):
        return tuple(_inline(entry))
    if not path.is_dir():
        return tuple(_in_file(path))
    try:
        files = sorted(path.iterdir())
    except OSError as cause:
        raise _unreadable(path, cause) from cause
    if not files:
        raise InputError(f"the directory {entry} contained no files")
    return tuple(document for file in files for document in _in_file(file))


def in_request(body: bytes, media_type: str) -> tuple[Document, ...]:
    """The documents of the body of a request: JSON, or a YAML mapping (commands.md 7).

    A ``media_type`` that is known decides which of the two it has to be. As
    in a file, the elements of a list are documents of their own.

    Raises ``InputError`` for what is neither, or holds nothing to judge.
    """
    if media_type not in _YAML:
        try:
            return _of_json(yamljson.parse_json(body))
        except InputError:
            if media_type == _JSON:
                raise
    value = yamljson.parse(body)
    if not isinstance(value, dict):
        raise InputError("yaml: the document is no mapping")
    return (Document(gojson.encode(value)),)


def _of_json(value: Any) -> tuple[Document, ...]:
    if value is None or value == []:
        raise InputError(f"json: {gojson.dumps(value)} holds no document to judge")
    return tuple(
        Document(gojson.encode(item)) for item in (value if isinstance(value, list) else [value])
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a null character: inline text
        return False


def _inline(text: str) -> Iterator[Document]:
    """Only mappings and lists count: nearly any name of a file is a YAML string."""
    unusable = InputError(
        f"unable to parse the provided input file: {text}",
        hint="there is no such file, and it is no JSON or YAML mapping or list either",
    )
    try:
        value = yamljson.parse(text)
    except InputError as cause:
        unusable.hint = f"{unusable.hint}: {cause.message}"
        raise unusable from cause
    if not isinstance(value, dict | list):
        raise unusable
    yield from (Document(raw) for raw in _values(value, "the inline document"))


def _in_file(path: Path) -> Iterator[Document]:
    try:
        text = path.read_bytes()
    except IsADirectoryError as cause:
        raise InputError(
            f"{path} is a directory inside a directory, which is not looked into",
            hint="name the directory or its files themselves",
        ) from cause
    except OSError as cause:
        raise _unreadable(path, cause) from cause
    try:
        value = yamljson.parse(text)
    except InputError as cause:
        raise InputError(f"{path} cannot be judged: {cause.message}", hint=cause.hint) from cause
    place = {"name": path.name, "dir": str(path.parent)}
    yield from (Document(raw, place) for raw in _values(value, str(path)))


def _values(value: Any, where: str) -> Iterator[bytes]:
    """The value, or the elements of a list, encoded."""
    if value is None or value == []:
        raise InputError(f"{where} holds no document", hint="rules would have nothing to judge")
    if not isinstance(value, dict | list):
        raise InputError(
            f"{where} holds a single value and no JSON or YAML mapping or list",
            hint="name the files one by one if others than JSON and YAML lie beside them",
        )
    for element in value if isinstance(value, list) else [value]:
        yield gojson.encode(element)


def _unreadable(path: Path, cause: OSError) -> InputError:
    return InputError(f"open {path}: {(cause.strerror or str(cause)).lower()}")
