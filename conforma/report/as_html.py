"""``html``: the report as one page that needs nothing else, for people who decide.

Everything is on the page and readable without scripts; the script only
filters. The page carries a content security policy that permits its own style
and script by their hashes and nothing else, so that text from a registry,
even if it got past the escaping, could neither run nor load anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Final

from conforma.report import html_findings
from conforma.report.html_text import escaped, filter_link, line, message
from conforma.report.numbers import counted
from conforma.validate.result import ComponentResult, Report

# Class, mark and words of each outcome.
_VERDICTS: Final[Mapping[str, tuple[str, str, str]]] = {
    "SUCCESS": ("success", "✓", "May be released"),
    "WARNING": ("warning", "!", "May be released, with warnings"),
    "FAILURE": ("violation", "✕", "Must not be released"),
    "SKIPPED": ("skipped", "–", "Nothing was checked"),
    "UNDECIDED": ("undecided", "?", "Could not be decided"),
}
_FEW: Final = 15


def render(report: Report, *, show_successes: bool, show_warnings: bool) -> Iterator[str]:
    """The text of the page in pieces of at most one finding or component."""
    style, script = _asset("page.css"), _asset("page.js")
    _, mark, words = _VERDICTS[_outcome(report)]
    yield (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_content_policy(style, script)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta name="referrer" content="no-referrer">'
        f'<title>{mark} {words} · conforma</title><link rel="icon" href="data:,">'
        f"<style>{style}</style></head><body>"
        '<a class="skip" href="#main">Skip to the report</a>'
    )
    yield from _header(report)
    yield '<main id="main">'
    yield from _undecided(report)
    yield from _components(report)
    yield from _filter(report, show_warnings=show_warnings, show_successes=show_successes)
    numbered = list(enumerate(report.components))
    yield from html_findings.section(
        "violation", "Violations", ((n, r, r.violations) for n, r in numbered)
    )
    if show_warnings:
        yield from html_findings.section(
            "warning", "Warnings", ((n, r, r.warnings) for n, r in numbered)
        )
    if show_successes:
        yield from html_findings.section(
            "success", "Successes", ((n, r, r.successes) for n, r in numbered)
        )
    yield _policy(report)
    yield (
        f"</main><footer><p>Made by conforma {line(report.version)} on "
        f"{report.created:%Y-%m-%d %H:%M:%S} UTC.</p></footer>"
        f"<script>{script}</script></body></html>\n"
    )


def _outcome(report: Report) -> str:
    if report.undecided and not any(result.violations for result in report.components):
        return "UNDECIDED"
    return report.outcome


def _header(report: Report) -> Iterator[str]:
    kind, mark, words = _VERDICTS[_outcome(report)]
    violations, warnings, successes = report.counts
    yield (
        f'<header class="verdict {kind}"><div class="inner"><div class="top"><p class="brand">conforma'
        '</p><button type="button" id="theme" hidden>Dark or light</button></div>'
        f'<h1><span class="mark" aria-hidden="true">{mark}</span> {words}</h1><p class="lead">'
    )
    if report.snapshot:
        yield f"Snapshot <strong>{line(report.snapshot)}</strong>, judged "
    else:
        yield "Judged "
    yield f"as of <time>{line(report.effective_time)}</time></p>"
    tiles = [
        ("components", len(report.components), "component"),
        ("violation", violations, "violation"),
        ("warning", warnings, "warning"),
        ("success", successes, "success"),
    ]
    if report.undecided:
        tiles.insert(1, ("undecided", len(report.undecided), "undecided"))
    yield '<ul class="tiles">'
    for name, number, thing in tiles:
        plural = {"success": "successes", "undecided": "undecided"}.get(thing, f"{thing}s")
        yield (
            f'<li class="{name}{"" if number else " none"}"><strong>{number:,}</strong> '
            f"{thing if number == 1 else plural}</li>"
        )
    yield "</ul></div></header>"


def _undecided(report: Report) -> Iterator[str]:
    if not report.undecided:
        return
    yield (
        '<section id="undecided" class="kind undecided" aria-labelledby="undecided-heading">'
        '<h2 id="undecided-heading">Could not be decided <span class="count">'
        f"{len(report.undecided):,}</span></h2>"
        "<p>This is no statement about these images: something kept conforma from judging them.</p>"
    )
    for result in report.undecided:
        assert result.error is not None
        yield (
            '<article class="rule"><header><h3><span class="mark" aria-hidden="true">?</span> '
            f"{line(result.component.name)}</h3></header>"
            f'<p class="image">{line(result.image)}</p>{message(result.error.message)}'
        )
        if result.error.hint:
            yield f'<div class="solution"><h4>What to try</h4><p>{escaped(result.error.hint)}</p></div>'
        yield "</article>"
    yield "</section>"


def _components(report: Report) -> Iterator[str]:
    """The table of components, those that need attention first."""
    if not report.components:
        return
    count = counted(len(report.components), "component")
    opened = " open" if len(report.components) <= _FEW else ""
    yield (
        '<section id="components" aria-labelledby="components-heading">'
        f'<h2 id="components-heading">Components</h2><details{opened}><summary>{count}</summary>'
        '<div class="scroll" role="region" aria-labelledby="components-heading" tabindex="0"><table>'
        '<thead><tr><th scope="col">Component</th><th scope="col">Verdict</th>'
        '<th scope="col" class="number">Violations</th><th scope="col" class="number">Warnings</th>'
        '<th scope="col" class="number">Successes</th></tr></thead><tbody>'
    )
    for result in sorted(
        report.components,
        key=lambda r: (r.error is None, -len(r.violations), -len(r.warnings), r.component.name),
    ):
        yield _row(result)
    yield "</tbody></table></div></details></section>"


def _row(result: ComponentResult) -> str:
    if result.error is not None:
        kind, verdict = "undecided", "undecided"
    elif result.violations:
        kind, verdict = "violation", "fails"
    elif result.warnings:
        kind, verdict = "warning", "passes, warned"
    else:
        kind, verdict = "success", "passes"
    name = result.component.name
    numbers = (len(result.violations), len(result.warnings), len(result.successes))
    cells = "".join(
        f'<td class="number{"" if number else " none"}">{number:,}</td>' for number in numbers
    )
    mark = next(mark for known, mark, _ in _VERDICTS.values() if known == kind)
    return (
        f'<tr><th scope="row"><a href="{line(filter_link(name))}">{line(name)}</a>'
        f"{_image(result.image)}</th>"
        f'<td><span class="badge {kind}"><span aria-hidden="true">{mark}</span> {verdict}</span></td>'
        f"{cells}</tr>"
    )


def _image(image: str) -> str:
    repository, at, digest = line(image).partition("@")
    shown = f'<span class="digest">{at}{digest}</span>' if at else ""
    return f'<span class="image">{repository}{shown}</span>'


def _filter(report: Report, *, show_warnings: bool, show_successes: bool) -> Iterator[str]:
    """The form that filters; the script shows it, since it needs the script."""
    violations, warnings, successes = report.counts
    kinds = [("violation", "Violations", violations)]
    if show_warnings:
        kinds.append(("warning", "Warnings", warnings))
    if show_successes:
        kinds.append(("success", "Successes", successes))
    yield (
        '<form id="filter" role="search" aria-label="Filter the findings" hidden>'
        '<p class="field grow"><label for="words">Search</label><input type="search" id="words" '
        'autocomplete="off" spellcheck="false" placeholder="Rule, message, term…"></p>'
        '<p class="field"><label for="component">Component</label><select id="component">'
        '<option value="">All components</option>'
    )
    for number, result in enumerate(report.components):
        yield f'<option value="{number}">{line(result.component.name)}</option>'
    yield "</select></p><fieldset><legend>Show</legend>"
    for kind, label, number in kinds:
        yield (
            f'<label><input type="checkbox" name="kind" value="{kind}" checked> {label} '
            f'<span class="count">{number:,}</span></label>'
        )
    yield (
        '</fieldset><p class="actions"><button type="reset">Clear</button></p>'
        '<p id="status" role="status"></p></form>'
    )


def _policy(report: Report) -> str:
    policy = json.dumps(report.policy, indent=2, ensure_ascii=False)
    key = f"<h3>Public key</h3><pre>{escaped(report.key)}</pre>" if report.key else ""
    return (
        '<section id="policy" aria-labelledby="policy-heading"><h2 id="policy-heading">Policy</h2>'
        f"<details><summary>What the components were judged by</summary><pre>{escaped(policy)}</pre>"
        f"{key}</details></section>"
    )


def _content_policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _asset(name: str) -> str:
    return files("conforma.report").joinpath(name).read_text(encoding="utf-8")
