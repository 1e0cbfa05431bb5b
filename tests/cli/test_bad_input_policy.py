"""Policies that do not compile, never end or contradict themselves, and data that collides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.bad_release import BadRelease, assert_clean, assert_refused
from tests.cli.program import run_program

pytestmark = pytest.mark.slow

HEAD = "package main\nimport rego.v1\n"
RULE = HEAD + '# METADATA\n# title: T\n# custom:\n#   short_name: t\ndeny contains "x" if '

BROKEN: dict[str, tuple[str, list[str]]] = {
    "syntax": ("package main\n\ndeny contains {", ["main.rego:3: rego_parse_error"]),
    "unknown-builtin": (
        RULE + "ec.oci.blobb(input.image.ref)",
        ["main.rego:7: rego_type_error: undefined function ec.oci.blobb"],
    ),
    "network": (
        RULE + 'http.send({"url": "https://example.com", "method": "get"})',
        ["rego_type_error: undefined function http.send", "disables certain built-in functions"],
    ),
    "recursion": (RULE + "a\na if b\nb if a", ["rego_recursion_error: rule data.main.a is"]),
    "conflict": (
        RULE + "f(1) == 3\nf(x) := 1 if x\nf(x) := 2 if x",
        ["main.rego:9: eval_conflict_error: functions must not produce multiple outputs"],
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_rules_that_cannot_be_used(release: BadRelease, case: str) -> None:
    rules, words = BROKEN[case]
    place = release.shop.rules(rules, "broken")
    done = release.run(policy=release.shop.policy(place))
    assert_refused(done, f"{release.shop.reference('web')} of component web: ", *words)
    if case != "syntax":  # there the path is below the source, as with the Go tool
        assert f" is a copy of file::{place}\n" in done.err


@pytest.mark.parametrize(("case", "named"), [("recursion", 5), ("network", 1)])
def test_many_components_meet_the_same_fault_once(
    release: BadRelease, case: str, named: int
) -> None:
    """A line is repeated for a few of them, a page for none."""
    for number in range(8):
        release.shop.components.append(
            {"name": f"c{number}", "containerImage": release.shop.reference("web")}
        )
    rules, words = BROKEN[case]
    done = release.run(policy=release.shop.policy(release.shop.rules(rules, "broken")))
    assert_refused(done, f"the same for {9 - named} more components: ", *words)
    assert done.err.count("error validating image ") == named


def test_an_endless_comprehension_is_stopped_when_time_is_up(release: BadRelease) -> None:
    endless = RULE + (
        "count([1 | some i in numbers.range(1, 99999); some j in numbers.range(1, 99999)]) == 1"
    )
    done = release.run(
        policy=release.shop.policy(release.shop.rules(endless, "endless")), timeout="3s"
    )
    assert done.status == 3
    assert "exceeded allowed execution time of 3s" in done.component("web")["error"]
    assert "adjusted using the --timeout command line argument" in done.err
    assert_clean(done)


def test_a_source_without_rules(release: BadRelease) -> None:
    place = release.shop.directory / "empty"
    place.mkdir()
    (place / "README.md").write_text("no rules here")
    both = {"sources": [{"policy": [release.shop.rules(), str(place)]}]}
    done = release.run(policy=json.dumps(both))
    assert_refused(done, "no rego files found in policy subdirectory")
    assert f"hint: file::{place} has no .rego files" in done.err
    assert done.err.count("has no .rego files") == 1


def test_a_source_that_is_not_there(release: BadRelease) -> None:
    place = release.shop.directory / "missing"
    done = release.run(policy=release.shop.policy(str(place)))
    assert_refused(done, "source file does not exist", str(place))
    done = release.run(policy=release.shop.policy(f"oci::{release.shop.server.host}/policy:1"))
    assert_refused(done, "/v2/policy/manifests/1", "404", "is no policy artifact")


def data(release: BadRelease, *documents: str) -> str:
    """The policy with a data source for each document."""
    places: list[Path] = []
    for number, document in enumerate(documents):
        places.append(release.shop.directory / f"data{number}")
        places[-1].mkdir()
        (places[-1] / f"{number}.json").write_text(document)
    group = {"policy": [release.shop.rules()], "data": [str(place) for place in places]}
    return json.dumps({"sources": [group]})


@pytest.mark.parametrize(
    ("documents", "reason"),
    [
        (['{"limit": 1}', '{"limit": 2}'], "1.json: merge error"),
        (['{"limit": '], "0.json: unexpected EOF"),
        (["7"], "0.json: document must be of type object"),
    ],
    ids=["collision", "cut", "number"],
)
def test_data_that_cannot_be_loaded(release: BadRelease, documents: list[str], reason: str) -> None:
    done = release.run(policy=data(release, *documents))
    source = release.shop.directory / f"data{len(documents) - 1}"
    assert_refused(done, reason, f" is a copy of file::{source}\n")


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ('{"sources": [', "unable to parse EnterpriseContractPolicySpec: error converting YAML"),
        ('{"sources": 7}', "expected array, but got number"),
        ('{"sourcess": []}', "additionalProperties 'sourcess' not allowed"),
        ("/no/such/policy.yaml", "open /no/such/policy.yaml: no such file or directory"),
        ('{"name": "a", "name": "b"}', 'key "name" already set in map'),
    ],
)
def test_a_configuration_that_is_none(release: BadRelease, policy: str, reason: str) -> None:
    assert_refused(release.run(policy=policy), reason)


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        ("/no/such/engine", "there is no policy engine at /no/such/engine"),
        ("/bin/true", "ended with status 0"),
        ("/bin/cat", "ended with status 1: /bin/cat: serve: No such file or directory"),
    ],
)
def test_an_engine_that_is_none(release: BadRelease, engine: str, reason: str) -> None:
    done = run_program(release.shop.arguments(), changes={"CONFORMA_ENGINE": engine})
    assert done.status == 3
    assert reason in done.err
    assert "CONFORMA_ENGINE" in done.err
    assert_clean(done)
