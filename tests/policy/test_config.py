"""Policy configurations: what they say, what is refused, what the report repeats."""

from __future__ import annotations

import json
from typing import Any

import pytest

from conforma.errors import BadPolicyConfig, ConformaError, InputError, SourceUnavailable
from conforma.policy.config import Identity, PolicyConfig
from conforma.policy.overrides import add_rule_data, apply_overrides
from conforma.policy.source_group import Criterion, Patterns, SourceGroup

SCHEMA_ID = "https://github.com/conforma/crds/api/v1alpha1/enterprise-contract-policy-spec"
EVERYTHING: dict[str, Any] = {
    "name": "n",
    "description": "d",
    "sources": [
        {
            "name": "s",
            "policy": ["p1", "p2"],
            "data": ["d1"],
            "ruleData": {"a": {"y": [{"c": 1, "d": 2}], "z": 2}, "b": 1},
            "config": {"exclude": ["e"], "include": ["i", "@c"]},
            "volatileConfig": {
                "exclude": [
                    {
                        "value": "v",
                        "effectiveOn": "2024-01-01",
                        "effectiveUntil": "2025-01-01",
                        "imageRef": "sha256:0",
                        "imageDigest": "sha256:1",
                        "imageUrl": "r/i",
                        "componentNames": ["c"],
                        "reference": "link",
                    }
                ],
                "include": [{"value": "w"}],
            },
        }
    ],
    "configuration": {"exclude": ["x"], "include": ["y"], "collections": ["z"]},
    "rekorUrl": "https://rekor.example",
    "publicKey": "key.pub",
    "identity": {"subject": "s", "subjectRegExp": "sr", "issuer": "i", "issuerRegExp": "ir"},
}


def reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: reversed_keys(v) for k, v in reversed(value.items())}
    return [reversed_keys(v) for v in value] if isinstance(value, list) else value


def test_the_report_repeats_the_configuration_in_its_own_order() -> None:
    config = PolicyConfig.parse(json.dumps(reversed_keys(EVERYTHING)))
    assert json.dumps(config.as_dict()) == json.dumps(EVERYTHING)


def test_a_cluster_record_stands_for_its_spec() -> None:
    record = {"apiVersion": "v1", "kind": "x", "metadata": {"name": "m"}, "spec": EVERYTHING}
    assert PolicyConfig.parse(json.dumps(record)) == PolicyConfig.parse(json.dumps(EVERYTHING))


def test_values_are_read_where_they_belong() -> None:
    config = PolicyConfig.parse(json.dumps(EVERYTHING))
    (group,) = config.sources
    assert group.policy == ("p1", "p2")
    assert group.data == ("d1",)
    assert config.urls == ("p1", "p2", "d1")
    assert group.config == Patterns(("i", "@c"), ("e",))
    assert group.volatile.include == (Criterion("w"),)
    assert group.volatile.exclude[0].component_names == ("c",)
    assert config.configuration == Patterns(("y",), ("x",), ("z",))
    assert config.identity == Identity("s", "sr", "i", "ir")


@pytest.mark.parametrize("text", ["", "# nothing here: at all", "{}"])
def test_nothing_is_the_empty_configuration(text: str) -> None:
    config = PolicyConfig.parse(text)
    assert config == PolicyConfig()
    assert config.as_dict() == {}


def test_empty_objects_are_kept_and_empty_texts_and_lists_are_not() -> None:
    text = "{name: '', sources: [{policy: [], config: {}, volatileConfig: {}, ruleData: {}}], configuration: {}, identity: {}}"
    assert PolicyConfig.parse(text).as_dict() == {
        "sources": [{"ruleData": {}, "config": {}, "volatileConfig": {}}],
        "configuration": {},
        "identity": {},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"invalid": "json""}',
            "unable to parse EnterpriseContractPolicySpec: error converting YAML to JSON: "
            "yaml: found unexpected end of stream",
        ),
        ("apiVersion: v1\nspec: text", "spec is not a valid map structure"),
        (
            "sources: []\nsources: [{}]",
            "unable to parse EnterpriseContractPolicySpec: error converting YAML to JSON: "
            'yaml: unmarshal errors:\n  line 2: key "sources" already set in map',
        ),
        (
            "- a: b",
            "unable to parse EnterpriseContractPolicySpec: error unmarshaling JSON: while decoding "
            "JSON: json: cannot unmarshal array into Go value of type "
            "v1alpha1.EnterpriseContractPolicySpec",
        ),
        (
            "foo: bar",
            f"jsonschema: '' does not validate with {SCHEMA_ID}#/$ref/additionalProperties: "
            "additionalProperties 'foo' not allowed",
        ),
        (
            "apiVersion: v1\nspec: {sources: [{polcy: [a]}]}",
            f"jsonschema: '/sources/0' does not validate with {SCHEMA_ID}#/$ref/properties/sources"
            "/items/$ref/additionalProperties: additionalProperties 'polcy' not allowed",
        ),
        (
            "sources: [{policy: a}]",
            f"jsonschema: '/sources/0/policy' does not validate with {SCHEMA_ID}#/$ref/properties"
            "/sources/items/$ref/properties/policy/type: expected array, but got string",
        ),
        (
            "sources: [{ruleData: [1]}]",
            f"jsonschema: '/sources/0/ruleData' does not validate with {SCHEMA_ID}#/$ref/properties"
            "/sources/items/$ref/properties/ruleData/$ref/type: expected object, but got array",
        ),
        (
            "sources: [{volatileConfig: {include: [{effectiveOn: x}]}}]",
            "jsonschema: '/sources/0/volatileConfig/include/0' does not validate with "
            f"{SCHEMA_ID}#/$ref/properties/sources/items/$ref/properties/volatileConfig/$ref"
            "/properties/include/items/$ref/required: missing properties: 'value'",
        ),
        (
            "identity: {isuer: x}",
            f"jsonschema: '/identity' does not validate with {SCHEMA_ID}#/$ref/properties/identity"
            "/$ref/additionalProperties: additionalProperties 'isuer' not allowed",
        ),
        (
            "publicKey:",
            f"jsonschema: '/publicKey' does not validate with {SCHEMA_ID}#/$ref/properties/publicKey"
            "/type: expected string, but got null",
        ),
        (
            "apiVersion: v1\nkind: x",
            f"jsonschema: '' does not validate with {SCHEMA_ID}#/$ref/additionalProperties: "
            "additionalProperties 'apiVersion', 'kind' not allowed",
        ),
    ],
)
def test_what_is_wrong_is_said_exactly(text: str, message: str) -> None:
    with pytest.raises(BadPolicyConfig) as caught:
        PolicyConfig.parse(text)
    assert caught.value.message == message
    assert caught.value.exit_status == 1


