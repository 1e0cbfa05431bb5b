"""The output formats by name, and how each is rendered.

The formats of the Go tool leave titles, descriptions and solutions out unless
the report was made with ``--info``. Those in ``DETAILED`` exist to show them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Final

from msgspec import Struct

from conforma.validate.result import Report

Piece = str | bytes


class Options(Struct, frozen=True):
    """What a report for people shows; the other formats always show all they have."""

    show_successes: bool = False
    show_warnings: bool = True
    show_policy_docs_link: bool = False
    color: bool = False


def _text(report: Report, options: Options) -> Iterator[Piece]:
    from conforma.report import as_text

    return as_text.render(
        report,
        show_successes=options.show_successes,
        show_warnings=options.show_warnings,
        show_policy_docs_link=options.show_policy_docs_link,
        color=options.color,
    )


def _html(report: Report, options: Options) -> Iterator[Piece]:
    from conforma.report import as_html

    return as_html.render(
        report, show_successes=options.show_successes, show_warnings=options.show_warnings
    )


def _github(report: Report, options: Options) -> Iterator[Piece]:
    from conforma.report import as_github

    return as_github.render(report, show_warnings=options.show_warnings)


def _plain(module: str, name: str = "render") -> Callable[[Report, Options], Iterator[Piece]]:
    def renderer(report: Report, _: Options) -> Iterator[Piece]:
        # Each run needs one or two of the formats; all of them take 10 ms to import.
        render: Callable[[Report], Iterator[Piece]]
        render = getattr(import_module(f"conforma.report.{module}"), name)
        return render(report)

    return renderer


FORMATS: Final[Mapping[str, Callable[[Report, Options], Iterator[Piece]]]] = {
    "appstudio": _plain("as_appstudio"),
    "attestation": _plain("as_evidence", "render_attestations"),
    "github": _github,
    "hacbs": _plain("as_appstudio"),
    "html": _html,
    "json": _plain("as_json"),
    "junit": _plain("as_junit"),
    "policy-input": _plain("as_evidence", "render_policy_input"),
    "provenance": _plain("as_provenance"),
    "sarif": _plain("as_sarif"),
    "summary": _plain("as_summary"),
    "summary-markdown": _plain("as_summary", "render_markdown"),
    "text": _text,
    "vsa": _plain("as_vsa"),
    "yaml": _plain("as_yaml"),
}

DETAILED: Final = frozenset({"github", "html", "sarif"})


def render(report: Report, name: str, options: Options) -> Iterator[Piece]:
    """The report in the format called ``name`` (a key of ``FORMATS``), piece by piece."""
    return FORMATS[name](report, options)
