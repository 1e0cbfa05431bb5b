"""An explanation as text for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from conforma import gojson
from conforma.findings import Finding, PolicyWarning, Success, Violation
from conforma.policy.effective_time import rfc3339_nano
from conforma.policy.judgement import Step
from conforma.policy.presentation import description_of
from conforma.policy.scoring import Decision, Item, Match
from conforma.report.wrapping import harmless, harmless_line, shortened, wrapped
from conforma.validate.explain import Explanation, GroupExplanation, LookedAt

_WIDTH: Final = 100
_LABEL: Final = 13
_SHOWN: Final = 300
_WHOLE: Final = 10_000
_NAMES: Final = 8


def as_text(explanation: Explanation) -> Iterator[str]:
    """The explanation for people, in pieces of a line or a few."""
    result = explanation.result
    yield _row("Code", explanation.code)
    yield _row("Component", result.component.name)
    yield _row("Image", result.image)
    if result.moment is not None:
        yield _row("Judged as of", rfc3339_nano(result.moment))
    for group in explanation.groups:
        yield from _group(explanation, group)
    if not explanation.groups:
        yield "\n"
        for finding in explanation.reported:
            yield from _reported(finding)
        if not explanation.reported:
            yield "This check was not made.\n"


def _group(explanation: Explanation, group: GroupExplanation) -> Iterator[str]:
    yield f"\nSource group {group.number}\n"
    rule = group.rule
    if rule is None:
        yield "  No annotation declares this code; results carry it on their own.\n"
    else:
        yield _row("Title", rule.title, 2)
        yield _row("Defined at", f"{rule.file}:{rule.row}, package {rule.package}", 2)
        yield _row("Collections", ", ".join(rule.collections), 2)
        yield _row("In force from", rule.effective_on or "ever", 2)
        yield _row("Depends on", ", ".join(rule.depends_on), 2)
        yield _row("Intention", ", ".join(rule.pipeline_intention), 2)
        yield _row("Description", rule.description, 2)
        yield _row("Solution", rule.solution, 2)
    if group.details is not None:
        yield from _written(group.details.text)
        yield from _looks_at(group)
    yield "\n"
    yield from _verdict(explanation, group)
    if group.dormant:
        yield "\n  Items that name it but do not count here:\n"
        for item, reason in group.dormant:
            yield f"    {harmless_line(item.value)}  ({_origin(item)}): {harmless_line(reason)}\n"


def _written(text: str) -> Iterator[str]:
    yield "\n  As written\n"
    for line in harmless(text).split("\n"):
        yield f"    {line}".rstrip() + "\n"


def _looks_at(group: GroupExplanation) -> Iterator[str]:
    details = group.details
    assert details is not None
    yield "\n  It looks at\n"
    for part in group.looked_at:
        shown = _summary(part.value) if part.there else "not there"
        yield f"    {_path('input', part.path)}  {shown}\n"
    if group.outcome is None:
        for path in details.depends:
            if path[0] == "input":
                yield f"    {_path('input', path[1:])}\n"
    for path in details.depends:
        if path[0] != "input":
            yield f"    {_path(str(path[0]), path[1:])}\n"
    if details.functions:
        yield f"    and calls {', '.join(details.functions)}\n"
    if not (details.depends or details.functions):
        yield "    nothing outside itself\n"


def _verdict(explanation: Explanation, group: GroupExplanation) -> Iterator[str]:
    if group.outcome is None:
        yield "  Not evaluated: the component did not get as far as the rules.\n"
        for finding in explanation.result.violations:
            yield f"    {harmless(finding.message)}\n"
        return
    if not group.evaluated:
        yield "  Not evaluated: no include item selects a rule of its package.\n"
    if not group.steps:
        yield "  It said nothing, and has no name under which that could be reported.\n"
    for step in group.steps:
        yield from _step(group, step)


def _step(group: GroupExplanation, step: Step) -> Iterator[str]:
    finding = step.finding
    said = "" if isinstance(finding, Success) else f": {harmless(finding.message)}"
    terms = f" (term {', '.join(map(harmless_line, finding.terms))})" if finding.terms else ""
    yield f"  {_outcome(group, step)}{terms}{said}\n"
    if step.query:
        yield f"    said by {step.query}\n"
    if step.fate == "consequence":
        assert group.rule is not None
        yield f"    because a rule it depends on has spoken: {', '.join(group.rule.depends_on)}\n"
    yield from _decision(step.decision)


def _outcome(group: GroupExplanation, step: Step) -> str:
    kind = _kind(step.finding)
    match step.fate:
        case "kept" if kind == "success":
            return "Passed: the rule had nothing to say"
        case "kept":
            return f"Reported as a {kind}"
        case "excluded" if kind == "success" and not group.evaluated:
            return "Left out"
        case "excluded":
            return f"Left out, would be a {kind}"
        case "excepted":
            return "Left out by an exception of its package"
        case _:
            return f"Left out as a consequence, would be a {kind}"


def _decision(decision: Decision) -> Iterator[str]:
    for side, matches in (("include", decision.include), ("exclude", decision.exclude)):
        for match in matches:
            yield (
                f"    {side} {match.score:>4}  {harmless_line(match.item.value)}"
                f"  ({_origin(match.item)})\n"
            )
    if decision.reason:
        yield f"    {harmless_line(decision.reason)}\n"
        return
    include, exclude = decision.include_score, decision.exclude_score
    sign = ">" if include > exclude else "=" if include == exclude else "<"
    verdict = "kept" if decision.included else "left out"
    why = "" if include != exclude else ", and ties are"
    yield f"    include {include} {sign} exclude {exclude}{why or ':'} {verdict}\n"


def _reported(finding: Finding) -> Iterator[str]:
    yield f"Made by conforma itself; include and exclude do not concern it.\n{_kind(finding).title()}"
    yield "\n" if isinstance(finding, Success) else f": {harmless(finding.message)}\n"
    yield _row("Description", description_of(finding))


def as_json(explanation: Explanation) -> str:
    """The explanation as one line of JSON."""
    result = explanation.result
    return gojson.dumps(
        {
            "code": explanation.code,
            "component": result.component.name,
            "containerImage": result.image,
            "effective-time": rfc3339_nano(result.moment) if result.moment else None,
            "judged": explanation.judged,
            "reported": [_finding(finding) for finding in explanation.reported],
            "groups": [_group_members(group) for group in explanation.groups],
        }
    )


def _group_members(group: GroupExplanation) -> dict[str, Any]:
    rule, details = group.rule, group.details
    return {
        "group": group.number,
        "rule": {
            "title": rule.title,
            "description": rule.description,
            "solution": rule.solution,
            "file": rule.file,
            "row": rule.row,
            "package": rule.package,
            "collections": list(rule.collections),
            "effective_on": rule.effective_on,
            "depends_on": list(rule.depends_on),
            "pipeline_intention": list(rule.pipeline_intention),
            "text": details.text if details else "",
        }
        if rule is not None
        else None,
        "looks_at": {
            "input": [_part(part) for part in group.looked_at],
            "data": [
                _path("data", path[1:])
                for path in (details.depends if details else ())
                if path[0] == "data"
            ],
            "functions": list(details.functions) if details else [],
        },
        "evaluated": group.evaluated,
        "results": [
            {
                **_finding(step.finding),
                "fate": step.fate,
                "query": step.query,
                "include": [_match(match) for match in step.decision.include],
                "exclude": [_match(match) for match in step.decision.exclude],
                "include_score": step.decision.include_score,
                "exclude_score": step.decision.exclude_score,
                "reason": step.decision.reason,
            }
            for step in group.steps
        ],
        "dormant": [{**_item(item), "reason": reason} for item, reason in group.dormant],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "kind": _kind(finding),
        "msg": finding.message,
        "metadata": gojson.sorted_maps(finding.metadata),
    }


def _part(part: LookedAt) -> dict[str, Any]:
    members: dict[str, Any] = {"path": _path("input", part.path), "there": part.there}
    if part.there:
        members["summary"] = _summary(part.value)
        if len(gojson.dumps(part.value)) <= _WHOLE:
            members["value"] = part.value
    return members


def _match(match: Match) -> dict[str, Any]:
    return {**_item(match.item), "score": match.score}


def _item(item: Item) -> dict[str, Any]:
    return {
        "value": item.value,
        "origin": item.origin,
        "image": item.image,
        "component": item.component,
    }


def _kind(finding: Finding) -> str:
    if isinstance(finding, Violation):
        return "violation"
    if isinstance(finding, PolicyWarning):
        return "warning"
    return "success" if isinstance(finding, Success) else "result"


def _origin(item: Item) -> str:
    scope = f", image {item.image}" if item.image else ""
    scope += f", component {item.component}" if item.component else ""
    return harmless_line(item.origin + scope)


def _path(root: str, path: tuple[str | int, ...]) -> str:
    """A path as a rule would write it."""
    text = root
    for step in path:
        plain = isinstance(step, str) and step.isidentifier()
        text += f".{step}" if plain else f"[{gojson.dumps(step, escape_html=False)}]"
    return harmless_line(text)


def _summary(value: Any) -> str:
    """A value in one line: all of it if it is short, else its size and shape."""
    text = gojson.dumps(value, escape_html=False)
    if len(text) <= _SHOWN:
        return harmless_line(text)
    if isinstance(value, Mapping):
        names = ", ".join(list(value)[:_NAMES]) + (", …" if len(value) > _NAMES else "")
        return harmless_line(f"object of {len(text):,} bytes with {names}")
    if isinstance(value, list):
        return f"list of {len(value):,} in {len(text):,} bytes"
    return harmless_line(shortened(text, _SHOWN))


def _row(label: str, value: str, indent: int = 0) -> str:
    if not value:
        return ""
    margin = " " * indent
    text = wrapped(harmless(value), _WIDTH - _LABEL - indent - 1)
    return f"{margin}{label:<{_LABEL}} " + text.replace("\n", f"\n{margin}{'':<{_LABEL}} ") + "\n"
