"""``attestation`` and ``policy-input``: what the verdict was based on (specification 7.9, 7.10)."""

from __future__ import annotations

from collections.abc import Iterator

from conforma.validate.result import Report


def render_attestations(report: Report) -> Iterator[bytes]:
    """The statements of all components exactly as signed, one a line."""
    separator = b""
    for result in report.components:
        for statement in result.statements:
            yield separator + statement
            separator = b"\n"


def render_policy_input(report: Report) -> Iterator[bytes]:
    """The document each component was judged by, one a line; empty if it was not judged by rules."""
    separator = b""
    for result in report.components:
        yield separator + result.policy_input
        separator = b"\n"
