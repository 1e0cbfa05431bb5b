"""What came out for plain documents: the findings of each file, and all of them as one report."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from conforma.policy.presentation import Findings


class InputResult(Struct, frozen=True):
    """What rules say about one file, directory or inline text, as it was named."""

    path: str
    findings: Findings

    @property
    def success(self) -> bool:
        """Whether no rule was violated."""
        return not self.findings.violations


class InputReport(Struct, frozen=True):
    """The results by path, descending, and how they were obtained.

    ``policy`` is the policy as it was written, with sources that are not
    pinned; ``effective_time`` is RFC 3339 text; ``created`` is in UTC.
    ``show_successes`` and ``show_warnings`` say whether documents list them.
    """

    inputs: tuple[InputResult, ...]
    policy: Mapping[str, Any]
    version: str
    effective_time: str
    created: datetime
    show_successes: bool = False
    show_warnings: bool = True

    @property
    def success(self) -> bool:
        """Whether no rule was violated by any of the files."""
        return all(result.success for result in self.inputs)

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many violations, warnings and successes there are, shown or not."""
        found = [result.findings for result in self.inputs]
        return (
            sum(len(one.violations) for one in found),
            sum(len(one.warnings) for one in found),
            sum(len(one.successes) for one in found),
        )

    @property
    def outcome(self) -> str:
        """``FAILURE``, ``WARNING`` or ``SUCCESS``."""
        violations, warnings, _ = self.counts
        if violations:
            return "FAILURE"
        return "WARNING" if warnings else "SUCCESS"
