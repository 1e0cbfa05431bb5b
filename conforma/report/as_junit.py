"""``junit``: the findings as test cases, for CI systems (specification 7.6).

The element and attribute order, and the escapes, are those of the Go tool. A
component that could not be decided is an ``error`` case of its suite.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from conforma.findings import Finding
from conforma.gotext import printed
from conforma.report import document
from conforma.validate.result import ComponentResult, Report

_ESCAPES: Final = {
    "<": "&lt;",
    ">": "&gt;",
    "&": "&amp;",
    '"': "&#34;",
    "'": "&#39;",
    "\t": "&#x9;",
    "\n": "&#xA;",
    "\r": "&#xD;",
}
_TO_ESCAPE: Final = re.compile("[<>&\"'\t\n\r]")
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(report: Report) -> Iterator[str]:
    """The text of the report in pieces of at most one test case."""
    violations, warnings, successes = report.counts
    undecided = len(report.undecided)
    shown = successes if report.show_successes else 0
    totals = {
        "tests": shown + violations + warnings + undecided,
        "errors": undecided,
        "failures": violations,
        "skipped": warnings,
    }
    yield f"<testsuites{_attributes({k: v for k, v in totals.items() if v})}>"
    for result in report.components:
        yield from _suite(report, result)
    yield "</testsuites>"


def _suite(report: Report, result: ComponentResult) -> Iterator[str]:
    successes: tuple[Finding, ...] = result.successes if report.show_successes else ()
    undecided = int(result.error is not None)
    attributes: dict[str, Any] = {
        "name": f"{result.component.name} ({result.image})",
        "tests": len(successes) + len(result.violations) + len(result.warnings) + undecided,
        "failures": len(result.violations),
        "errors": undecided,
        "id": 0,
    }
    if result.warnings:
        attributes["skipped"] = len(result.warnings)
    attributes |= {"time": "", "timestamp": f"{report.created:%Y-%m-%dT%H:%M:%SZ}"}
    yield f"<testsuite{_attributes(attributes)}>"
    yield "<properties>"
    for name, value in _properties(report, result):
        yield f"<property{_attributes({'name': name, 'value': value})}></property>"
    yield "</properties>"
    for success in successes:
        yield _case(_title(report, success), "")
    for violation in result.violations:
        yield _case(_title(report, violation), _outcome("failure", violation.message))
    for warning in result.warnings:
        yield _case(_title(report, warning), _outcome("skipped", warning.message))
    if result.error is not None:
        yield _case(result.error.message, _outcome("error", result.error.message))
    yield "</testsuite>"


def _properties(report: Report, result: ComponentResult) -> Iterator[tuple[str, str]]:
    yield "image", result.image
    yield "key", report.key
    yield "success", "true" if result.success else "false"
    for signature in result.signatures:
        yield "keyId", str(signature.get("keyid", ""))
        yield "signature", str(signature.get("sig", ""))
        metadata: Mapping[str, str] = signature.get("metadata") or {}
        for name in sorted(metadata):
            yield f"metadata.{name}", metadata[name]


def _title(report: Report, finding: Finding) -> str:
    code = f"{finding.code}: " if finding.code else ""
    metadata = document.shown(report, finding).metadata
    details = sorted(f"{k}={printed(v)}" for k, v in metadata.items() if k != "code")
    return f"{code}{finding.message}" + (f" [{', '.join(details)}]" if details else "")


def _case(name: str, body: str) -> str:
    return f"<testcase{_attributes({'name': name, 'classname': name})}>{body}</testcase>"


def _outcome(element: str, message: str) -> str:
    data = _NOT_XML.sub("\ufffd", message).replace("]]>", "]]]]><![CDATA[>")
    return f"<{element}{_attributes({'message': message})}><![CDATA[{data}]]></{element}>"


def _attributes(values: Mapping[str, Any]) -> str:
    return "".join(f' {name}="{_escaped(str(value))}"' for name, value in values.items())


def _escaped(text: str) -> str:
    return _TO_ESCAPE.sub(lambda match: _ESCAPES[match[0]], _NOT_XML.sub("\ufffd", text))
