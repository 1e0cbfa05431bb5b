"""Snapshots: how they are read, merged and refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from conforma.errors import BadSnapshot
from conforma.validate.snapshot import (
    Component,
    Snapshot,
    check,
    from_file,
    from_image,
    from_path_or_text,
    merge,
    parse,
)

GIT = {"git": {"url": "https://git.example/web", "revision": "abc"}}


def snapshot(*components: tuple[str, str], **members: object) -> Snapshot:
    return Snapshot(tuple(Component(*c) for c in components), **members)  # type: ignore[arg-type]


def test_reads_a_bare_specification_and_a_cluster_record() -> None:
    text = """
    application: shop
    displayName: Shop
    components:
    - name: web
      containerImage: reg.example/web:1
      source: {git: {url: https://git.example/web, revision: abc, other: dropped}}
    - ContainerImage: reg.example/api:1
    artifacts: {unstableFields: [1, {a: b}]}
    """
    expected = Snapshot(
        (Component("web", "reg.example/web:1", GIT), Component("", "reg.example/api:1")),
        application="shop",
        display_name="Shop",
        artifacts={"unstableFields": [1, {"a": "b"}]},
    )
    assert parse(text) == expected
    record = "kind: Snapshot\nspec:" + text.replace("\n", "\n  ")
    assert parse(record) == expected


def test_prints_fields_in_the_order_of_the_policy_input() -> None:
    assert list(snapshot(("a", "b"), display_name="d").as_dict()) == [
        "application", "displayName", "components", "artifacts",
    ]  # fmt: skip
    assert Snapshot().as_dict() == {"application": "", "artifacts": {}}
    assert Component("a", "b").as_dict() == {"name": "a", "containerImage": "b", "source": {}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            '{"invalid": "json""}',
            "error converting YAML to JSON: yaml: found unexpected end of stream",
        ),
        ("[]", "the document must be an object, not a list"),
        ("components: {}", "components in the document must be a list, not an object"),
        ("components: [1]", "components[0] must be an object, not a number"),
        ("components: [{name: 1}]", "name in components[0] must be text, not a number"),
        ("components: [{source: x}]", "source must be an object, not text"),
        (
            "components: [{containerImage: bad, containerimage: good}]",
            "components[0] has the field containerimage in two spellings",
        ),
        ("{components: [], Components: []}", "the document has the field components in two"),
    ],
)
def test_refuses_what_is_no_snapshot(text: str, reason: str) -> None:
    with pytest.raises(BadSnapshot) as caught:
        parse(text)
    start = f"unable to parse Snapshot specification from {text}: "
    assert caught.value.message.startswith(start)
    assert reason in caught.value.message


def test_a_mistyped_file_name_is_pointed_out(tmp_path: Path) -> None:
    missing = tmp_path / "snapshto.yaml"
    with pytest.raises(BadSnapshot) as caught:
        from_path_or_text(str(missing))
    assert caught.value.hint == (
        f"taken as a file, {missing} could not be read: No such file or directory"
    )
    with pytest.raises(BadSnapshot) as caught:
        from_file(str(missing))
    assert caught.value.message == f"open {missing}: no such file or directory"
    missing.write_text("components: [{name: a, containerImage: b}]")
    assert from_path_or_text(str(missing)) == from_file(str(missing)) == snapshot(("a", "b"))


def test_the_first_to_speak_about_itself_wins() -> None:
    merged = merge(
        [
            snapshot(application="first"),
            snapshot(application="second", display_name="name", artifacts={"unstableFields": 1}),
        ]
    )
    assert (merged.application, merged.display_name) == ("first", "name")
    assert merged.artifacts == {"unstableFields": 1}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([("a", "i"), ("a", "i")], [("a", "i")]),
        ([("", "i"), ("a", "i")], [("a", "i")]),
        ([("Unnamed", "i"), ("a", "i")], [("a", "i")]),
        ([("a", "i"), ("Unnamed", "i")], [("a", "i")]),
        ([("", "i"), ("Unnamed", "i")], [("Unnamed", "i")]),
        ([("Unnamed", "i"), ("", "i")], [("Unnamed", "i")]),
        ([("a", "i"), ("", "i")], [("a", "i")]),
        ([("a", "i"), ("b", "i")], [("a", "i"), ("b", "i")]),
        ([("a", "i"), ("b", "i"), ("a", "i")], [("a", "i"), ("b", "i")]),
        ([("a", "i"), ("b", "j")], [("a", "i"), ("b", "j")]),
    ],
)
def test_an_image_under_a_second_name_is_a_second_component(
    given: list[tuple[str, str]], expected: list[tuple[str, str]]
) -> None:
    assert merge([snapshot(*given)]) == snapshot(*expected)
    assert merge([snapshot(c) for c in given]) == snapshot(*expected)


def test_a_name_brings_its_source_along() -> None:
    named = Snapshot((Component("web", "i", GIT),))
    assert merge([from_image("i"), named]).components == named.components


def test_a_snapshot_without_components_is_refused() -> None:
    with pytest.raises(BadSnapshot, match="no components"):
        check(parse("components: []"))


def test_one_name_for_two_images_is_refused() -> None:
    with pytest.raises(BadSnapshot, match='two components named "web": i and j'):
        check(snapshot(("web", "i"), ("web", "j")))
    nameless = snapshot(("", "i"), ("", "j"), ("Unnamed", "k"), ("Unnamed", "l"))
    assert check(nameless) is nameless
