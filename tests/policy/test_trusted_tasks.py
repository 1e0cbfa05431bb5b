"""The document of trusted tasks: a document in, a document out."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import yaml

from conforma import yamljson
from conforma.errors import BadReference, InputError
from conforma.policy.task_references import TaskBundle, TaskFile
from conforma.policy.trusted_tasks import Addition, Record, TrustedTasks

NOW = datetime(2026, 3, 10, 9, 30, tzinfo=UTC)
DIGEST = f"sha256:{'0' * 64}"


def settled(
    *records: tuple[str, str], new: str = "", prune: bool = True, days: int = 60
) -> list[tuple[str, str]]:
    """The group ``g`` afterwards, as pairs of ref and expiry."""
    tasks = TrustedTasks({"g": tuple(Record(ref, date) for ref, date in records)})
    done = tasks.with_new([Addition("g", new)] if new else []).settled(
        NOW, prune=prune, in_effect_days=days
    )
    return [(record.ref, record.expires_on) for record in done.groups.get("g", ())]


PAST, AT_NOW, FUTURE = "2026-03-10T09:29:59Z", "2026-03-10T10:30:00+01:00", "2026-03-10T09:30:01Z"
IN_60_DAYS = "2026-05-09T00:00:00Z"


@pytest.mark.parametrize(
    ("before", "new", "after"),
    [
        ([], "a", [("a", "")]),
        ([("a", "")], "b", [("b", ""), ("a", IN_60_DAYS)]),
        ([("a", "")], "a", [("a", "")]),
        ([("a", FUTURE)], "a", [("a", "")]),
        ([("b", ""), ("a", FUTURE)], "c", [("c", ""), ("b", IN_60_DAYS), ("a", FUTURE)]),
        ([("b", ""), ("a", FUTURE)], "a", [("a", ""), ("b", IN_60_DAYS), ("a", FUTURE)]),
        ([("a", ""), ("a", FUTURE), ("a", IN_60_DAYS)], "", [("a", "")]),
        ([("b", ""), ("a", PAST)], "", [("b", "")]),
        ([("b", ""), ("a", AT_NOW)], "", [("b", "")]),
        ([("b", ""), ("a", FUTURE)], "", [("b", ""), ("a", FUTURE)]),
        ([("b", PAST), ("a", FUTURE)], "", [("a", "")]),
        ([("a", PAST)], "", []),
    ],
)
def test_what_becomes_of_a_group(
    before: list[tuple[str, str]], new: str, after: list[tuple[str, str]]
) -> None:
    assert settled(*before, new=new) == after


def test_of_repetitions_the_date_of_the_oldest_stays() -> None:
    early, late = "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z"
    assert settled(("b", ""), ("a", late), ("a", early)) == [("b", ""), ("a", early)]


def test_without_pruning_what_has_expired_stays() -> None:
    assert settled(("b", ""), ("a", PAST), prune=False) == [("b", ""), ("a", PAST)]


@pytest.mark.parametrize(
    ("now", "days", "expiry"),
    [
        ("2026-03-10T00:00:00", 60, "2026-05-09T00:00:00Z"),
        ("2026-03-10T11:59:59.999999", 60, "2026-05-09T00:00:00Z"),
        ("2026-03-10T12:00:00", 60, "2026-05-10T00:00:00Z"),
        ("2026-12-31T23:00:00", 0, "2027-01-01T00:00:00Z"),
        ("2028-02-28T01:00:00", 1, "2028-02-29T00:00:00Z"),
    ],
)
def test_the_expiry_counts_from_the_nearest_midnight(now: str, days: int, expiry: str) -> None:
    tasks = TrustedTasks({"g": (Record("b"), Record("a"))})
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
    done = tasks.settled(moment, prune=True, in_effect_days=days)
    assert done.groups["g"][1].expires_on == expiry


@pytest.mark.parametrize("days", [-1, 3_000_000, 1 << 62])
def test_days_no_calendar_has_are_refused(days: int) -> None:
    with pytest.raises(InputError, match=f"--in-effect-days: {days} "):
        settled(("a", ""), days=days)


def test_the_last_addition_is_the_newest() -> None:
    tasks = TrustedTasks().with_new([Addition("g", "a"), Addition("h", "x"), Addition("g", "b")])
    assert [record.ref for record in tasks.groups["g"]] == ["b", "a"]
    assert [record.ref for record in tasks.groups["h"]] == ["x"]


def test_the_document_is_written_as_the_go_tool_writes_it() -> None:
    tasks = TrustedTasks(
        {
            "oci://r.example/b:1": (Record(DIGEST), Record("old", "2026-04-01T00:00:00Z")),
            "git+https://r.example/a//t.yaml": (Record("f0cacc1a"),),
        }
    )
    assert tasks.render().decode() == (
        "---\n"
        "trusted_tasks:\n"
        "  git+https://r.example/a//t.yaml:\n"
        "    - ref: f0cacc1a\n"
        "  oci://r.example/b:1:\n"
        f"    - ref: {DIGEST}\n"
        '    - expires_on: "2026-04-01T00:00:00Z"\n'
        "      ref: old\n"
    )


def test_a_document_without_anything_is_an_empty_mapping() -> None:
    assert TrustedTasks().render() == b"---\n{}\n"
    assert TrustedTasks.parse(b"", "f") == TrustedTasks.parse(b"---\n{}\n", "f") == TrustedTasks()


@pytest.mark.parametrize(
    "ref", ["3672e45", "1234567", "0x12", "0o17", "010", "12:30", "yes", "null", "~", "1.5", "a: b"]
)
def test_a_ref_that_looks_like_something_else_stays_text(ref: str) -> None:
    raw = TrustedTasks({ref: (Record(ref),)}).render()
    assert f'    - ref: "{ref}"\n' in raw.decode()
    for read in (yaml.safe_load, yamljson.parse):
        assert read(raw) == {"trusted_tasks": {ref: [{"ref": ref}]}}


def test_long_names_survive() -> None:
    tasks = TrustedTasks({f"oci://r.example/{'n' * 250}:{'t' * 100}": (Record(DIGEST),)})
    assert TrustedTasks.parse(tasks.render(), "f") == tasks


def test_what_is_not_ours_stays() -> None:
    text = b"other: {b: [1, true, null]}\ntrusted_tasks:\n  g:\n    - {ref: a, note: why}\n"
    tasks = TrustedTasks.parse(text, "f").with_new([Addition("g", "b")])
    found = yaml.safe_load(tasks.settled(NOW, prune=True, in_effect_days=60).render())
    assert found == {
        "other": {"b": [1, True, None]},
        "trusted_tasks": {
            "g": [{"ref": "b"}, {"ref": "a", "note": "why", "expires_on": IN_60_DAYS}]
        },
    }


def test_a_group_the_go_tool_left_empty_is_read() -> None:
    assert TrustedTasks.parse(b"trusted_tasks:\n  g: null\n", "f").groups == {"g": ()}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [", "f: error converting YAML to JSON: yaml: "),
        ("- a", "f: it is no mapping"),
        ("a: 1\n---\nb: 1", "f: error converting YAML to JSON: yaml: "),
        ("trusted_tasks: [a]", "f: trusted_tasks is no mapping"),
        ("trusted_tasks: {g: a}", "f: trusted_tasks: g: it is no list"),
        ("trusted_tasks: {g: [a]}", "f: trusted_tasks: g: an entry has no ref that is text"),
        ("trusted_tasks: {g: [{ref: 123}]}", "f: trusted_tasks: g: an entry has no ref that is"),
        ("trusted_tasks: {g: [{ref: a, expires_on: soon}]}", 'f: trusted_tasks: g: expires_on of "a'),
        ("trusted_tasks: {g: [{ref: a, expires_on: 20}]}", 'f: trusted_tasks: g: expires_on of "a'),
    ],
)  # fmt: skip
def test_a_broken_document_is_named_with_its_fault(text: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        TrustedTasks.parse(text.encode(), "f")
    assert caught.value.message.startswith(reason)


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("r.example/t/b:1", "oci://r.example/t/b:1"),
        (f"r.example/t/b:1@{DIGEST}", "oci://r.example/t/b:1"),
        (f"r.example/t/b@{DIGEST}", "oci://r.example/t/b"),
        ("localhost:5000/b:1", "oci://localhost:5000/b:1"),
        ("docker.io/t/b:1", "oci://index.docker.io/t/b:1"),
    ],
)
def test_bundles_are_filed_under_their_whole_name(text: str, group: str) -> None:
    assert TaskBundle.parse(text).group == group


@pytest.mark.parametrize(
    "text", ["r.example/t/b", "t/b:1", "b", "docker.io/b:1", "oci:layout:1", "oci://r.example/b:1"]
)
def test_a_bundle_of_which_something_is_left_out_is_refused(text: str) -> None:
    with pytest.raises(BadReference, match="could not parse reference"):
        TaskBundle.parse(text)


def test_a_group_without_a_tag_can_have_nothing_newer() -> None:
    assert TaskBundle.of_group("oci://r.example:5000/t/b") is None
    found = TaskBundle.of_group("oci://r.example:5000/t/b:1")
    assert found is not None
    assert found.group == "oci://r.example:5000/t/b:1"


def test_files_are_filed_without_their_revision() -> None:
    file = TaskFile.parse("git+ssh://git@h/r.git//a/b.yaml@f0ca", newest=False)
    assert (file.group, file.revision) == ("git+ssh://git@h/r.git//a/b.yaml", "f0ca")
    assert file.url == "ssh://git@h/r.git"


@pytest.mark.parametrize(
    ("text", "newest", "reason"),
    [
        ("git+https://h/r.git@f0ca", True, "to contain the `//` to separate the repository"),
        ("git+h", True, "to contain the `//` to separate the repository"),
        ("git+https://h/r.git//a", False, "to contain the revision information following the `@`"),
        ("git+https://h/r.git//a@", False, "to contain the revision information following the `@`"),
        ("git+https://u:pw@h/r.git//a@f", False, "git\\+https://h/r.git: .* holds credentials"),
        ("git+https://token@h/r.git//a@f", False, "git\\+https://h/r.git: .* holds credentials"),
        ("git+https://u:pw@h/r.git//a", False, "holds credentials"),
        ("git+https://u:pw@h/r.git", True, "git\\+https://h/r.git.* to contain the `//`"),
    ],
)
def test_a_file_that_cannot_be_recorded_is_refused(text: str, newest: bool, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        TaskFile.parse(text, newest=newest)
    assert "pw" not in caught.value.message
    assert "token" not in caught.value.message
