"""Which items apply to which component at which moment (section 4.5)."""

import logging
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conforma.oci.reference import Reference
from conforma.policy.criteria import Criteria
from conforma.policy.scoring import Item
from conforma.policy.source_group import Criterion, Patterns, SourceGroup, Volatile

DIGEST = "sha256:" + "1" * 64
IMAGE = Reference.parse(f"reg.example/shop/web@{DIGEST}")
NOON = datetime(2025, 7, 20, 12, tzinfo=UTC)


def applied(
    group: SourceGroup,
    *,
    configuration: Patterns | None = None,
    image: Reference = IMAGE,
    component: str = "web",
    moment: datetime = NOON,
) -> tuple[list[str], list[str]]:
    found = Criteria.of(group, configuration).applicable(image, component, moment)
    return [item.value for item in found.include], [item.value for item in found.exclude]


def volatile(*exclude: Criterion, include: tuple[Criterion, ...] = ()) -> SourceGroup:
    return SourceGroup(volatile=Volatile(include=include, exclude=exclude))


def test_without_items_everything_is_included() -> None:
    assert applied(SourceGroup()) == (["*"], [])


def test_an_exclude_alone_leaves_the_default_include() -> None:
    assert applied(SourceGroup(config=Patterns(exclude=("a",)))) == (["*"], ["a"])


def test_the_global_configuration_counts_only_without_own_items() -> None:
    configuration = Patterns(include=("x",), exclude=("y",), collections=("minimal",))
    assert applied(SourceGroup(), configuration=configuration) == (["x", "@minimal"], ["y"])
    own = SourceGroup(config=Patterns(exclude=("a",)))
    assert applied(own, configuration=configuration) == (["*"], ["a"])


@pytest.mark.parametrize(
    ("entry", "applies"),
    [
        (Criterion("v"), True),
        (Criterion("v", image_ref=DIGEST), True),
        (Criterion("v", image_digest=DIGEST), True),
        (Criterion("v", image_url="reg.example/shop/web"), True),
        (Criterion("v", image_url="reg.example/shop/web:1.0"), False),
        (Criterion("v", image_url="reg.example/shop"), False),
        (Criterion("v", image_digest="sha256:" + "2" * 64), False),
        (Criterion("v", component_names=("web",)), True),
        (Criterion("v", component_names=("api", "web")), True),
        (Criterion("v", component_names=("api",)), False),
        (Criterion("v", component_names=("",)), False),
        # The first scope that is set decides: reference, address, digest, components.
        (Criterion("v", image_ref="sha256:" + "2" * 64, image_url="reg.example/shop/web"), False),
        (Criterion("v", image_url="reg.example/other", image_digest=DIGEST), False),
        (Criterion("v", image_digest="sha256:" + "2" * 64, component_names=("web",)), False),
    ],
)
def test_scopes_of_volatile_items(entry: Criterion, applies: bool) -> None:
    assert applied(volatile(entry)) == (["*"], ["v"] if applies else [])


def test_a_short_reference_is_known_by_its_full_name() -> None:
    entry = Criterion("v", image_url="index.docker.io/library/alpine")
    image = Reference.parse(f"alpine@{DIGEST}")
    assert applied(volatile(entry), image=image)[1] == ["v"]


@pytest.mark.parametrize(
    ("component", "applies"),
    [
        (f"web-{DIGEST}-arm64", True),
        (f"web-{DIGEST}-noarch-0", True),
        (f"api-{DIGEST}-arm64", False),
        ("web-sha256:12-arm64", False),
        (f"web-{DIGEST}-", False),
        (f"web-{DIGEST}-arm 64", False),
        ("web-arm64", False),
    ],
)
def test_children_of_an_index_answer_to_its_component_name(component: str, applies: bool) -> None:
    entry = Criterion("v", component_names=("web",))
    assert applied(volatile(entry), component=component)[1] == (["v"] if applies else [])


def test_an_include_for_one_image_leaves_the_default_to_the_others() -> None:
    group = volatile(include=(Criterion("only", image_digest=DIGEST),))
    assert applied(group)[0] == ["only"]
    other = Reference.parse("reg.example/shop/api@sha256:" + "2" * 64)
    assert applied(group, image=other)[0] == ["*"]


SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("since", "until", "moment", "active"),
    [
        ("", "", NOON, True),
        ("2025-07-20T12:00:00Z", "", NOON, True),
        ("2025-07-20T12:00:00Z", "", NOON - SECOND, False),
        ("", "2025-07-20T12:00:00Z", NOON, True),
        ("", "2025-07-20T12:00:00Z", NOON + SECOND, False),
        ("2025-07-20", "2025-07-20", NOON, False),
        ("2025-07-20", "2025-07-21", NOON, True),
        ("2025-07-20T14:00:00+02:00", "2025-07-20T14:00:00+02:00", NOON, True),
    ],
)
def test_both_ends_of_a_window_belong_to_it(
    since: str, until: str, moment: datetime, active: bool
) -> None:
    group = volatile(Criterion("v", effective_on=since, effective_until=until))
    assert applied(group, moment=moment)[1] == (["v"] if active else [])


def test_an_unreadable_date_leaves_the_entry_out_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    group = volatile(Criterion("v", effective_until="next year"), Criterion("w"))
    with caplog.at_level(logging.WARNING):
        assert applied(group)[1] == ["w"]
    assert caplog.messages == [
        'skipping volatile criteria "v": unable to parse "next year" as RFC3339 or 2006-01-02'
    ]


def test_each_item_knows_where_it_stands() -> None:
    group = SourceGroup(
        config=Patterns(include=("a",)),
        volatile=Volatile(exclude=(Criterion("b", component_names=("web",)),)),
    )
    found = Criteria.of(group, None).applicable(IMAGE, "web", NOON)
    assert found.include == (Item("a", "config.include"),)
    assert found.exclude == (Item("b", "volatileConfig.exclude", component="web"),)


# A slow model: each entry alone, in the words of the specification.

entries = st.builds(
    Criterion,
    st.sampled_from(["p", "q"]),
    effective_on=st.sampled_from(["", "2025-07-20", "2025-07-21"]),
    effective_until=st.sampled_from(["", "2025-07-19", "2025-07-21"]),
    image_ref=st.sampled_from(["", "", DIGEST]),
    image_digest=st.sampled_from(["", "", DIGEST, "sha256:" + "2" * 64]),
    image_url=st.sampled_from(["", "", "reg.example/shop/web", "reg.example/shop/api"]),
    component_names=st.lists(st.sampled_from(["web", "api"]), max_size=2).map(tuple),
)


def model_items(entry: Criterion, moment: datetime, image: Reference, component: str) -> list[str]:
    day = moment.strftime("%Y-%m-%dT%H:%M:%S")
    if entry.effective_on and f"{entry.effective_on}T00:00:00" > day:
        return []
    if entry.effective_until and f"{entry.effective_until}T00:00:00" < day:
        return []
    for scope in (entry.image_ref, entry.image_url, entry.image_digest):
        if scope:
            return [entry.value] * (scope in {image.repository_name, str(image.digest)})
    if entry.component_names:
        return [entry.value] * entry.component_names.count(component.split("-")[0])
    return [entry.value]


@given(
    st.lists(entries, max_size=4),
    st.lists(entries, max_size=4),
    st.lists(st.sampled_from(["a", "b"]), max_size=2),
    st.sampled_from(["2025-07-19", "2025-07-20", "2025-07-21", "2025-07-22"]),
    st.sampled_from(["web", "api", f"web-{DIGEST}-amd64"]),
)
def test_items_agree_with_the_model(
    include: list[Criterion],
    exclude: list[Criterion],
    always: list[str],
    day: str,
    component: str,
) -> None:
    moment = datetime.fromisoformat(day).replace(tzinfo=UTC)
    group = SourceGroup(
        config=Patterns(include=tuple(always)),
        volatile=Volatile(include=tuple(include), exclude=tuple(exclude)),
    )

    def model(volatile_entries: list[Criterion]) -> list[str]:
        found = (model_items(entry, moment, IMAGE, component) for entry in volatile_entries)
        return [value for values in found for value in values]

    found_include, found_exclude = applied(group, moment=moment, component=component)
    assert found_include == ([*always, *model(include)] or ["*"])
    assert found_exclude == model(exclude)
