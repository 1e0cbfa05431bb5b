"""The findings of one kind as a section of the page, grouped by rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

from msgspec import Struct, field

from conforma.findings import Finding
from conforma.policy.presentation import exclude_items
from conforma.report.html_text import filter_link, line, message, prose
from conforma.report.numbers import counted
from conforma.report.rule_texts import RuleText
from conforma.validate.result import ComponentResult

Kind = Literal["violation", "warning", "success"]

_MARKS: Final[dict[Kind, str]] = {"violation": "✕", "warning": "!", "success": "✓"}
# What stands above comes first; the rest of a rule's findings is folded away.
_OPEN: Final = 20
_BUILT_IN: Final = "builtin."


class _Group(Struct):
    """The findings of one rule, each with the number of its component."""

    rule: RuleText
    findings: list[tuple[int, ComponentResult, Finding]] = field(default_factory=list)


def section(
    kind: Kind,
    title: str,
    components: Iterable[tuple[int, ComponentResult, Sequence[Finding]]],
) -> Iterator[str]:
    """The section in pieces of at most one finding; nothing if there are no findings."""
    groups = _grouped(components)
    total = sum(len(group.findings) for group in groups)
    if not total:
        return
    name = f"{kind}-heading"
    yield (
        f'<section id="{kind}" class="kind {kind}" data-kind="{kind}" aria-labelledby="{name}">'
        f'<h2 id="{name}">{title} <span class="count">{total:,}</span></h2>'
    )
    for group in groups:
        yield from _rule(kind, group)
    yield "</section>"


def _grouped(
    components: Iterable[tuple[int, ComponentResult, Sequence[Finding]]],
) -> list[_Group]:
    groups: dict[str, _Group] = {}
    for number, result, findings in components:
        for finding in findings:
            if (group := groups.get(finding.code)) is None:
                group = groups[finding.code] = _Group(RuleText.of(finding))
            group.findings.append((number, result, finding))
    # What has no code cannot be looked up; it comes last.
    return [groups[code] for code in sorted(groups, key=lambda code: (not code, code))]


def _rule(kind: Kind, group: _Group) -> Iterator[str]:
    rule = group.rule
    findings = group.findings
    components = len({number for number, _, _ in findings})
    yield (
        f'<article class="rule"><header><h3><span class="mark" aria-hidden="true">{_MARKS[kind]}'
        f"</span> {line(rule.name)}</h3>"
    )
    if rule.code and rule.title:
        yield f'<code class="code">{line(rule.code)}</code>'
    where = counted(components, "component")
    many = f"{counted(len(findings), 'finding')} in " if len(findings) > components else ""
    yield f'<p class="extent">{many}{where}</p></header>'
    if rule.description:
        yield f'<p class="description" dir="auto">{prose(rule.description)}</p>'
    if rule.solution and kind != "success":
        yield (
            f'<div class="solution"><h4>Solution</h4><p dir="auto">{prose(rule.solution)}</p></div>'
        )
    if kind == "violation" and rule.code and not rule.code.startswith(_BUILT_IN):
        yield f'<p class="exclude">{_exclusion(findings[0][2])}</p>'
    yield '<ul class="findings">'
    for position, (number, result, finding) in enumerate(findings):
        if position == _OPEN:
            rest = counted(len(findings) - _OPEN, "more finding")
            yield f'</ul><details class="more"><summary>Show {rest}</summary><ul class="findings">'
        yield _finding(kind, number, result, finding)
    yield "</ul></details></article>" if len(findings) > _OPEN else "</ul></article>"


def _exclusion(finding: Finding) -> str:
    whole = f"<code>{line(finding.code)}</code>"
    (item, *_) = exclude_items(finding)
    if item == finding.code:
        return f"The policy configuration can exclude this rule: {whole}"
    return (
        f"The policy configuration can exclude this rule: {whole}, "
        f"or one term of it: <code>{line(item)}</code>"
    )


def _finding(kind: Kind, number: int, result: ComponentResult, finding: Finding) -> str:
    name = result.component.name
    facts = [f'<dt>Component</dt><dd><a href="{line(filter_link(name))}">{line(name)}</a></dd>']
    if terms := [term for term in finding.terms if term]:
        shown = ", ".join(f"<code>{line(term)}</code>" for term in terms)
        facts.append(f"<dt>Term{'s' if len(terms) > 1 else ''}</dt><dd>{shown}</dd>")
    effective_on = finding.metadata.get("effective_on")
    if isinstance(effective_on, str) and kind != "success":
        facts.append(f"<dt>In force from</dt><dd>{line(effective_on)}</dd>")
    said = message(finding.message) if finding.message and kind != "success" else ""
    return f'<li data-c="{number}">{said}<dl>{"".join(facts)}</dl></li>'
