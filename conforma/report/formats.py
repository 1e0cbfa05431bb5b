"""The output formats by name, and how each is rendered.

The formats of the Go tool leave titles, descriptions and solutions out unless
the report was made with ``--info``. Those in ``DETAILED`` exist to show them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from conforma.report import (
    as_appstudio,
    as_evidence,
    as_github,
    as_html,
    as_json,
    as_junit,
    as_provenance,
    as_sarif,
    as_summary,
    as_text,
    as_vsa,
    as_yaml,
)
from conforma.validate.result import Report

Piece = str | bytes


@dataclass(frozen=True, slots=True)
class Options:
    """What a report for people shows; the other formats always show all they have."""

    show_successes: bool = False
    show_warnings: bool = True
    show_policy_docs_link: bool = False
    color: bool = False


def _text(report: Report, options: Options) -> Iterator[Piece]:
    return as_text.render(
        report,
        show_successes=options.show_successes,
        show_warnings=options.show_warnings,
        show_policy_docs_link=options.show_policy_docs_link,
        color=options.color,
    )


def _html(report: Report, options: Options) -> Iterator[Piece]:
    return as_html.render(
        report, show_successes=options.show_successes, show_warnings=options.show_warnings
    )


def _github(report: Report, options: Options) -> Iterator[Piece]:
    return as_github.render(report, show_warnings=options.show_warnings)


def _plain(renderer: Callable[[Report], Iterator[Piece]]) -> Callable[..., Iterator[Piece]]:
    return lambda report, _options: renderer(report)


FORMATS: Final[Mapping[str, Callable[[Report, Options], Iterator[Piece]]]] = {
    "appstudio": _plain(as_appstudio.render),
    "attestation": _plain(as_evidence.render_attestations),
    "github": _github,
    "hacbs": _plain(as_appstudio.render),
    "html": _html,
    "json": _plain(as_json.render),
    "junit": _plain(as_junit.render),
    "policy-input": _plain(as_evidence.render_policy_input),
    "provenance": _plain(as_provenance.render),
    "sarif": _plain(as_sarif.render),
    "summary": _plain(as_summary.render),
    "summary-markdown": _plain(as_summary.render_markdown),
    "text": _text,
    "vsa": _plain(as_vsa.render),
    "yaml": _plain(as_yaml.render),
}

DETAILED: Final = frozenset({"github", "html", "sarif"})


def render(report: Report, name: str, options: Options) -> Iterator[Piece]:
    """The report in the format called ``name`` (a key of ``FORMATS``), piece by piece."""
    return FORMATS[name](report, options)
