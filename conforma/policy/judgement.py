"""What the answers of the engine make of one component, for one source group.

Which results count and what becomes of rules that had nothing to say (sections
4.5 to 4.12 of the ``validate image`` specification), each step with the items
that decided it. Nothing here asks anybody anything.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from conforma.errors import EvaluationFailed
from conforma.findings import Finding, PolicyWarning, Violation
from conforma.policy.outcomes import classified, described, success_of
from conforma.policy.presentation import consequences, with_exclude_note
from conforma.policy.questions import Questions
from conforma.policy.scoring import Decision, Subject
from conforma.policy.selection import Packages, Selection

log = logging.getLogger(__name__)

Fate = Literal["kept", "excluded", "excepted", "consequence"]


class Step(Struct, frozen=True):
    """What became of one result or one silent rule, and which items decided it.

    ``query`` is the rule that spoke, empty for a success. ``finding`` is as it
    is reported, or would be if it were kept.
    """

    finding: Finding
    fate: Fate
    decision: Decision
    query: str = ""


class GroupOutcome(Struct, frozen=True):
    """What one source group says about one component.

    ``findings`` are what is reported, with all metadata. ``trail`` explains
    everything that was considered, ``packages`` what was evaluated.
    """

    findings: tuple[Finding, ...]
    trail: tuple[Step, ...]
    packages: Packages


class Plan(Struct, frozen=True):
    """What the items that apply to a component decide before anything is evaluated.

    ``silent`` is what becomes of each annotated rule, named by package and code, if
    it has nothing to say.
    Components to which the same items apply share a plan.
    """

    selection: Selection
    packages: Packages
    asked: Questions
    silent: tuple[tuple[tuple[str, str], Step], ...]

    @classmethod
    def of(cls, selection: Selection) -> Plan:
        """The plan for components to which the items of ``selection`` apply."""
        packages = selection.packages()
        silent = []
        for rule in selection.book.rules.values():
            # A rule whose success would be kept is in a package that is evaluated.
            decision = selection.decide(Subject(rule.code, collections=rule.collections))
            fate: Fate = "kept" if decision.included else "excluded"
            silent.append(((rule.package, rule.code), Step(success_of(rule), fate, decision)))
        asked = Questions(selection.book, packages.names)
        return cls(selection, packages, asked, tuple(silent))

    def outcome(self, answers: Sequence[list[Any]], moment: datetime) -> GroupOutcome:
        """What the answers to all that was asked mean at a moment.

        Raises ``EvaluationFailed`` for a result without a message, and if no
        result and no rule counts: then nothing was examined at all.
        """
        trail = list(self._considered(answers, moment))
        findings = [step.finding for step in trail if step.fate == "kept"]
        if not findings:
            log.error("no successes, warnings, or failures, check input")
            raise EvaluationFailed(
                "no successes, warnings, or failures, check input",
                hint="no rule of this source group is left by its include and exclude items",
            )
        hidden = consequences(findings, self.selection.book.rules)
        # Most steps are rules that had nothing to say, and nothing else hides those.
        trail = [
            _settled(step, hidden) if hidden or isinstance(step.finding, Violation) else step
            for step in trail
        ]
        unmatched = self.selection.unmatched(_subject(step) for step in trail)
        return GroupOutcome(
            (
                *(step.finding for step in trail if step.fate == "kept"),
                *(PolicyWarning(_nothing_matches(item)) for item in unmatched),
            ),
            tuple(trail),
            self.packages,
        )

    def _considered(self, answers: Sequence[list[Any]], moment: datetime) -> Iterator[Step]:
        """All results and all silent rules, with what the criteria make of them."""
        spoken: set[tuple[str, str]] = set()
        for raw, excepted in self.asked.results(answers):
            result = described(raw, self.selection.book.rules, moment)
            if excepted:
                reason = f"data.{result.package}.exception names the rule"
                yield Step(result.finding, "excepted", Decision(False, reason=reason), result.query)
                continue
            decision = self.selection.decide(result.subject)
            finding = classified(result, moment)
            if decision.included:
                spoken.add((result.package, finding.code))
            yield Step(finding, "kept" if decision.included else "excluded", decision, result.query)
        yield from (step for name, step in self.silent if name not in spoken)


def _settled(step: Step, hidden: frozenset[str]) -> Step:
    if step.fate != "kept":
        return step
    if step.finding.code in hidden:
        return replace(step, fate="consequence")
    if isinstance(step.finding, Violation):
        return replace(step, finding=with_exclude_note(step.finding))
    return step


def _subject(step: Step) -> Subject:
    finding = step.finding
    collections = finding.metadata.get("collections", ()) if finding.code else ()
    return Subject(finding.code, finding.terms, tuple(collections))


def _nothing_matches(item: str) -> str:
    return f"Include criterion '{item}' doesn't match any policy rule"
