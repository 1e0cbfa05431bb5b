"""Which packages are evaluated and which results are kept (4.6 to 4.8, 4.11)."""

from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conforma.policy.rules import Rule, RuleBook
from conforma.policy.scoring import Applicable, Item, Subject
from conforma.policy.selection import FilterType, Selection, pipeline_intentions


def book(
    *rules: Rule, anonymous: tuple[Rule, ...] = (), packages: tuple[str, ...] = ()
) -> RuleBook:
    names = dict.fromkeys([*packages, *(rule.package for rule in (*rules, *anonymous))])
    return RuleBook(
        rules=MappingProxyType({rule.code: rule for rule in rules}),
        known=(*rules, *anonymous),
        decisive=MappingProxyType(dict.fromkeys(names, ("deny",))),
        paths=MappingProxyType({name: tuple(name.split(".")) for name in names}),
    )


def rule(code: str, package: str = "", **rest: tuple[str, ...]) -> Rule:
    return Rule(code, package or code.rpartition(".")[0], **rest)  # type: ignore[arg-type]


def selection(
    rules: RuleBook,
    include: tuple[str, ...] = ("*",),
    exclude: tuple[str, ...] = (),
    mode: FilterType = "include-exclude",
    intentions: frozenset[str] = frozenset(),
) -> Selection:
    items = Applicable.of(
        [Item(value, "config.include") for value in include],
        [Item(value, "config.exclude") for value in exclude],
    )
    return Selection(rules, items, mode, intentions)


def packages(rules: RuleBook, *args: tuple[str, ...]) -> tuple[str, ...]:
    chosen = selection(rules, *args).packages()
    assert not chosen.fallback
    return chosen.names


