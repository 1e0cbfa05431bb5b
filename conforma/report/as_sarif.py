"""``sarif``: violations and warnings for code scanning (SARIF 2.1.0).

A result is located at the repository of its image, as a path relative to the
checkout, because code scanning accepts nothing else; the image itself with
its digest is the logical location. Repository, component, rule and terms make
the fingerprint, so that an alert stays the same alert when the image is built
again. Successes are left out: code scanning would show each as an alert. A
component that could not be decided makes the invocation unsuccessful.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final, Literal
from urllib.parse import quote

from conforma import gojson
from conforma.errors import BadReference
from conforma.findings import Finding, Violation
from conforma.oci.reference import Reference
from conforma.policy.presentation import exclude_items
from conforma.report.rule_texts import RuleText, rule_texts
from conforma.report.wrapping import harmless, harmless_line, shortened
from conforma.validate.result import ComponentResult, Report

Level = Literal["error", "warning"]

_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_HOME: Final = "https://conforma.dev"
_NO_CODE: Final = "conforma"
# What code scanning accepts of a description.
_LONGEST: Final = 1024
_BRACKETS: Final = re.compile(r"([\[\]\\])")
_LINK: Final = re.compile(r"\]\(")
_MARKDOWN: Final = re.compile(r"(`[^`]*`)|([\\`*_\[\]<>#|!~&])")
# Code scanning wants a region; an image has no lines.
_REGION: Final = {"startLine": 1, "startColumn": 1, "endLine": 1, "endColumn": 1}


def render(report: Report) -> Iterator[str]:
    """The text of the report in pieces of at most one result."""
    rules = rule_texts(finding for _, finding in _findings(report))
    index = {code: number for number, code in enumerate(rules)}
    yield (
        f'{{"$schema":{gojson.dumps(_SCHEMA)},"version":"2.1.0","runs":[{{'
        f'"tool":{gojson.dumps({"driver": _driver(report, rules.values())})},'
        f'"invocations":{gojson.dumps([_invocation(report)])},'
        f'"columnKind":"unicodeCodePoints","results":['
    )
    separator = ""
    seen: Counter[str] = Counter()
    for result, finding in _findings(report):
        members = {
            "ruleId": finding.code or _NO_CODE,
            "ruleIndex": index[finding.code],
            "level": _level(finding),
            "message": {"text": _message(finding.message or "(no message)")},
            "locations": [_location(result)],
            "partialFingerprints": {"primaryLocationLineHash": _fingerprint(result, finding, seen)},
            "properties": _properties(result, finding),
        }
        yield separator + gojson.dumps(members)
        separator = ","
    yield "]}]}"


def _findings(report: Report) -> Iterator[tuple[ComponentResult, Finding]]:
    for result in report.components:
        for finding in (*result.violations, *result.warnings):
            yield result, finding


def _level(finding: Finding) -> Level:
    return "error" if isinstance(finding, Violation) else "warning"


def _driver(report: Report, rules: Iterable[RuleText]) -> dict[str, Any]:
    blocking = {f.code for result in report.components for f in result.violations}
    return {
        "name": "conforma",
        "version": report.version,
        "informationUri": _HOME,
        "rules": [_rule(rule, rule.code in blocking) for rule in rules],
    }


def _rule(rule: RuleText, blocking: bool) -> dict[str, Any]:
    solution = f"Solution: {rule.solution}" if rule.solution else ""
    help_text = "\n\n".join(filter(None, [rule.description, solution])) or rule.name
    members: dict[str, Any] = {
        "id": rule.code or _NO_CODE,
        "shortDescription": {"text": _message(shortened(rule.name, _LONGEST))},
        "fullDescription": {"text": _message(shortened(rule.description or rule.name, _LONGEST))},
        "help": {"text": _message(help_text), "markdown": _help(rule)},
        "defaultConfiguration": {"level": "error" if blocking else "warning"},
        "properties": {"tags": ["supply-chain", rule.code.partition(".")[0] or _NO_CODE]},
    }
    if rule.title:
        members["name"] = harmless_line(shortened(rule.title, _LONGEST))
    return members


def _help(rule: RuleText) -> str:
    parts = [f"**{_markdown(rule.name)}**", _markdown(rule.description)]
    if rule.solution:
        parts += ["**Solution**", _markdown(rule.solution)]
    return "\n\n".join(filter(None, parts))


def _invocation(report: Report) -> dict[str, Any]:
    members: dict[str, Any] = {
        "executionSuccessful": not report.undecided,
        "endTimeUtc": f"{report.created:%Y-%m-%dT%H:%M:%SZ}",
    }
    notifications = []
    for result in report.undecided:
        assert result.error is not None
        hint = f" ({result.error.hint})" if result.error.hint else ""
        text = f"{result.component.name} could not be decided: {result.error.message}{hint}"
        notifications.append(
            {
                "level": "error",
                "message": {"text": _message(text)},
                "locations": [_location(result)],
            }
        )
    if notifications:
        members["toolExecutionNotifications"] = notifications
    return members


def _location(result: ComponentResult) -> dict[str, Any]:
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": quote(harmless(_repository(result.image))) or "image"},
            "region": _REGION,
        },
        "logicalLocations": [
            {
                "name": harmless(result.component.name),
                "fullyQualifiedName": harmless(result.image),
                "kind": "image",
            }
        ],
    }


# Asked for each finding; a report has many findings on few images.
@lru_cache(maxsize=128)
def _repository(image: str) -> str:
    """The repository of an image, or the text as given if it is no reference."""
    try:
        return Reference.parse(image).repository_name
    except BadReference:
        return image.partition("@")[0].lstrip("/")


def _fingerprint(result: ComponentResult, finding: Finding, seen: Counter[str]) -> str:
    """The same for the same finding in a later build, different from all others of this report."""
    about = finding.terms or (finding.message,)
    parts = (result.component.name, _repository(result.image), finding.code, *about)
    text = gojson.dumps(list(parts)).encode()
    digest = hashlib.sha256(text).hexdigest()[:32]
    seen[digest] += 1
    return f"{digest}:{seen[digest]}"


def _properties(result: ComponentResult, finding: Finding) -> dict[str, Any]:
    members: dict[str, Any] = {"component": result.component.name, "image": result.image}
    if finding.terms:
        members["terms"] = list(finding.terms)
    if finding.code:
        members["exclude"] = list(exclude_items(finding))
    effective_on = finding.metadata.get("effective_on")
    if isinstance(effective_on, str):
        members["effective_on"] = effective_on
    return members


def _message(text: str) -> str:
    """Text for a message, in which brackets that look like a link are just brackets (3.11.6)."""
    shown = harmless(text)
    return _BRACKETS.sub(r"\\\1", shown) if _LINK.search(shown) else shown


def _markdown(text: str) -> str:
    """Text as Markdown that shows exactly it; what stands in backquotes is code."""
    return _MARKDOWN.sub(lambda match: match[1] or f"\\{match[2]}", harmless(text))
