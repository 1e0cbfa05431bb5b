"""Annotations for GitHub Actions: the order, the words, and what is left out."""

from __future__ import annotations

from conforma.findings import Violation
from tests.report.samples import FUTURE, component, full, report, text_of, undecided


def test_the_totals_come_first_then_violations_then_warnings() -> None:
    assert text_of(full(), "github") == (
        "::notice title=conforma%3A FAILURE::Violations: 2, Warnings: 1, Successes: 2\n"
        "::error title=Reject with term rule (main.reject_with_term)::Fails always (term2)"
        "%0AComponent Unnamed, image reg.example/shop/web@sha256:1111%0ASolution: None\n"
        "::error title=Reject rule (main.rejector)::Fails always"
        "%0AComponent Unnamed, image reg.example/shop/web@sha256:1111%0ASolution: None\n"
        "::warning title=Future rule (main.future)::Too old. This will become a failure starting "
        "on 2099-01-01T00:00:00Z%0AComponent Unnamed, image reg.example/shop/web@sha256:1111\n"
    )


def test_warnings_can_be_left_out() -> None:
    shown = text_of(report(component(warnings=(FUTURE,))), "github", show_warnings=False)
    assert shown == (
        "::notice title=conforma%3A WARNING::Violations: 0, Warnings: 1, Successes: 0\n"
    )


def test_what_could_not_be_decided_is_an_error() -> None:
    totals, error, end = text_of(undecided(), "github").split("\n")
    assert totals.endswith("::Undecided: 1, Violations: 0, Warnings: 0, Successes: 1")
    assert error == (
        "::error title=Could not be decided%3A api::Component api, image reg.example/shop/api:1.0"
        "%0Areg.example/shop/api:1.0: did not answer%0Atry later"
    )
    assert end == ""


def test_a_title_escapes_what_ends_a_property() -> None:
    title = {"code": "a.b", "title": "one, two: 100%\r\n::error::three"}
    shown = text_of(report(component(violations=(Violation("m", title),))), "github")
    assert "::error title=one%2C two%3A 100%25\\x0d%0A%3A%3Aerror%3A%3Athree (a.b)::m%0A" in shown


def test_a_long_message_leaves_room_for_component_and_solution() -> None:
    long = Violation("m" * 100_000, {"code": "a.b", "solution": "Mend it."})
    shown = text_of(report(component(violations=(long,))), "github")
    assert "…%0AComponent Unnamed, image" in shown
    assert shown.endswith("Solution: Mend it.\n")
    assert len(shown) < 4500