A, B, C = rule("a.one"), rule("a.two"), rule("b.one", collections=("minimal",))


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (("*",), (), ("a", "b")),
        (("a",), (), ("a",)),
        (("*",), ("a",), ("b",)),
        (("*",), ("a.one",), ("a", "b")),
        (("*",), ("a.one", "a.two"), ("b",)),
        (("@minimal",), (), ("b",)),
        (("a.two",), (), ("a",)),
        # A term cannot be known beforehand, so its package is evaluated.
        (("a.one:t",), (), ("a",)),
        (("a.one:t",), ("a",), ("a",)),
    ],
)
def test_a_package_is_evaluated_if_a_result_of_it_could_be_kept(
    include: tuple[str, ...], exclude: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert packages(book(A, B, C), include, exclude) == expected


def test_if_nothing_is_selected_everything_is_evaluated() -> None:
    chosen = selection(book(A, C), ("nothing",)).packages()
    assert chosen.names == ("a", "b")
    assert chosen.fallback


def test_packages_of_several_segments_are_evaluated() -> None:
    deep = book(rule("x.a.one"), rule("y.a.one"))
    assert packages(deep, ("*",)) == ("x.a", "y.a")
    assert packages(deep, ("a",)) == ("x.a", "y.a")
    assert packages(deep, ("*",), ("x.a",)) == ("y.a",)
    assert packages(deep, ("y.a.one",)) == ("y.a",)


def test_an_anonymous_rule_selects_its_own_package_and_the_one_its_code_names() -> None:
    rules = book(anonymous=(rule("other.name", package="main"),), packages=("other",))
    assert packages(rules, ("other",)) == ("other", "main")
    deep = book(anonymous=(rule("a.b.name", package="main"),), packages=("a", "a.b", "b"))
    assert packages(deep, ("*",)) == ("a", "a.b", "main")


def test_results_without_a_code_are_kept_whatever_the_items() -> None:
    decision = selection(book(A), ("nothing",), ("*",)).decide(Subject(""))
    assert decision.included
    assert decision.reason == "results without a code are always kept"


codes = st.sampled_from(["a.one", "a.two", "b.one", "x.a.one", "x.b.two"])
item_lists = st.lists(
    st.sampled_from(
        ["*", "a", "a.*", "b", "a.one", "b.one", "x.a", "x.a.one", "a:t", "a.one:t", "@m", "@n"]
    ),
    max_size=4,
).map(tuple)


@given(
    st.lists(codes, unique=True, min_size=1),
    item_lists,
    item_lists,
    st.lists(st.sampled_from(["t", "u"]), max_size=2).map(tuple),
    st.sampled_from([(), ("m",), ("m", "n")]),
    st.sampled_from(["include-exclude", "ec-policy"]),
)
def test_what_would_be_kept_is_evaluated(
    rules: list[str],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    terms: tuple[str, ...],
    collections: tuple[str, ...],
    mode: FilterType,
) -> None:
    known = book(*(rule(code, collections=collections) for code in rules))
    chosen = selection(known, include or ("*",), exclude, mode)
    for code in rules:
        if chosen.decide(Subject(code, terms, collections)).included:
            assert code.rpartition(".")[0] in chosen.packages().names


RELEASE = rule("a.release", pipeline_intention=("release", "production"))
STAGING = rule("a.staging", pipeline_intention=("staging",))
PLAIN = rule("b.plain")


@pytest.mark.parametrize(
    ("intentions", "kept"),
    [
        (frozenset({"release"}), {"a.release"}),
        (frozenset({"release", "staging"}), {"a.release", "a.staging"}),
        (frozenset(), {"b.plain", "c.unknown"}),
        (frozenset({"other"}), set()),
    ],
)
def test_ec_policy_mode_goes_by_pipeline_intention(
    intentions: frozenset[str], kept: set[str]
) -> None:
    chosen = selection(book(RELEASE, STAGING, PLAIN), mode="ec-policy", intentions=intentions)
    everything = ("a.release", "a.staging", "b.plain", "c.unknown")
    assert {code for code in everything if chosen.decide(Subject(code)).included} == kept


def test_ec_policy_mode_evaluates_packages_with_a_participating_rule() -> None:
    rules = book(RELEASE, STAGING, PLAIN)
    chosen = selection(rules, mode="ec-policy", intentions=frozenset({"staging"}))
    assert chosen.packages().names == ("a",)
    assert selection(rules, mode="ec-policy").packages().names == ("b",)


def test_ec_policy_mode_respects_terms() -> None:
    chosen = selection(book(PLAIN), exclude=("b.plain:t",), mode="ec-policy")
    assert not chosen.decide(Subject("b.plain", ("t",))).included
    assert chosen.decide(Subject("b.plain", ("u",))).included


def test_a_rule_left_out_by_intention_says_so() -> None:
    chosen = selection(book(STAGING), mode="ec-policy", intentions=frozenset({"release"}))
    decision = chosen.decide(Subject("a.staging"))
    assert decision.reason == "pipeline intention: release wanted, staging declared by the rule"


def test_include_exclude_mode_does_not_look_at_intentions() -> None:
    chosen = selection(book(STAGING), intentions=frozenset({"release"}))
    assert chosen.decide(Subject("a.staging")).included


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("release", {"release"}),
        (["release", 5, "staging"], {"release", "staging"}),
        (5, set()),
        (None, set()),
    ],
)
def test_the_configured_intention_is_a_string_or_a_list(value: object, expected: set[str]) -> None:
    assert pipeline_intentions({"pipeline_intention": value}) == expected
    assert pipeline_intentions(None) == frozenset()


@pytest.mark.parametrize(
    ("include", "examined", "unmatched"),
    [
        (("a", "nope"), [Subject("a.one")], ("nope",)),
        (("nope", "nope"), [Subject("a.one")], ("nope",)),
        (("a.one:t",), [Subject("a.one", ("t",))], ()),
        (("a.one:t",), [Subject("a.one", ("u",))], ("a.one:t",)),
        (("@minimal",), [Subject("a.one", collections=("minimal",))], ()),
        (("*",), [], ("*",)),
        (("*", "a"), [Subject("")], ("a",)),
    ],
)
def test_includes_that_match_nothing_are_told(
    include: tuple[str, ...], examined: list[Subject], unmatched: tuple[str, ...]
) -> None:
    assert selection(book(A), include).unmatched(examined) == unmatched


def test_an_excluded_result_still_matches_the_include() -> None:
    chosen = selection(book(A), ("a.one",), ("a.one",))
    assert not chosen.decide(Subject("a.one")).included
    assert chosen.unmatched([Subject("a.one")]) == ()


def test_component_items_are_not_tracked() -> None:
    items = Applicable.of([Item("nope", "volatileConfig.include", component="web")], [])
    assert Selection(book(A), items).unmatched([]) == ()


def test_ec_policy_mode_matches_includes_by_participating_rules() -> None:
    chosen = selection(book(STAGING, PLAIN), ("a", "b", "@x"), mode="ec-policy")
    assert chosen.unmatched([]) == ("a", "@x")
