"""The ``trusted_tasks`` document: which versions of Tekton tasks are trusted, and until when.

A document comes in, another goes out; clock, disk and network are elsewhere
(section 19 of the specification of the other commands). Below a group, one
bundle tag or one file of a git repository, stand its versions, newest first.
The newest is trusted until another takes its place, the others until the date
they have. What else the document holds stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import Struct, field
from msgspec.structs import replace

from conforma import yamljson
from conforma.errors import InputError
from conforma.gotext import quoted
from conforma.policy.timestamps import parse_rfc3339

KEY: Final = "trusted_tasks"
_NOON: Final = timedelta(hours=12)


class Addition(Struct, frozen=True):
    """A version that was found: ``ref`` is a digest or a commit."""

    group: str
    ref: str


class Record(Struct, frozen=True):
    """One version of a group. ``expires_on`` is RFC 3339 as it was written, or empty."""

    ref: str
    expires_on: str = ""
    others: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, document: object) -> Record:
        """Read one entry of a group. Raises ``InputError``."""
        members = dict(document) if isinstance(document, dict) else {}
        ref, expires_on = members.pop("ref", None), members.pop("expires_on", None) or ""
        if not isinstance(ref, str) or not ref:
            raise InputError(
                "an entry has no ref that is text", hint='a ref of digits alone needs quotes: "123"'
            )
        if not isinstance(expires_on, str) or (expires_on and parse_rfc3339(expires_on) is None):
            raise InputError(
                f"expires_on of {quoted(ref)} is not an RFC 3339 time",
                hint='write it as "2026-04-01T00:00:00Z"',
            )
        return cls(ref, expires_on, members)

    def as_dict(self) -> dict[str, Any]:
        """The entry as it is written."""
        dated = {"expires_on": self.expires_on} if self.expires_on else {}
        return {**self.others, **dated, "ref": self.ref}

    def is_expired(self, now: datetime) -> bool:
        """Whether its date has come."""
        expiry = parse_rfc3339(self.expires_on)
        return expiry is not None and expiry <= now


class TrustedTasks(Struct, frozen=True):
    """The document. ``others`` are its members beside ``trusted_tasks``."""

    groups: Mapping[str, tuple[Record, ...]] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: bytes, what: str) -> TrustedTasks:
        """Read YAML or JSON; nothing at all is a document without groups.

        ``what`` names it in errors. Raises ``InputError``.
        """
        try:
            document = yamljson.parse(text)
            if document is not None and not isinstance(document, dict):
                raise InputError("it is no mapping")
            members = dict(document or {})
            groups = members.pop(KEY, None) or {}
            if not isinstance(groups, dict):
                raise InputError(f"{KEY} is no mapping")
            return cls({name: _records(name, listed) for name, listed in groups.items()}, members)
        except InputError as cause:
            raise InputError(f"{what}: {cause.message}", hint=cause.hint) from cause

    def with_new(self, additions: Iterable[Addition]) -> TrustedTasks:
        """The document with these versions before all others of their groups, the last first."""
        groups = dict(self.groups)
        for new in additions:
            groups[new.group] = (Record(new.ref), *groups.get(new.group, ()))
        return replace(self, groups=groups)

    def settled(self, now: datetime, *, prune: bool, in_effect_days: int) -> TrustedTasks:
        """The document in which versions that follow themselves stand once, and all have dates.

        The newest version of a group loses its date. Those that have none get
        midnight UTC nearest to ``now`` and ``in_effect_days`` on top. With
        ``prune``, versions expired at ``now`` go first, and groups with nothing
        left go with them. Raises ``InputError`` for days no calendar has.
        """
        expiry = _expiry(now, in_effect_days)
        groups = {}
        for name, records in self.groups.items():
            kept = tuple(_without_repetitions(records))
            if prune:
                kept = tuple(record for record in kept if not record.is_expired(now))
            if kept:
                groups[name] = tuple(_dated(kept, expiry))
        return replace(self, groups=groups)

    def render(self) -> bytes:
        """YAML with sorted keys, in which every reader takes text for text."""
        document = dict(self.others)
        if self.groups:
            document[KEY] = {
                name: [record.as_dict() for record in records]
                for name, records in self.groups.items()
            }
        return _yaml(document)


def _records(group: str, listed: object) -> tuple[Record, ...]:
    if listed is None:  # the Go tool leaves it when all that was below a group has expired
        return ()
    try:
        if not isinstance(listed, list):
            raise InputError("it is no list")
        return tuple(Record.parse(entry) for entry in listed)
    except InputError as cause:
        raise InputError(f"{KEY}: {group}: {cause.message}", hint=cause.hint) from cause


def _without_repetitions(records: Sequence[Record]) -> Iterator[Record]:
    """Of neighbours with one ref the oldest, whose date is the one that was promised first."""
    for record, older in zip(records, (*records[1:], None), strict=True):
        if older is None or record.ref != older.ref:
            yield record


def _dated(records: Sequence[Record], expiry: str) -> Iterator[Record]:
    yield replace(records[0], expires_on="")
    for record in records[1:]:
        yield replace(record, expires_on=record.expires_on or expiry)


def _expiry(now: datetime, days: int) -> str:
    if days < 0:
        raise InputError(f"--in-effect-days: {days} is less than no day")
    try:
        midnight = (now + _NOON).replace(hour=0, minute=0, second=0, microsecond=0)
        return f"{midnight + timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"
    except OverflowError as cause:
        raise InputError(f"--in-effect-days: {days} days lead beyond the year 9999") from cause


def _yaml(document: Mapping[str, Any]) -> bytes:
    import yaml

    class Writer(yaml.SafeDumper):
        """Lists stand two columns below their key, and nothing is written as an alias."""

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:  # noqa: ARG002 - its signature
            return super().increase_indent(flow, indentless=False)

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - its signature
            return True

    def text(writer: Any, value: str) -> Any:
        tag = "tag:yaml.org,2002:str"
        return writer.represent_scalar(tag, value, style=None if _is_plain(value) else '"')

    Writer.add_representer(str, text)
    written = yaml.dump(
        dict(document), Dumper=Writer, explicit_start=True, default_flow_style=False,
        allow_unicode=True, width=float("inf"), sort_keys=True,
    )  # fmt: skip
    # PyYAML puts a collection without members beside the marker, the Go tool below it.
    return str(written).replace("--- {}\n", "---\n{}\n", 1).encode()


def _is_plain(value: str) -> bool:
    """Whether the text means itself without quotes, to readers in Go and in Python.

    An abbreviated commit such as ``3672e45`` is a number to some of them.
    """
    import yaml

    resolved = yaml.SafeDumper.yaml_implicit_resolvers.get(value[:1], [])
    if any(pattern.match(value) for _, pattern in resolved):
        return False
    try:
        return bool(yamljson.parse(value, duplicate_keys="last") == value)
    except InputError:
        return False
