"""Reports made by hand, the size and shape of those in the specification."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from conforma.errors import RegistryUnreachable
from conforma.findings import PolicyWarning, Success, Violation
from conforma.report.formats import Options, Piece, render
from conforma.validate.result import ComponentResult, Report
from conforma.validate.snapshot import Component

REF = "reg.example/shop/web@sha256:1111"
CREATED = datetime(2025, 7, 20, 12, 0, 0, 123456, tzinfo=UTC)

TERMS = Violation(
    "Fails always (term2)",
    {
        "code": "main.reject_with_term",
        "term": ["term2", "term3"],
        "title": "Reject with term rule",
        "description": "This rule will always fail. To exclude this rule add one or more of "
        '"main.reject_with_term:term2", "main.reject_with_term:term3" to the `exclude` section '
        "of the policy configuration.",
        "solution": "None",
    },
)
REJECTED = Violation(
    "Fails always",
    {
        "code": "main.rejector",
        "title": "Reject rule",
        "description": "This rule will always fail. To exclude this rule add "
        '"main.rejector" to the `exclude` section of the policy configuration.',
        "solution": "None",
    },
)
FUTURE = PolicyWarning(
    "Too old. This will become a failure starting on 2099-01-01T00:00:00Z",
    {"code": "main.future", "title": "Future rule"},
)
SIGNED = Success(
    "Pass",
    {
        "code": "builtin.image.signature_check",
        "title": "Image signature check passed",
        "description": "The image signature matches available signing materials.",
    },
)
ACCEPTED = Success(
    "Pass",
    {
        "code": "main.acceptor",
        "title": "Allow rule",
        "description": "This rule will never fail",
        "solution": "never shown",
    },
)


def component(name: str = "Unnamed", image: str = REF, **members: Any) -> ComponentResult:
    return ComponentResult(Component(name, image), image, **members)


def report(*components: ComponentResult, **members: Any) -> Report:
    values: dict[str, Any] = {
        "snapshot": "",
        "key": "",
        "policy": {},
        "version": "development",
        "effective_time": "2025-07-20T12:00:00Z",
        "created": CREATED,
    }
    return Report(components, **(values | members))


def full() -> Report:
    return report(
        component(violations=(TERMS, REJECTED), warnings=(FUTURE,), successes=(SIGNED, ACCEPTED)),
        show_successes=True,
    )


def undecided() -> Report:
    return report(
        component("web", successes=(SIGNED,)),
        component(
            "api",
            "reg.example/shop/api:1.0",
            error=RegistryUnreachable("reg.example/shop/api:1.0: did not answer", hint="try later"),
        ),
    )


def text_of(result: Report, name: str, **options: bool) -> str:
    return joined(render(result, name, Options(**options)))


def joined(pieces: Any) -> str:
    def text(piece: Piece) -> str:
        return piece.decode() if isinstance(piece, bytes) else piece

    return "".join(text(piece) for piece in pieces)


HOSTILE = [
    "\x1b[2J\x1b[31mgone\x07",
    "a\rb\nSuccess: true\x00",
    "<script>&'\"]]></failure>",
    "\u202etxt.exe\u2066 \u2028line\u0085",
    "- not: a list\n  #: {}\n",
    " leading\n\ttab\ntrailing \n",
    "yes",
    "no: ",
    "0x1f",
    "2020-01-01",
    "\ud800 half",
    "😀 \ufeff \x7f \x9b",
    "[link](javascript:alert(1)) | cell |",
    "x" * 1_000_000,
    "",
]
