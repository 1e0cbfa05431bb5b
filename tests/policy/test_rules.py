"""What rules say about themselves: codes, texts, shapes (section 4.1)."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from conforma.errors import PolicyError
from conforma.policy.rego.annotations import AnnotatedRule, Annotations
from conforma.policy.rules import RuleBook, exception_name, linked_text, plain_text, rule_kind

SOURCE = Path("source")


def block(
    row: int = 1, scope: str = "rule", file: str = "main.rego", **content: Any
) -> Annotations:
    return Annotations(
        file=file,
        row=row,
        path=("main", "deny"),
        of_rule=scope in {"rule", "document"},
        scope=scope,
        content=content or None,
    )


def rule(
    *chain: Annotations,
    package: str = "main",
    name: str = "deny",
    shape: str = "var",
    text: str = "",
    code: str = "",
    directory: Path = SOURCE,
    row: int = 5,
) -> AnnotatedRule:
    return AnnotatedRule(
        directory=directory,
        file="main.rego",
        row=row,
        column=1,
        package=tuple(package.split(".")),
        name=name,
        path=(*package.split("."), name),
        shape=shape,
        text=text,
        code=code,
        chain=chain or (block(row=row),),
    )


def test_an_annotation_with_a_short_name_makes_a_coded_rule() -> None:
    book = RuleBook.of(
        [
            rule(
                block(
                    title="Signed",
                    description="See xref:foo.adoc[the docs].",
                    custom={
                        "short_name": "signed",
                        "solution": "Read xref:policy:ROOT:signing.adoc#_how[signing].",
                        "effective_on": "2024-01-01T00:00:00Z",
                        "collections": ["minimal", 5, "redhat"],
                        "depends_on": ["main.present", 7],
                        "pipeline_intention": ["release"],
                    },
                ),
                package="a.main",
            )
        ]
    )
    found = book.rules["a.main.signed"]
    assert found.package == "a.main"
    assert found.title == "Signed"
    assert found.description == "See the docs."
    assert found.effective_on == "2024-01-01T00:00:00Z"
    assert found.collections == ("minimal", "redhat")
    assert found.depends_on == ("main.present", "7")
    assert found.pipeline_intention == ("release",)
    assert book.known == (found,)
    assert book.decisive == {"a.main": ("deny",)}
    assert book.packages == ("a.main",)


@pytest.mark.parametrize(
    ("text", "label", "address"),
    [
        (
            "Read xref:policy:ROOT:release_policy.adoc#tasks[Tasks] now",
            "Read Tasks now",
            "Read https://conforma.dev/docs/policy/release_policy.html#tasks now",
        ),
        ("See xref:foo.bar[the docs].", "See the docs.", "See xref:foo.bar[the docs]."),
        (
            "xref:policy:ROOT:page.adoc[no anchor]",
            "no anchor",
            "xref:policy:ROOT:page.adoc[no anchor]",
        ),
        ("no reference [here]", "no reference [here]", "no reference [here]"),
    ],
)
def test_cross_references_become_labels_or_addresses(text: str, label: str, address: str) -> None:
    assert plain_text(text) == label
    assert linked_text(text) == address


def test_a_solution_shows_addresses() -> None:
    solution = "Use xref:policy:ROOT:a.adoc#b[this] or xref:c.adoc#d[that]."
    book = RuleBook.of([rule(block(custom={"short_name": "x", "solution": solution}))])
    assert book.rules["main.x"].solution == "Use https://conforma.dev/docs/policy/a.html#b or that."


def test_one_dependency_may_be_written_without_a_list() -> None:
    book = RuleBook.of([rule(block(custom={"short_name": "x", "depends_on": "main.y"}))])
    assert book.rules["main.x"].depends_on == ("main.y",)


def test_two_rules_with_one_code_are_an_error_that_names_both_places() -> None:
    first = rule(block(row=3, custom={"short_name": "x"}))
    second = rule(block(row=9, custom={"short_name": "x"}))
    with pytest.raises(
        PolicyError, match=r"^found a second rule with the same code: `main\.x`$"
    ) as e:
        RuleBook.of([first, second])
    assert e.value.hint == "see main.rego:3 and main.rego:9"


def test_the_same_file_in_two_sources_is_a_second_rule() -> None:
    found = [
        rule(block(custom={"short_name": "x"}), directory=Path(name)) for name in ("one", "two")
    ]
    with pytest.raises(PolicyError, match=r"`main\.x`"):
        RuleBook.of(found)


def test_one_block_over_several_rules_is_one_rule() -> None:
    document = block(row=3, scope="document", custom={"short_name": "x"})
    book = RuleBook.of([rule(block(row=5), document, row=5), rule(block(row=8), document, row=8)])
    assert list(book.rules) == ["main.x"]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (rule(), "main.deny"),
        (rule(code="other.name"), "other.name"),
        (rule(package="a.b", name="warn_late"), "a.b.warn_late"),
        (rule(block(title="annotated, but nameless")), "main.deny"),
    ],
)
def test_rules_without_a_name_take_part_in_package_selection_only(
    given: AnnotatedRule, code: str
) -> None:
    book = RuleBook.of([given])
    assert book.rules == {}
    assert [(known.code, known.package) for known in book.known] == [
        (code, ".".join(given.package))
    ]


def test_helpers_count_only_when_they_are_annotated() -> None:
    helper = rule(name="helper", shape="boolean", package="lib")
    named = rule(block(custom={"short_name": "h"}), name="named", package="lib")
    book = RuleBook.of([helper, named])
    assert list(book.rules) == ["lib.h"]
    assert book.decisive == {"lib": ()}


@pytest.mark.parametrize(
    "given",
    [
        rule(shape="boolean", text="deny = true if { true }"),
        rule(block(title="x"), name="helper", shape="number", text="helper := 4"),
        rule(shape="array", text='deny := ["a\\n"]\nelse := 1'),
    ],
)
def test_a_rule_that_cannot_yield_a_result_is_refused(given: AnnotatedRule) -> None:
    with pytest.raises(PolicyError) as error:
        RuleBook.of([given])
    assert error.value.message == (
        f"the rule {json.dumps(given.text)} returns an unsupported value, at main.rego:5"
    )


def test_helpers_under_a_package_annotation_may_yield_anything() -> None:
    book = RuleBook.of([rule(block(), block(scope="package", title="x"), name="h", shape="set")])
    assert book.rules == {}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("deny", "failure"),
        ("deny_late", "failure"),
        ("violation", "failure"),
        ("violation_a_B2", "failure"),
        ("warn", "warning"),
        ("warn_x", "warning"),
        ("denyx", None),
        ("deny_", None),
        ("deny__x", None),
        ("warning", None),
        ("exception", None),
        ("deny_é", None),
    ],
)
def test_names_of_rules_that_decide(name: str, kind: str | None) -> None:
    assert rule_kind(name) == kind


@pytest.mark.parametrize(
    ("name", "excepted"),
    [("deny", ""), ("warn", ""), ("violation_x_y", "x_y"), ("deny_deny_x", "deny_x")],
)
def test_exceptions_leave_the_prefix_out(name: str, excepted: str) -> None:
    assert exception_name(name) == excepted


@pytest.mark.parametrize("name", ["deny.x", "violation_a.b.c", "warn.x"])
def test_a_rule_below_a_deciding_name_is_refused(name: str) -> None:
    path = ("main", *name.split("."))
    with pytest.raises(PolicyError, match=r"would never be asked for, at main\.rego:5"):
        RuleBook.of([replace(rule(name="", shape="string"), path=path)])
    RuleBook.of([replace(rule(name="", shape="string"), path=("main", "lib", "deny"))])
