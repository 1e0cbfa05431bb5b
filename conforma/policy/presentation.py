"""What is done to findings between their selection and the report.

Dependencies and exclude notes within a source group (section 4.12 of the
``validate image`` specification), trimming of metadata (4.13), and the order
of the report (4.14).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from conforma.findings import Finding, PolicyWarning, Success, Violation
from conforma.policy.rules import Rule

F = TypeVar("F", bound=Finding)

_ALWAYS_SHOWN: Final = ("code", "effective_on", "term")


class Findings(Struct, frozen=True):
    """What the report says about one component, in report order."""

    violations: tuple[Violation, ...] = ()
    warnings: tuple[PolicyWarning, ...] = ()
    successes: tuple[Success, ...] = ()

    @classmethod
    def of(cls, findings: Iterable[Finding], *, info: bool) -> Findings:
        """Sort findings by kind, and each kind by code, first term and message.

        Without ``info`` their metadata is cut down to code, date and term.
        """
        violations: list[Violation] = []
        warnings: list[PolicyWarning] = []
        successes: list[Success] = []
        for finding in findings:
            shown = finding if info else without_details(finding)
            if isinstance(shown, Success):
                successes.append(shown)
            elif isinstance(shown, Violation):
                violations.append(shown)
            elif isinstance(shown, PolicyWarning):
                warnings.append(shown)
        return cls(
            in_report_order(violations), in_report_order(warnings), in_report_order(successes)
        )


def consequences(findings: Sequence[Finding], rules: Mapping[str, Rule]) -> frozenset[str]:
    """The codes whose findings go unreported, because a rule they depend on has failed or warned.

    Only annotations declare dependencies. One reported dependency is enough;
    the Go tool wants all of several to be reported, and repeats the finding for
    each that is not. Rules that depend on each other in a circle are all
    reported unless something outside the circle explains them; the Go tool
    reports none of them.
    """
    reported = {f.code for f in findings if isinstance(f, Violation | PolicyWarning)}
    if not reported:
        return frozenset()
    codes = {finding.code for finding in findings}
    depends_on = {
        code: set(rules[code].depends_on) & reported
        for code in codes
        if code in rules and rules[code].depends_on
    }
    explained = {code for code in reported if not depends_on.get(code)}
    suppressed: set[str] = set()
    while found := {
        code
        for code, causes in depends_on.items()
        if code not in suppressed and causes & (explained if code in reported else reported)
    }:
        suppressed |= found
        explained |= found
    return frozenset(suppressed)


def with_exclude_note(violation: Violation) -> Violation:
    """The violation with a description that ends with how to exclude its rule."""
    description = violation.metadata.get("description")
    if not isinstance(description, str) or "code" not in violation.metadata:
        return violation
    return replace(
        violation, metadata={**violation.metadata, "description": _noted(violation, description)}
    )


def description_of(finding: Finding) -> str:
    """What the rule says it checks, without the note on how to exclude it."""
    description = finding.metadata.get("description")
    if not isinstance(description, str):
        return ""
    bare = description.removesuffix(_noted(finding, ""))
    return bare if bare == description else f"{bare}."


def exclude_items(finding: Finding) -> tuple[str, ...]:
    """The items that exclude exactly this finding: its code, with each of its terms if it has any."""
    return tuple(f"{finding.code}:{term}" for term in finding.terms if term) or (finding.code,)


def _noted(finding: Finding, description: str) -> str:
    items = exclude_items(finding)
    listed = ", ".join(f'"{item}"' for item in items)
    return (
        f"{description.removesuffix('.')}. To exclude this rule add "
        f"{'one or more of ' if len(items) > 1 else ''}{listed} "
        "to the `exclude` section of the policy configuration."
    )


def without_details(finding: F) -> F:
    """The finding as it is reported without ``--info``: code, date and term only."""
    kept = {name: finding.metadata[name] for name in _ALWAYS_SHOWN if name in finding.metadata}
    return replace(finding, metadata=kept)


def in_report_order(findings: Iterable[F]) -> tuple[F, ...]:
    """The findings by code, first term and message; those without a code first."""
    return tuple(sorted(findings, key=_rank))


def _rank(finding: Finding) -> tuple[str, str, str]:
    return (finding.code, next(filter(None, finding.terms), ""), finding.message)
