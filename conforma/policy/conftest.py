"""Rules held against plain documents, as Conftest does: no image, no codes, no selection.

Source: commands.md 20. A document passes a rule that has nothing to say about
it; rules of one name that say less than there are of them count as passed for
the rest.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from conforma import gojson, yamljson
from conforma.errors import InputError
from conforma.findings import Finding
from conforma.gotext import single_quoted
from conforma.policy.outcomes import results_of
from conforma.policy.questions import rule_query
from conforma.policy.rego.engine import Engine, Ruleset
from conforma.policy.rules import exception_name, rule_kind
from conforma.trust.re2 import compile_re2

_FAULTS: Final = (
    ("Invalid control character", " in string literal"),
    ("Invalid \\escape", " in string escape code"),
    ("Expecting property name", " looking for beginning of object key string"),
    ("Expecting ':'", " after object key"),
    ("Expecting ','", " after object key:value pair"),
    ("Expecting value", " looking for beginning of value"),
    ("Extra data", " after top-level value"),
)
_PARSERS: Final = {".json": "json", ".yaml": "yaml", ".yml": "yaml"}


class Document(Struct, frozen=True):
    """A file to hold rules against, and the name it goes by.

    Its ``parts`` are judged one by one: the documents of a YAML file with
    several, the elements of a list, or else the whole.
    """

    name: str
    parts: tuple[bytes, ...]

    @classmethod
    def read(cls, name: str, raw: bytes, parser: str = "") -> Document:
        """Parse what a file holds, standard input if it has no name. Raises ``InputError``."""
        kind = _parser_for(name, parser)
        try:
            found = (json.loads(raw),) if kind == "json" else yamljson.parse_all(raw) or (None,)
        except (InputError, ValueError, RecursionError) as cause:
            reason = _in_go(cause) if isinstance(cause, json.JSONDecodeError) else str(cause)
            raise InputError(
                f"parse configurations: parser unmarshal: unmarshal {kind}: {reason}, path: {name}"
            ) from cause
        whole = found[0] if len(found) == 1 else found
        parts = whole if isinstance(whole, list | tuple) else [whole]
        return cls(name, tuple(map(gojson.encode, parts)))


def _parser_for(name: str, asked: str) -> str:
    place = Path(name)
    known = _PARSERS.get(place.suffix.lower(), "") if name else "yaml"
    kind = asked or known
    if kind not in _PARSERS.values():
        # A text that happens to be YAML would pass every rule about members.
        why = (
            f"new: unknown parser: {place.suffix[1:]}" if not asked else f"unknown parser: {asked}"
        )
        raise InputError(
            f"parse configurations: new parser: {why}, path: {name}",
            hint="JSON and YAML files are read; --parser says which of them a file is",
        )
    return kind


class Checked(Struct, frozen=True):
    """What the rules of one namespace say about one document."""

    filename: str
    namespace: str
    successes: int
    warnings: tuple[Finding, ...] = ()
    failures: tuple[Finding, ...] = ()
    exceptions: tuple[Finding, ...] = ()


class Rules:
    """The rules of files and directories, compiled with their data."""

    def __init__(
        self, engine: Engine, policies: Sequence[str], data: Sequence[str], workdir: Path
    ) -> None:
        """Raises ``InputError`` for a path that is not there, and as ``Engine.compile`` does."""
        rules = tuple(_gathered(policies, workdir / "policy", "loading policies: load"))
        documents = tuple(_gathered(data, workdir / "data", "load documents"))
        self._ruleset: Ruleset = engine.compile(rules, documents)
        self._names: dict[tuple[str, ...], Counter[str]] = {}
        for rule in self._ruleset.annotations:
            if rule_kind(rule.name) is not None:
                self._names.setdefault(rule.package, Counter())[rule.name] += 1

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Every package with rules, sorted."""
        return tuple(sorted(".".join(package) for package in self._names))

    def check(self, document: Document, namespace: str) -> Checked:
        """The verdict of one namespace. Raises ``EvaluationFailed`` and ``EngineError``."""
        found = [self._check(document.name, part, namespace) for part in document.parts]
        return Checked(
            document.name,
            namespace,
            sum(one.successes for one in found),
            tuple(finding for one in found for finding in one.warnings),
            tuple(finding for one in found for finding in one.failures),
            tuple(finding for one in found for finding in one.exceptions),
        )

    def _check(self, filename: str, raw: bytes, namespace: str) -> Checked:
        path = tuple(namespace.split("."))
        counts = self._names.get(path, Counter())
        names = list(counts)
        queries = [query for name in names for query in _queries(path, name)]
        answers = iter(self._ruleset.evaluate(raw, queries) if queries else ())
        said: dict[str, list[Finding]] = {"failure": [], "warning": [], "exception": []}
        passed = 0
        for name in names:
            excepted, solutions = next(answers), next(answers)
            kind = rule_kind(name)
            assert kind is not None, "only such rules are kept"
            if any(excepted):  # one solution: the list of what was found
                said["exception"].append(Finding(_exception_query(path, name)))
                continue
            before = len(said[kind])
            for value in solutions:
                for result in results_of(value, package=namespace, rule=name, kind=kind):
                    metadata = {**result.metadata, "query": result.query}
                    said[kind].append(Finding(result.message, metadata))
            passed += len(said[kind]) == before
        told = sum(map(len, said.values())) + passed
        return Checked(
            filename,
            namespace,
            passed + max(0, counts.total() - told),
            tuple(said["warning"]),
            tuple(said["failure"]),
            tuple(said["exception"]),
        )


