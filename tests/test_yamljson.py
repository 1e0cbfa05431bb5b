"""YAML is read as Kubernetes tools read it, and nothing in it can harm the process."""

from __future__ import annotations

import pytest

from conforma.yamljson import NotYaml, load


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, null, true]}', {"a": [1, 2.5, None, True]}),
        ('{"a": 1,}', {"a": 1}),
        (
            "a: 2024-01-01\nb: 1:30:00\nc: yes\nd: 0777",
            {"a": "2024-01-01", "b": "1:30:00", "c": True, "d": 511},
        ),
        ("a: 1e3\nb: 2.50\nc: '1'", {"a": 1000.0, "b": 2.5, "c": "1"}),
        ("2: x\ntrue: y", {"2": "x", "true": "y"}),
        ("--- first\n--- second", "first"),
        ("", None),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
    ],
)
def test_reads_json_values(text: str, value: object) -> None:
    assert load(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"invalid": "json""}', "yaml: found unexpected end of stream"),
        ("a: b\n c: d", "yaml: line 2: mapping values are not allowed in this context"),
        ("&a [*a]", "yaml: a value contains itself"),
        ("a: .nan", "has no JSON form"),
        ("? [a]\n: b", "unhashable key"),
        ("!!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("[" * 200_000, "nested too deeply"),
        ("- " * 200_000, "nested too deeply"),
        ("a: \x01", "control characters are not allowed"),
    ],
)
def test_says_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(NotYaml) as caught:
        load(text)
    assert str(caught.value).startswith("error converting YAML to JSON: yaml: ")
    assert reason in str(caught.value)


def test_refuses_a_document_that_explodes_through_aliases() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for i in range(1, 10):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]")
    with pytest.raises(NotYaml, match="excessive aliasing"):
        load("\n".join(lines))
