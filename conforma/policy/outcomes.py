"""From the value of a rule to a finding: shape, metadata, kind and date.

Sections 4.4, 4.9 and 4.10 of the ``validate image`` specification. The kind of
the rule that spoke travels with every result, so nothing is guessed later from
its code or message.

What a rule yields is read as follows; the Go tool passes over everything that
is marked with a star, which lets an image pass that a rule complained about.

========================  ==================================================
member of a set or list   a result; an empty message is none
string as a whole *       one result with that message
object as a whole *       empty: none; otherwise one result, like a member
``false`` *               the rule says no: no result
anything else *           a result that names the unexpected value
========================  ==================================================

An object without a string ``msg`` is an error of the policy.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from conforma import gojson
from conforma.errors import EvaluationFailed
from conforma.findings import Finding, PolicyWarning, Success, Violation
from conforma.gotext import quoted
from conforma.policy.rego.failures import DEEPEST, too_deep
from conforma.policy.rules import Kind, Rule
from conforma.policy.scoring import Subject
from conforma.policy.timestamps import parse_effective_on

log = logging.getLogger(__name__)

# A rule that has been in force for longer is no news.
_EFFECTIVE_ON_KEPT: Final = timedelta(days=90)
_LONGEST_SHOWN: Final = 200


class RuleResult(Struct, frozen=True):
    """One result of a rule, before it is known whether it counts."""

    package: str
    rule: str
    kind: Kind
    message: str
    metadata: Mapping[str, Any]

    @property
    def query(self) -> str:
        """The rule as a policy refers to it."""
        return f"data.{self.package}.{self.rule}"

    @property
    def finding(self) -> Finding:
        """What it says, whatever becomes of it."""
        return Finding(self.message, self.metadata)

    @property
    def subject(self) -> Subject:
        """What include and exclude items can name of it."""
        finding = self.finding
        if not finding.code:
            return Subject("")
        return Subject(finding.code, finding.terms, tuple(self.metadata.get("collections", ())))


def results_of(value: Any, *, package: str, rule: str, kind: Kind) -> Iterator[RuleResult]:
    """The results that the value of a rule stands for (table above).

    Raises ``EvaluationFailed`` for an object without a string ``msg``.
    """
    for member in value if isinstance(value, list) else [value]:
        if member is False or (member is value and member == {}):
            continue
        message, metadata = _read(member, f"data.{package}.{rule}")
        if message:
            yield RuleResult(package, rule, kind, message, metadata)


def described(result: RuleResult, rules: Mapping[str, Rule], moment: datetime) -> RuleResult:
    """The result with what the annotation of its code says about it (4.4).

    The annotation's title, date, description, solution, collections and
    dependencies replace the result's own where they are not empty. A date long
    past is dropped. A result without a code stays as it is.
    """
    metadata = dict(result.metadata)
    code = metadata.get("code")
    if not isinstance(code, str):
        return result
    collections = metadata.pop("collections", None)
    if isinstance(collections, list):
        metadata["collections"] = [
            item if isinstance(item, str) else gojson.dumps(item) for item in collections
        ]
    rule = rules.get(code) or Rule(code, "")
    metadata |= _of_rule(
        title=rule.title,
        effective_on=rule.effective_on,
        description=rule.description,
        solution=rule.solution,
        collections=rule.collections,
        depends_on=rule.depends_on,
    )
    effective_on = metadata.get("effective_on")
    if isinstance(effective_on, str):
        since = parse_effective_on(effective_on)
        if since is not None and since < moment - _EFFECTIVE_ON_KEPT:
            del metadata["effective_on"]
    return replace(result, metadata=metadata)


def classified(result: RuleResult, moment: datetime) -> Violation | PolicyWarning:
    """What the result is at a moment (4.9).

    A severity overrides the kind of the rule. A failure that is not yet in
    force is a warning that tells since when it will be one.
    """
    severity = _severity(result)
    if result.kind == "warning":
        kind = Violation if severity == "failure" else PolicyWarning
        return kind(result.message, result.metadata)
    if severity == "warning":
        return PolicyWarning(result.message, result.metadata)
    if not _is_effective(result, moment):
        message = (
            f"{result.message.removesuffix('.')}. This will become a failure starting on "
            f"{result.metadata['effective_on']}"
        )
        return PolicyWarning(message, result.metadata)
    return Violation(result.message, result.metadata)


def success_of(rule: Rule) -> Success:
    """What is reported for a rule that had nothing to say (4.10)."""
    return Success(
        "Pass",
        {"code": rule.code}
        | _of_rule(
            title=rule.title,
            description=rule.description,
            collections=rule.collections,
            depends_on=rule.depends_on,
            effective_on=rule.effective_on,
        ),
    )


def _read(member: Any, query: str) -> tuple[str, Mapping[str, Any]]:
    if _is_deeper(member, DEEPEST):
        raise too_deep(f"{query} yields it")
    if isinstance(member, str):
        return member, {}
    if isinstance(member, dict):
        message = member.get("msg")
        if not isinstance(message, str):
            raise EvaluationFailed(
                "query rule: check: query rule: new result: "
                '"msg" field must be present and a string',
                hint=f"{query} yields {_shown(member)}",
            )
        return message, {name: v for name, v in member.items() if name not in {"msg", "_loc"}}
    return f"unexpected policy result type {_json_type(member)}: {_shown(member)}", {}


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether values are nested in ``value`` in more than so many levels."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False
    return levels == 0 or any(_is_deeper(inner, levels - 1) for inner in value)


def _json_type(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return "array" if isinstance(value, list) else "number"


def _shown(value: Any) -> str:
    text = gojson.dumps(value, escape_html=False)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _of_rule(**members: str | tuple[str, ...]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, str) else list(value)
        for name, value in members.items()
        if value
    }


def _severity(result: RuleResult) -> str:
    severity = result.metadata.get("severity")
    if severity is None and "severity" not in result.metadata:
        return ""
    if not isinstance(severity, str):
        log.warning('Ignoring non-string "severity" value %s', _shown(severity))
        return ""
    if severity not in {"failure", "warning"}:
        log.warning('Ignoring unexpected "severity" value %s', severity)
        return ""
    return severity


def _is_effective(result: RuleResult, moment: datetime) -> bool:
    if "effective_on" not in result.metadata:
        return True
    text = result.metadata["effective_on"]
    if not isinstance(text, str):
        log.warning('Ignoring non-string "effective_on" value %s', _shown(text))
        return True
    since = parse_effective_on(text)
    if since is None:
        log.warning('Invalid "effective_on" value %s', quoted(text))
        return True
    return since < moment