def _queries(path: tuple[str, ...], name: str) -> Iterator[str]:
    package = rule_query(path, "exception")
    yield f"[found | found := {package}[_][_]; found == {gojson.dumps(exception_name(name))}]"
    yield rule_query(path, name)


def _exception_query(path: tuple[str, ...], name: str) -> str:
    return f"{rule_query(path, 'exception')}[_][_] == {gojson.dumps(exception_name(name))}"


def _gathered(paths: Iterable[str], place: Path, what: str) -> Iterator[Path]:
    """A directory for each path; one with a single file for a file."""
    for number, path in enumerate(paths):
        found = Path(path)
        if found.is_dir():
            yield found
        elif found.is_file():
            alone = place / str(number)
            alone.mkdir(parents=True)
            shutil.copyfile(found, alone / found.name)
            yield alone
        else:
            raise InputError(
                f"load: {what}: 1 error occurred during loading: "
                f"stat {path}: no such file or directory"
            )


def _in_go(cause: json.JSONDecodeError) -> str:
    """What Go's parser says where Python's stopped."""
    if cause.pos >= len(cause.doc) or cause.msg.startswith("Unterminated"):
        return "unexpected end of JSON input"
    where = next((text for start, text in _FAULTS if cause.msg.startswith(start)), "")
    return f"invalid character {single_quoted(cause.doc[cause.pos])}{where}"


def combined(found: Iterable[Document]) -> Document:
    """All documents as one: a list of objects with the members ``path`` and ``contents``."""
    members = (
        b'{"path":%s,"contents":%s}' % (gojson.encode(each.name), part)
        for each in sorted(found, key=lambda each: each.name)
        for part in each.parts
    )
    return Document("Combined", (b"[%s]" % b",".join(members),))


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return compile_re2(text)
    except ValueError as cause:
        raise InputError(f"given regexp couldn't be parsed :{cause}") from cause


def files_of(paths: Sequence[str], ignore: str = "") -> tuple[str, ...]:
    """The files to test, each once: those named, and the JSON and YAML files in directories.

    Those are left out whose path matches the regular expression ``ignore``
    anywhere. ``-`` is standard input. Raises ``InputError`` for a path that is
    not there, and if nothing is left.
    """
    left_out = _pattern(ignore) if ignore else None
    found: dict[str, None] = {}
    for path in filter(None, paths):
        place = Path(path)
        if path != "-" and not place.exists():
            raise InputError(f"parse files: get file info: stat {path}: no such file or directory")
        if path == "-" or not place.is_dir():
            found[path] = None
            continue
        inside = (str(p) for p in sorted(place.rglob("*")) if p.is_file())
        found.update(
            (name, None)
            for name in inside
            if Path(name).suffix.lower() in _PARSERS and not (left_out and left_out.search(name))
        )
    if not found:
        raise InputError("parse files: no files found")
    return tuple(found)


def documents(files: Iterable[str], parser: str, stdin: Any) -> Iterator[Document]:
    """What the files hold; ``-`` is standard input. Raises ``InputError``."""
    for file in files:
        if file == "-":
            yield Document.read("", stdin.read(), parser)
            continue
        try:
            raw = Path(file).read_bytes()
        except OSError as cause:
            raise InputError(
                f"parse configurations: open {file}: {(cause.strerror or '').lower()}"
            ) from cause
        yield Document.read(file, raw, parser)
