"""``conforma inspect``: the rules and the data of real sources, printed as the Go tool prints them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from conforma.cli.root import run
from conforma.serve.images import artifact_of
from conforma.serve.registry import RegistryServer
from tests.cli.shop import Outcome
from tests.policy.services import (
    Service,
    git,
    git_backend,
    kubeconfig,
    kubernetes,
    repository,
    serving,
)

Run = Callable[..., Outcome]

PACKAGE_ROW, DENY_ROW, WARN_ROW = 5, 14, 16
RULES = dedent(
    """\
    # METADATA
    # title: All about cats
    # custom:
    #   short_name: cats
    package policy.kitty

    # METADATA
    # title: Kittens
    # description: Fluffy, see xref:cats.adoc[the cats] & <more>.
    # custom:
    #   short_name: purr
    #   collections: [minimal, cats]
    #   effective_on: 2024-01-01T00:00:00Z
    deny contains "Meow" if true

    warn contains "Hiss" if true

    # METADATA
    # title: Counts paws
    paws[1] := "four"

    helper := [1]
    """
)
DOGS = dedent(
    """\
    package dogs

    # METADATA
    # title: Barks
    # scope: document
    # custom:
    #   short_name: bark
    violation contains "Wuff" if true

    # METADATA
    # title: Barks louder
    # custom:
    #   short_name: 7
    violation contains "WUFF" if false
    """
)
PURR = dedent(
    """\
    policy.kitty.purr (deny)
    https://conforma.dev/docs/policy/packages/release_kitty.html#kitty__purr
    Kittens
    Fluffy, see the cats & <more>.
    [minimal cats]
    --
    """
)
REST = dedent(
    """\
    policy.kitty.warn
    (No annotations found)
    --
    policy.kitty. (other)
    Counts paws

    --
    """
)


@pytest.fixture
def run_conforma(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> Outcome:
        capsys.readouterr()
        status = run(arguments)
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return call


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """Git repositories over HTTPS: the rules, and data in files of every kind."""
    root = tmp_path / "git"
    repository(root / "rules.git", {"main.rego": RULES, "main_test.rego": "no rego", "a.txt": "a"})
    repository(
        root / "data.git",
        {
            "foo.yaml": "rule_data:\n  fruit: banana\n",
            "deep/bar.JSON": '{"spam": 42, "on": "<now>"}',
            "empty.yml": "",
            "README.md": "- no data",
        },
    )
    repository(root / "more.git", {"again.json": '{"spam": 1}'})
    with serving(git_backend(root), tmp_path) as service:
        monkeypatch.setenv("SSL_CERT_FILE", str(service.ca_file))
        yield service


@pytest.fixture
def rules(tmp_path: Path) -> str:
    """The rules as a directory."""
    place = tmp_path / "rules"
    (place / "lib").mkdir(parents=True)
    (place / "kitty.rego").write_text(RULES)
    (place / "lib" / "dogs.rego").write_text(DOGS)
    return str(place)


def pinned(hub: Service, name: str, tmp_path: Path) -> str:
    commit = git(tmp_path / "git" / f"{name}.git", "rev-parse", "HEAD")
    return f"git::{hub.host}/{name}.git?ref={commit}"


def test_the_rules_of_a_repository_as_text(hub: Service, run_conforma: Run, tmp_path: Path) -> None:
    done = run_conforma("inspect", "policy", "--source", f"git::https://{hub.host}/rules.git")
    source = pinned(hub, "rules", tmp_path)
    assert (done.status, done.err) == (0, "")
    assert done.out == f"# Source: {source}\n\n{PURR}{REST}"


def test_the_rules_of_an_artifact_as_json(run_conforma: Run) -> None:
    with RegistryServer() as server:
        title = {"org.opencontainers.image.title": "lib/kitty.rego"}
        layer = (RULES.encode(), "application/vnd.cncf.openpolicyagent.policy.layer.v1+rego", title)
        artifact = artifact_of("application/vnd.example.policy", [layer])
        digest = artifact.put(server.store, "rules", "1")
        done = run_conforma("inspect", "policy", "-s", f"oci::{server.host}/rules:1", "-o=json")
    assert (done.status, done.err, done.out.count("\n")) == (0, "", 1)
    entries = done.report[f"oci::{server.host}/rules:1@{digest}"]
    assert entries[0] == {
        "annotations": {
            "custom": {
                "collections": ["minimal", "cats"],
                "effective_on": "2024-01-01T00:00:00Z",
                "short_name": "purr",
            },
            "description": "Fluffy, see xref:cats.adoc[the cats] & <more>.",
            "scope": "rule",
            "title": "Kittens",
        },
        "location": {"file": "lib/kitty.rego", "row": DENY_ROW, "col": 1},
        "path": [
            {"type": "var", "value": "data"},
            {"type": "string", "value": "policy"},
            {"type": "string", "value": "kitty"},
            {"type": "string", "value": "deny"},
        ],
    }
    package = entries[1]
    assert package["annotations"]["scope"] == "package"
    assert package["location"] == {"file": "lib/kitty.rego", "row": PACKAGE_ROW, "col": 1}
    assert [term["value"] for term in package["path"]] == ["data", "policy", "kitty"]
    assert entries[2] == {
        "location": {"file": "lib/kitty.rego", "row": WARN_ROW, "col": 1},
        "path": [*entries[0]["path"][:3], {"type": "string", "value": "warn"}],
    }
    assert entries[4]["annotations"]["title"] == "Counts paws"
    assert entries[4]["path"][-1] == {"type": "number", "value": 1}
    # The rule that is neither described nor decides is not there, its package is.
    assert [entry.get("annotations", {}).get("scope") for entry in entries] == [
        *("rule", "package"),
        *(None, "package"),
        *("rule", "package"),
        "package",
    ]
    # As Go writes JSON, member names and angle brackets included.
    assert '[{"annotations":{"custom":' in done.out
    assert "\\u0026 \\u003cmore\\u003e" in done.out


@pytest.mark.parametrize("output", ["names", "short-names"])
def test_names_are_in_the_order_of_files_and_rows(
    output: str, rules: str, run_conforma: Run
) -> None:
    done = run_conforma("inspect", "policy", "--source", rules, "--output", output)
    assert (done.status, done.err) == (0, "")
    assert done.out == (
        "policy.kitty.purr\n"
        "policy.kitty.warn\n(No annotations found)\n--\n"
        "policy.kitty.\n"
        "dogs.violation\n(No annotations found)\n--\n"
        "dogs.7\n"
    )


@pytest.mark.parametrize(
    ("filters", "shown"),
    [
        (["--rule=purr"], ["policy.kitty.purr"]),
        (["--rule=policy.kitty.purr"], ["policy.kitty.purr"]),
        (["--rule=kitty.purr"], []),
        (["--package=dogs"], ["dogs.violation", "(No annotations found)", "--", "dogs.7"]),
        (["--package=kitty"], []),
        (["--package=policy"], []),
        (["--collection=cats"], ["policy.kitty.purr"]),
        (["--collection=other"], []),
        (["--collection=cats", "--rule=7"], ["policy.kitty.purr", "dogs.7"]),
    ],
)
def test_a_rule_is_shown_if_any_filter_names_it(
    filters: list[str], shown: list[str], rules: str, run_conforma: Run
) -> None:
    done = run_conforma("inspect", "policy", "--source", rules, "-o", "names", *filters)
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == shown


def test_filters_know_what_is_said_about_packages_and_documents(
    rules: str, run_conforma: Run
) -> None:
    found = run_conforma("inspect", "policy", "-s", rules, "-o", "json", "--rule", "bark")
    (entries,) = found.report.values()
    assert {entry["annotations"]["scope"] for entry in entries} == {"document"}
    nothing = run_conforma("inspect", "policy", "-s", rules, "-o", "json", "--rule", "meow")
    assert list(nothing.report.values()) == [[]]


def test_the_sources_of_a_policy_in_a_cluster_are_shown_by_address(
    rules: str, hub: Service, run_conforma: Run, tmp_path: Path
) -> None:
    place = tmp_path / "cluster"
    place.mkdir()
    spec = {"sources": [{"policy": [rules]}, {"policy": [f"git::https://{hub.host}/rules.git"]}]}
    path = "/apis/appstudio.redhat.com/v1alpha1/namespaces/acceptance/enterprisecontractpolicies"
    record = {"metadata": {"name": "ec-policy", "namespace": "acceptance"}, "spec": spec}
    with serving(kubernetes({f"{path}/ec-policy": record}), place, tls=False) as cluster:
        config = kubeconfig(place, cluster.host)
        arguments = ["--policy", "acceptance/ec-policy", "--kubeconfig", str(config)]
        done = run_conforma("inspect", "policy", *arguments)
    assert (done.status, done.err) == (0, "")
    headings = [line for line in done.out.splitlines() if line.startswith("# Source: ")]
    assert headings == [
        f"# Source: file::{rules}",
        f"# Source: {pinned(hub, 'rules', tmp_path)}",
    ]


def test_what_was_downloaded_is_kept_where_that_is_asked_for(
    rules: str, run_conforma: Run, tmp_path: Path
) -> None:
    policy = json.dumps({"sources": [{"policy": [rules], "data": ["git::https://x.test/no"]}]})
    done = run_conforma("inspect", "policy", "-p", policy, "-d", str(tmp_path / "kept"))
    assert done.status == 0
    (place,) = (tmp_path / "kept" / "policy").iterdir()
    assert (place / "kitty.rego").read_text() == RULES
    other = tmp_path / "other"
    other.mkdir()
    (other / "dogs.rego").write_text(DOGS)
    sources = ["-s", rules, "-s", str(other)]
    assert run_conforma("inspect", "policy", *sources, "-d", str(tmp_path / "both")).status == 0
    assert len(list((tmp_path / "both" / "policy").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["-s", "RULES", "-o", "spam"],
            "invalid value for --output 'spam'. accepted values: json, text, names, short-names",
        ),
        (["-s", "RULES", "more"], 'unknown command "more" for "conforma inspect policy"'),
        ([], "at least one of the flags in the group [policy source] is required"),
        (
            ["-s", "RULES", "-p", "{}"],
            "if any flags in the group [policy source] are set none of the others can be; "
            "[policy source] were all set",
        ),
        (["-p", '{"sources": []}'], "the policy names no policy sources"),
    ],
)
def test_what_cannot_be_asked_for(
    arguments: list[str], message: str, rules: str, run_conforma: Run
) -> None:
    words = [rules if word == "RULES" else word for word in arguments]
    done = run_conforma("inspect", "policy", *words)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"Error: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no rego files found in policy subdirectory"),
        ("package p\ndeny contains", "main.rego:2: rego_parse_error"),
        ("package p\ndeny contains 1 if true\n", 'the rule "deny contains 1 if { true }" returns'),
    ],
)
def test_rules_that_cannot_be_shown(
    text: str | None, message: str, run_conforma: Run, tmp_path: Path
) -> None:
    place = tmp_path / "broken"
    place.mkdir()
    if text is not None:
        (place / "main.rego").write_text(text)
    done = run_conforma("inspect", "policy", "-s", str(place))
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("Error: ")
    assert message in done.err
    assert str(place) in done.err or "main.rego:2" in done.err


def test_annotations_cannot_command_the_terminal(run_conforma: Run, tmp_path: Path) -> None:
    place = tmp_path / "hostile"
    place.mkdir()
    (place / "main.rego").write_text(
        'package p\n# METADATA\n# title: "red \\e[31m"\ndeny contains "m" if true\n'
    )
    done = run_conforma("inspect", "policy", "-s", str(place))
    assert done.status == 0
    assert "\x1b" not in done.out
    assert "red \\x1b[31m" in done.out


def test_data_of_several_sources_is_one_document(
    hub: Service, run_conforma: Run, tmp_path: Path
) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "more.yml").write_text("more: [yes, 0x10, text]\n")
    sources = ["-s", f"git::https://{hub.host}/data.git", "-s", str(tmp_path / "local")]
    done = run_conforma("inspect", "policy-data", *sources)
    assert (done.status, done.err) == (0, "")
    assert done.out == (
        '{"more":[true,16,"text"],"on":"\\u003cnow\\u003e",'
        '"rule_data":{"fruit":"banana"},"spam":42}\n'
    )
    shown = run_conforma("inspect", "policy-data", *sources, "--output", "yaml")
    assert yaml.safe_load(shown.out) == json.loads(done.out)
    assert shown.out.startswith("more:\n- true\n- 16\n- text\n")
    assert shown.out.endswith("spam: 42\n\n")


def test_no_data_is_an_empty_document(run_conforma: Run, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    source = ["--source", str(tmp_path / "none")]
    assert run_conforma("inspect", "policy-data", *source).out == "{}\n"
    assert run_conforma("inspect", "policy-data", *source, "-o", "yaml").out == "{}\n\n"


def test_a_key_in_two_files_is_refused(hub: Service, run_conforma: Run, tmp_path: Path) -> None:
    sources = [f"--source=git::https://{hub.host}/{name}.git" for name in ("data", "more")]
    done = run_conforma("inspect", "policy-data", *sources)
    assert (done.status, done.out) == (1, "")
    assert done.err == "Error: Merge error. The 'spam' key was found more than once!\n"
    told = run_conforma("inspect", "policy-data", *sources, "--verbose")
    assert (
        f"spam is in deep/bar.JSON of {pinned(hub, 'data', tmp_path)} and in "
        f"again.json of {pinned(hub, 'more', tmp_path)}"
    ) in told.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n", "a data file is a mapping, not list"),
        ("a: [\n", "error converting YAML to JSON: yaml: line "),
    ],
)
def test_files_that_hold_no_data_are_named(
    content: str, message: str, run_conforma: Run, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bad.yaml").write_text(content)
    done = run_conforma("inspect", "policy-data", "-s", str(tmp_path / "data"))
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"Error: bad.yaml of file::{tmp_path / 'data'}: {message}")


def test_a_data_source_is_required_and_an_unknown_format_refused(run_conforma: Run) -> None:
    done = run_conforma("inspect", "policy-data")
    assert (done.status, done.err) == (1, 'Error: required flag(s) "source" not set\n')
    done = run_conforma("inspect", "policy-data", "-s", "/", "-o", "text")
    expected = "Error: invalid value for --output 'text'. accepted values: json, yaml\n"
    assert (done.status, done.err) == (1, expected)


def test_a_source_that_is_not_there_is_named(run_conforma: Run, tmp_path: Path) -> None:
    for command in ("policy", "policy-data"):
        done = run_conforma("inspect", command, "--source", f"{tmp_path}/missing")
        assert (done.status, done.out) == (1, "")
        assert f"source file does not exist: stat {tmp_path}/missing" in done.err