def test_a_spec_without_apiversion_counts_and_is_not_an_empty_policy() -> None:
    config = PolicyConfig.parse("spec: {sources: [{policy: [p]}], publicKey: k}")
    assert config.urls == ("p",)
    assert config.public_key == "k"


def test_settings_on_two_levels_are_refused() -> None:
    with pytest.raises(BadPolicyConfig, match="has a spec and, beside it, publicKey, sources"):
        PolicyConfig.parse("{spec: {}, sources: [], publicKey: k}")


def test_pinning_replaces_urls_and_nothing_else() -> None:
    config = PolicyConfig.parse(json.dumps(EVERYTHING))
    document = config.pinned({"p1": "git::p1?ref=0", "d1": "oci::d1@sha256:0"}).as_dict()
    expected = json.loads(json.dumps(EVERYTHING))
    expected["sources"][0] |= {"policy": ["git::p1?ref=0", "p2"], "data": ["oci::d1@sha256:0"]}
    assert document == expected


CONFIG = PolicyConfig(
    public_key="policy.pub", rekor_url="https://a", identity=Identity("s", "", "i")
)
CLI = Identity(subject_regexp="^me$", issuer_regexp="^there$")


def test_key_and_log_of_the_command_line_win() -> None:
    settings = apply_overrides(CONFIG, rekor_url="https://b", public_key="k.pub")
    assert settings.config.rekor_url == "https://b"
    assert settings.config.public_key == "k.pub"
    assert settings.identity is None


def test_without_flags_the_document_counts() -> None:
    settings = apply_overrides(CONFIG)
    assert settings.config == CONFIG
    assert settings.identity is None


def test_an_identity_on_the_command_line_clears_the_key_of_the_document() -> None:
    settings = apply_overrides(CONFIG, identity=CLI)
    assert settings.config.public_key == ""
    assert settings.identity == CLI
    assert "publicKey" not in settings.config.as_dict()
    assert settings.config.as_dict()["identity"] == {"subject": "s", "issuer": "i"}


def test_a_key_on_the_command_line_wins_over_an_identity() -> None:
    assert apply_overrides(CONFIG, public_key="k", identity=CLI).identity is None


def test_the_documents_identity_counts_when_nothing_else_is_given() -> None:
    assert apply_overrides(PolicyConfig(identity=Identity("s", "", "i"))).identity == Identity(
        "s", "", "i"
    )


@pytest.mark.parametrize(
    ("identity", "lines"),
    [
        (
            None,
            [
                "certificate OIDC issuer must be provided for keyless workflow",
                "certificate identity must be provided for keyless workflow",
            ],
        ),
        (Identity(issuer="i"), ["certificate identity must be provided for keyless workflow"]),
        (
            Identity(subject_regexp="s"),
            ["certificate OIDC issuer must be provided for keyless workflow"],
        ),
    ],
)
def test_keyless_needs_issuer_and_identity(identity: Identity | None, lines: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        apply_overrides(PolicyConfig(), identity=identity)
    assert caught.value.message.split("\n") == lines


def test_the_command_lines_identity_is_not_completed_from_the_document() -> None:
    with pytest.raises(InputError, match=r"^certificate OIDC issuer must"):
        apply_overrides(CONFIG, identity=Identity(subject="me"))


def test_extra_rule_data_reaches_every_group_as_text() -> None:
    config = PolicyConfig(sources=(SourceGroup(rule_data={"a": 1, "b": 2}), SourceGroup()))
    changed, problems = add_rule_data(config, ["a=x=y", "c=[1]"], lambda value: value.upper())
    assert problems == ()
    assert [group.rule_data for group in changed.sources] == [
        {"a": "X=Y", "b": 2, "c": "[1]"},
        {"a": "X=Y", "c": "[1]"},
    ]


def test_extra_rule_data_problems_are_repeated_for_every_group() -> None:
    def read(value: str) -> str:
        raise SourceUnavailable(f"no {value}") if value == "x" else InputError("file y is empty")

    config = PolicyConfig(sources=(SourceGroup(), SourceGroup()))
    _, problems = add_rule_data(config, ["bad", "a=x", "worse", "b=y"], read)
    once = [
        "incorrect syntax for --extra-rule-data 0",
        "unable to load data from extraRuleData: no x",
        "incorrect syntax for --extra-rule-data 2",
        "unable to load data from extraRuleData: file y is empty",
    ]
    assert [problem.message for problem in problems] == once * 2
    assert [problem.exit_status for problem in problems] == [1, 3, 1, 1] * 2


def test_extra_rule_data_without_sources_is_not_looked_at() -> None:
    def read(_: str) -> str:
        raise ConformaError("read")

    assert add_rule_data(PolicyConfig(), ["bad", "a=b"], read) == (PolicyConfig(), ())
