"""Why one rule did or did not speak about one component.

The component is validated as always; what its rules were given and what
became of each of their results is noted on the way.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from conforma.cancellation import Cancellation
from conforma.errors import InputError
from conforma.findings import Finding
from conforma.gotext import quoted
from conforma.oci.reference import Reference
from conforma.policy.evaluation import SourceGroupEvaluator
from conforma.policy.judgement import GroupOutcome, Step
from conforma.policy.rego.annotations import RuleDetails
from conforma.policy.rego.engine import Builtin, Input
from conforma.policy.rules import Rule
from conforma.policy.scoring import Item, Subject
from conforma.trust.signature import Attestation, Signature
from conforma.validate.component import BUILT_IN, Checks, Tools, validate_component
from conforma.validate.policy_input import PolicyInput
from conforma.validate.result import ComponentResult
from conforma.validate.snapshot import Component

_NEAR: Final = 5


class LookedAt(Struct, frozen=True):
    """A part of the input a rule looks at; ``there`` is whether the input has it."""

    path: tuple[str | int, ...]
    there: bool
    value: Any = None


class GroupExplanation(Struct, frozen=True):
    """One source group (counted from 1) in which the code means something.

    ``rule`` is ``None`` if no annotation declares the code. Without an
    ``outcome`` the component did not get as far as the rules.
    """

    number: int
    rule: Rule | None
    details: RuleDetails | None
    looked_at: tuple[LookedAt, ...]
    outcome: GroupOutcome | None
    steps: tuple[Step, ...]
    dormant: tuple[tuple[Item, str], ...]

    @property
    def evaluated(self) -> bool:
        """Whether the rule was evaluated at all."""
        if self.outcome is None:
            return False
        return self.rule is None or self.rule.package in self.outcome.packages.names


class Explanation(Struct, frozen=True):
    """Everything there is to say about one code and one component.

    ``reported`` are the findings with that code in the report of the
    component, ``result`` is all of it.
    """

    code: str
    result: ComponentResult
    reported: tuple[Finding, ...]
    groups: tuple[GroupExplanation, ...]

    @property
    def judged(self) -> bool:
        """Whether the component got as far as the rules."""
        return any(group.outcome is not None for group in self.groups)


def explain(
    code: str,
    component: Component,
    checks: Checks,
    tools: Tools,
    evaluators: Sequence[SourceGroupEvaluator],
) -> Explanation:
    """Validate the component and say what became of the rule.

    Raises ``InputError`` if nothing has that code, with those that come near
    it, and as ``validate_component`` does.
    """
    documents: list[PolicyInput] = []

    def make_input(
        component: Component,
        image: Reference,
        signatures: tuple[Signature, ...],
        attestations: tuple[Attestation, ...],
    ) -> PolicyInput:
        documents.append(tools.make_input(component, image, signatures, attestations))
        return documents[-1]

    watched = tuple(map(_Watched, evaluators))
    result = validate_component(
        component, checks, replace(tools, evaluators=watched, make_input=make_input)
    )
    document = json.loads(documents[0].text()) if documents else {}
    groups = tuple(
        group
        for number, one in enumerate(watched, 1)
        if (group := one.explained(number, code, document)) is not None
    )
    findings = (*result.violations, *result.warnings, *result.successes)
    reported = tuple(finding for finding in findings if finding.code == code)
    if not groups and not reported and code not in BUILT_IN:
        raise _unknown(code, [one.codes for one in watched])
    return Explanation(code, result, reported, groups)


class _Watched:
    """An evaluator, and what it was asked and said."""

    def __init__(self, evaluator: SourceGroupEvaluator) -> None:
        self._evaluator = evaluator
        self._image: Reference | None = None
        self._component = ""
        self._moment: datetime | None = None
        self._outcome: GroupOutcome | None = None

    def judge(
        self,
        document: bytes | Input,
        *,
        image: Reference,
        component_name: str,
        moment: datetime,
        builtins: Mapping[str, Builtin] | None = None,
        cancellation: Cancellation | None = None,
    ) -> GroupOutcome:
        """What the evaluator says; raises as it does."""
        self._image, self._component, self._moment = image, component_name, moment
        self._outcome = self._evaluator.judge(
            document,
            image=image,
            component_name=component_name,
            moment=moment,
            builtins=builtins,
            cancellation=cancellation,
        )
        return self._outcome

    @property
    def codes(self) -> set[str]:
        """Every code the group knows or has used."""
        steps = self._outcome.trail if self._outcome else ()
        return {r.code for r in self._evaluator.book.known} | {s.finding.code for s in steps}

    def explained(
        self, number: int, code: str, document: Mapping[str, Any]
    ) -> GroupExplanation | None:
        """What the group has to say about a code, if anything."""
        rule = next((r for r in self._evaluator.book.known if r.code == code), None)
        trail = self._outcome.trail if self._outcome else ()
        steps = tuple(step for step in trail if step.finding.code == code)
        if rule is None and not steps:
            return None
        details = self._evaluator.details(rule) if rule is not None else None
        dormant: tuple[tuple[Item, str], ...] = ()
        if self._image is not None and self._moment is not None:
            subject = Subject(code, collections=rule.collections if rule else ())
            dormant = self._evaluator.dormant(subject, self._image, self._component, self._moment)
        looked_at = tuple(
            _looked_at(path[1:], document)
            for path in (details.depends if details else ())
            if path[0] == "input" and self._outcome is not None
        )
        return GroupExplanation(number, rule, details, looked_at, self._outcome, steps, dormant)


def _looked_at(path: tuple[str | int, ...], document: Any) -> LookedAt:
    value = document
    for step in path:
        if isinstance(value, dict):
            there = step in value
        else:
            there = isinstance(value, list) and isinstance(step, int) and 0 <= step < len(value)
        if not there:
            return LookedAt(path, there=False)
        value = value[step]
    return LookedAt(path, there=True, value=value)


def _unknown(code: str, known: Iterable[set[str]]) -> InputError:
    codes = sorted({name for names in known for name in names if name} | BUILT_IN)
    near = difflib.get_close_matches(code, codes, _NEAR, 0.6)
    last = code.rpartition(".")[2]
    alike = [name for name in codes if last and last in name.split(".")]
    offered = list(dict.fromkeys([*near, *alike]))[:_NEAR]
    hint = (
        f"did you mean {' or '.join(offered)}?"
        if offered
        else f"the policy has {len(codes)} codes; --output json of validate image with "
        "--show-successes lists those that count"
    )
    return InputError(f"no rule of the policy has the code {quoted(code)}", hint=hint)
