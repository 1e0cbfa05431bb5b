"""What the rules of a source say about themselves, for people who want to know what is in it.

Nothing is evaluated or compiled: a source that lacks the library it imports
can be looked at as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from conforma.errors import CompileFailed
from conforma.policy.rego.annotations import AnnotatedRule, Annotations
from conforma.policy.rego.engine import Engine
from conforma.policy.rules import Rule, check_shape, described_rule, rule_kind
from conforma.policy.source import FetchedSource


class Entry(Struct, frozen=True):
    """One block of annotations, or a deciding rule above which there is none.

    ``package`` is where it stands, dotted and without ``data``.
    """

    link: Annotations
    package: str

    @property
    def rule(self) -> Rule:
        """What the annotations say; without a short name the code ends with the dot."""
        return described_rule(self.link, self.package)

    @property
    def kind(self) -> Literal["deny", "warn", "other"]:
        """By the name of the rule alone: ``violation`` and ``deny_more`` are others."""
        match self.link.path[-1:]:
            case ("deny",):
                return "deny"
            case ("warn",):
                return "warn"
        return "other"


class Wanted(Struct, frozen=True):
    """Which entries are shown: those that any of these names; all if every one is empty.

    ``rule`` is a code or a short name, ``package`` a whole package path.
    """

    rule: str = ""
    package: str = ""
    collection: str = ""

    def includes(self, entry: Entry) -> bool:
        """Whether the entry is one of them."""
        if not (self.rule or self.package or self.collection):
            return True
        rule = entry.rule
        return (
            (self.rule != "" and self.rule in (rule.code, rule.short_name))
            or (self.package != "" and self.package == entry.package)
            or self.collection in rule.collections
        )


def inspect(engine: Engine, source: FetchedSource) -> tuple[Entry, ...]:
    """The entries of a source: rules in the order of files and rows, each with its annotations
    from the nearest block outwards, those of its package included.

    Raises ``CompileFailed`` for files that do not parse and for a source without rules,
    ``PolicyError`` for a rule that could never be reported, ``EngineError``.
    """
    try:
        found = engine.inspect(source.path)
    except CompileFailed as cause:
        cause.hint = cause.hint or f"that is in {source.pinned}"
        raise
    return tuple(entry for rule in found for entry in _entries(rule))


def _entries(rule: AnnotatedRule) -> Iterator[Entry]:
    check_shape(rule)
    for link in rule.chain:
        if link.content is not None or (link.of_rule and rule_kind(rule.name)):
            yield Entry(link, ".".join(rule.package))
