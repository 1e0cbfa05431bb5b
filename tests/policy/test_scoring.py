"""What items match and how much they count (section 4.5), against a plain model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conforma.policy.scoring import Applicable, Item, Subject


def items(*values: str) -> tuple[Item, ...]:
    return tuple(Item(value, "config") for value in values)


def applicable(include: list[str], exclude: list[str]) -> Applicable:
    return Applicable.of(items(*include), items(*exclude))


def scores(include: list[str], exclude: list[str], subject: Subject) -> tuple[int, int]:
    decision = applicable(include, exclude).decide(subject)
    assert decision.included == (decision.include_score > decision.exclude_score)
    return decision.include_score, decision.exclude_score


@pytest.mark.parametrize(
    ("include", "exclude", "subject", "expected"),
    [
        # The worked examples of the specification.
        (["*"], ["pkg"], Subject("pkg.rule"), (1, 10)),
        (["@a", "@b"], ["pkg"], Subject("pkg.rule", collections=("a", "b")), (20, 10)),
        (["pkg"], ["pkg.rule"], Subject("pkg.rule"), (10, 110)),
        (["pkg.rule:t"], ["pkg.rule"], Subject("pkg.rule", ("t",)), (210, 110)),
        (["pkg.rule:t"], ["pkg.rule"], Subject("pkg.rule", ("u",)), (0, 110)),
        (["*"], ["pkg.rule:u"], Subject("pkg.rule", ("t", "u")), (1, 210)),
        # Every kind of item alone.
        (["pkg.*"], [], Subject("pkg.rule"), (10, 0)),
        (["pkg:t"], [], Subject("pkg.rule", ("t",)), (110, 0)),
        (["pkg.*:t"], [], Subject("pkg.rule", ("t",)), (110, 0)),
        # Items that never match.
        (["*:t", "*.rule", "pkg.", "rule", ":t"], [], Subject("pkg.rule", ("t",)), (0, 0)),
        (["Pkg", "pkg.RULE", " pkg"], [], Subject("pkg.rule"), (0, 0)),
        # A code without a package goes by the wildcard and its collections only.
        (["rule", "*", "@a"], [], Subject("rule", collections=("a",)), (11, 0)),
        (["*", ".rule"], [], Subject(".rule"), (1, 0)),
        # What stands twice counts twice.
        (["*", "*", "pkg"], ["pkg"], Subject("pkg.rule"), (12, 10)),
        (["pkg:t"], [], Subject("pkg.rule", ("t", "t")), (220, 0)),
        (["pkg:"], [], Subject("pkg.rule", ("",)), (0, 0)),
        # A term may hold a colon; the rest of the item is the term.
        (["pkg.rule:a:b"], [], Subject("pkg.rule", ("a:b",)), (210, 0)),
        # Longer packages: the last segment, and every longer end of the path.
        (["pkg"], ["a.pkg"], Subject("a.pkg.rule"), (10, 20)),
        (["pkg.rule"], ["a.pkg.*"], Subject("a.pkg.rule"), (110, 20)),
        (["a.pkg.rule"], ["pkg.rule"], Subject("a.pkg.rule"), (120, 110)),
        (["b.pkg", "b.pkg.rule", "a"], [], Subject("a.pkg.rule"), (0, 0)),
        (["z.a.pkg.rule:t"], [], Subject("z.a.pkg.rule", ("t",)), (230, 0)),
    ],
)
def test_scores(
    include: list[str], exclude: list[str], subject: Subject, expected: tuple[int, int]
) -> None:
    assert scores(include, exclude, subject) == expected


def test_a_tie_excludes() -> None:
    assert not applicable(["pkg"], ["pkg"]).decide(Subject("pkg.rule")).included
    assert not applicable([], []).decide(Subject("pkg.rule")).included


def test_a_decision_names_the_items_behind_it() -> None:
    include, exclude = items("*")[0], Item("pkg", "volatileConfig.exclude", component="web")
    decision = Applicable.of([include], [exclude]).decide(Subject("pkg.rule"))
    assert [(match.item, match.score) for match in decision.include] == [(include, 1)]
    assert [(match.item, match.score) for match in decision.exclude] == [(exclude, 10)]


# A slow model that follows the words of the specification, item by item.


def model_score(item: str, subject: Subject) -> int:
    if item == "*":
        return 1
    if item.startswith("@"):
        return 10 * subject.collections.count(item[1:])
    name, colon, term = item.partition(":")
    times = subject.terms.count(term) if term else 1
    if colon and not term:
        return 0
    *package, rule = subject.code.split(".")
    if not package or not package[-1]:
        return 0
    score = 0
    for length in range(1, len(package) + 1):
        end = ".".join(package[len(package) - length :])
        extra = 100 if term else 0
        if name == end:
            score += times * (10 * length + extra)
        if name == end + ".*":
            score += times * (10 * length + extra)
        if name == end + "." + rule:
            score += times * (10 * length + 100 + extra)
    return score


words = st.sampled_from(["a", "b", "pkg", "rule"])
codes = st.lists(words, min_size=1, max_size=4).map(".".join)
terms = st.lists(st.sampled_from(["t", "u", "a", "t:u", ""]), max_size=3).map(tuple)
patterns = st.one_of(
    st.just("*"),
    words.map("@{}".format),
    codes,
    st.builds("{}.*".format, codes),
    st.builds("{}:{}".format, codes, st.sampled_from(["t", "u", "t:u", ""])),
    st.builds("{}.*:{}".format, codes, st.sampled_from(["t", "u"])),
    st.sampled_from(["*:t", "*.rule", "pkg.", ""]),
)
subjects = st.builds(Subject, codes, terms, st.lists(words, max_size=3).map(tuple))


@given(st.lists(patterns, max_size=5), st.lists(patterns, max_size=5), subjects)
def test_scores_agree_with_the_model(
    include: list[str], exclude: list[str], subject: Subject
) -> None:
    assert scores(include, exclude, subject) == (
        sum(model_score(item, subject) for item in include),
        sum(model_score(item, subject) for item in exclude),
    )


@given(st.lists(patterns, max_size=4), st.lists(patterns, max_size=4), subjects)
def test_a_rule_that_could_be_included_is_never_overlooked(
    include: list[str], exclude: list[str], subject: Subject
) -> None:
    chosen = applicable(include, exclude)
    if chosen.decide(subject).included:
        assert chosen.could_include(Subject(subject.code, collections=subject.collections))
