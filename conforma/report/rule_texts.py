"""What the findings of a report say about their rules, gathered once for each code."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from conforma.findings import Finding
from conforma.policy.presentation import description_of


class RuleText(Struct, frozen=True):
    """A code and what is written about it; all but the code may be empty."""

    code: str
    title: str = ""
    description: str = ""
    solution: str = ""

    @property
    def name(self) -> str:
        """What to call the rule."""
        return self.title or self.code or "Without a rule code"

    @classmethod
    def of(cls, finding: Finding) -> RuleText:
        """As the finding has it, without the note on how to exclude it."""
        return cls(
            finding.code,
            _text(finding.metadata.get("title")),
            description_of(finding),
            _text(finding.metadata.get("solution")),
        )


def rule_texts(findings: Iterable[Finding]) -> dict[str, RuleText]:
    """The rules by code, in order of first mention; the first finding speaks for its code."""
    found: dict[str, RuleText] = {}
    for finding in findings:
        if finding.code not in found:
            found[finding.code] = RuleText.of(finding)
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
