"""Which packages are evaluated for a component and which of their results count.

One :class:`Selection` answers both questions from the same items, so that what
is evaluated and what is kept cannot drift apart (sections 4.6 to 4.8 and 4.11
of the ``validate image`` specification). Every answer is a :class:`Decision`
that names the items behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, Literal

from msgspec import Struct

from conforma.policy.rules import Rule, RuleBook
from conforma.policy.scoring import Applicable, Decision, Subject, matchers

FilterType = Literal["include-exclude", "ec-policy"]

_KEPT_WITHOUT_CODE = Decision(True, reason="results without a code are always kept")


class Packages(Struct, frozen=True):
    """The packages to evaluate, in the order in which the policy defines them.

    ``fallback`` tells that no rule was selected and therefore all packages are.
    """

    names: tuple[str, ...]
    fallback: bool


class Selection(Struct, frozen=True):
    """What counts for one component: the group's rules, the items that apply, the mode.

    ``intentions`` is the ``pipeline_intention`` of the group's rule data; it
    means something in ``ec-policy`` mode only.
    """

    book: RuleBook
    items: Applicable
    mode: FilterType = "include-exclude"
    intentions: frozenset[str] = frozenset()

    def packages(self) -> Packages:
        """The packages that hold a rule of which a result might be kept; if none, all.

        A rule counts if some result of it could be kept, whatever its terms
        are, so a term- or component-scoped include selects its package too.
        Its package is the one it is defined in, however many segments that
        has, and the one its code names.
        """
        wanted: set[str] = set()
        for rule in self.book.known:
            if self._takes_part(rule) and self.items.could_include(_subject(rule)):
                wanted |= {rule.package, rule.code.partition(".")[0], rule.code.rpartition(".")[0]}
        names = tuple(name for name in self.book.packages if name in wanted)
        return Packages(names or self.book.packages, fallback=not names)

    def decide(self, subject: Subject) -> Decision:
        """Whether a result, or the success of a rule, is kept.

        In ``ec-policy`` mode a code that no annotation declares counts as a
        rule without pipeline intention.
        """
        if not subject.code:
            return _KEPT_WITHOUT_CODE
        if self.mode == "ec-policy":
            rule = self.book.rules.get(subject.code) or Rule(subject.code, "")
            if not self._takes_part(rule):
                return Decision(False, reason=self._intention_reason(rule))
        return self.items.decide(subject)

    def unmatched(self, examined: Iterable[Subject]) -> tuple[str, ...]:
        """The include items for this component that match nothing, each once.

        ``examined`` are all results before they were filtered, and the rules
        that were considered as successes. Items scoped to a component name are
        not looked at. In ``ec-policy`` mode all rules that take part count.
        """
        missing = dict.fromkeys(item.value for item in self.items.include if not item.component)
        participants: Iterable[Subject] = ()
        if self.mode == "ec-policy":
            participants = (_subject(rule) for rule in self.book.known if self._takes_part(rule))
        for subject in chain(examined, participants):
            if not missing:
                break
            for name, _ in matchers(subject):
                missing.pop(name, None)
        return tuple(missing)

    def _takes_part(self, rule: Rule) -> bool:
        if self.mode != "ec-policy":
            return True
        if not self.intentions:
            return not rule.pipeline_intention
        return not self.intentions.isdisjoint(rule.pipeline_intention)

    def _intention_reason(self, rule: Rule) -> str:
        wanted = ", ".join(sorted(self.intentions)) or "none"
        declared = ", ".join(rule.pipeline_intention) or "none"
        return f"pipeline intention: {wanted} wanted, {declared} declared by the rule"


def pipeline_intentions(rule_data: Mapping[str, Any] | None) -> frozenset[str]:
    """The ``pipeline_intention`` of a group's rule data, a string or a list of strings."""
    value = (rule_data or {}).get("pipeline_intention")
    if isinstance(value, str):
        return frozenset({value})
    if isinstance(value, list | tuple):
        return frozenset(item for item in value if isinstance(item, str))
    return frozenset()


def _subject(rule: Rule) -> Subject:
    return Subject(rule.code, collections=rule.collections)
