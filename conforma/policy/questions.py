"""The queries that one evaluation asks of a source group, and the results in its answers.

All rules of all selected packages are asked for at once, so that the engine
reads the input and computes what rules share a single time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from conforma.policy.outcomes import RuleResult, results_of
from conforma.policy.rules import RuleBook, exception_name, rule_kind

_PLAIN_STEP = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class Questions:
    """The queries of one evaluation: each package's exceptions, then each of its rules."""

    def __init__(self, book: RuleBook, packages: Sequence[str]) -> None:
        self.asked: list[tuple[str, str]] = []
        self.queries: list[str] = []
        for package in packages:
            path = book.paths[package]
            rules = book.decisive[package]
            if rules:
                self.asked.append((package, ""))
                self.queries.append(f"[name | name := {rule_query(path, 'exception')}[_][_]]")
            for rule in rules:
                self.asked.append((package, rule))
                self.queries.append(rule_query(path, rule))

    def results(self, answers: Sequence[list[Any]]) -> Iterator[tuple[RuleResult, bool]]:
        """Every result, with whether its package makes an exception for its rule.

        Raises ``EvaluationFailed`` as :func:`results_of` does.
        """
        exceptions: list[Any] = []
        for (package, rule), solutions in zip(self.asked, answers, strict=True):
            kind = rule_kind(rule)
            if kind is None:
                exceptions = [name for names in solutions for name in names]
                continue
            excepted = exception_name(rule) in exceptions
            for value in solutions:
                for result in results_of(value, package=package, rule=rule, kind=kind):
                    yield result, excepted


def rule_query(path: Sequence[str], rule: str) -> str:
    """The query for a rule of the package with this path."""
    return f"data{''.join(map(_step, path))}.{rule}"


def _step(segment: str) -> str:
    if _PLAIN_STEP.fullmatch(segment):
        return f".{segment}"
    return f"[{json.dumps(segment)}]"
