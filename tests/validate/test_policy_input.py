"""The input document, byte for byte (section 6)."""

import json
from typing import Any

import pytest

from conforma.errors import BadManifest
from conforma.oci.reference import Reference
from conforma.trust.envelope import Statement
from conforma.trust.signature import Attestation, Signature
from conforma.validate.policy_input import (
    ImageFacts,
    ParentImage,
    build,
    encoded,
    manifest_directory,
    parsed_files,
    shown_config,
)
from conforma.validate.snapshot import Component, Snapshot

DIGEST = "sha256:" + "1" * 64
PARENT = "sha256:" + "2" * 64
IMAGE = Reference.parse(f"reg.example/shop/web@{DIGEST}")
STATEMENT = (
    b'{ "subject" : [ {"name": "web",\n "digest": {"sha256": "' + b"1" * 64 + b'"}} ],\n'
    b'  "_type": "https://in-toto.io/Statement/v0.1", "predicateType": "x",\n'
    b'  "predicate": {"z": 1.0, "a": "1 < 2 \\u00e9", "n": 12345678901234567890} }\n'
)


def attestation(raw: bytes = STATEMENT, *signatures: Signature) -> Attestation:
    return Attestation(Statement.parse(raw), signatures, None, verified=True)


def built(
    component: Component | None = None,
    *,
    facts: ImageFacts | None = None,
    signatures: tuple[Signature, ...] = (),
    attestations: tuple[Attestation, ...] = (),
    snapshot: Snapshot | None = None,
    policy_spec: dict[str, Any] | None = None,
) -> str:
    component = component or Component("Unnamed", "reg.example/shop/web:1.0")
    made = build(
        component,
        IMAGE,
        facts=facts or ImageFacts(),
        signatures=signatures,
        attestations=attestations or (attestation(),),
        snapshot=encoded(snapshot or Snapshot((component,))),
        policy_spec=policy_spec or {},
    )
    # What rules get may be written otherwise, and holds the same.
    asked = made.for_rules()
    ((name, shared),) = asked.shared.items()
    assert json.loads(asked.text) | {name: json.loads(shared.text)} == json.loads(made.text())
    return made.text().decode()


def image_part(**facts: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(built(facts=ImageFacts(**facts)))["image"]
    return document


def test_the_smallest_document() -> None:
    assert built() == (
        '{"attestations":[{"statement":'
        '{"subject":[{"name":"web","digest":{"sha256":"' + "1" * 64 + '"}}],'
        '"_type":"https://in-toto.io/Statement/v0.1","predicateType":"x",'
        r'"predicate":{"z":1.0,"a":"1 \u003c 2 \u00e9","n":12345678901234567890}}}],'
        '"image":{"ref":"reg.example/shop/web@' + DIGEST + '","source":{}},'
        '"snapshot":{"application":"","components":[{"name":"Unnamed",'
        '"containerImage":"reg.example/shop/web:1.0","source":{}}],"artifacts":{}},'
        '"component_name":"Unnamed","policy_spec":{}}'
    )


def test_everything_in_its_place() -> None:
    source = {"git": {"url": "https://git.example/web", "revision": "abc"}}
    component = Component("web", "reg.example/shop/web:1.0", source)
    signature = Signature(
        "k", "c2ln", certificate="CERT", chain=("A", "B"), metadata={"Subject": "s", "Issuer": "i"}
    )
    text = built(
        component,
        facts=ImageFacts(
            config={"Labels": {"b": "2", "a": "<1>"}, "Env": ["A=B"], "Unknown": 1, "User": ""},
            parent=ParentImage(f"base:1@{PARENT}", Reference.parse(f"base:1@{PARENT}")),
            parent_config={"Cmd": ["sh"]},
            files={"manifests/b.yaml": {"y": 1, "x": 2}, "manifests/a.json": []},
        ),
        signatures=(signature,),
        attestations=(attestation(STATEMENT, Signature("", "YXR0")), attestation()),
        snapshot=Snapshot((component,), application="app", display_name="App"),
        policy_spec={"sources": [{"policy": ["git::x?ref=1"]}], "publicKey": "key"},
    )
    document = json.loads(text)
    assert list(document) == [
        "attestations",
        "image",
        "snapshot",
        "component_name",
        "policy_spec",
    ]
    assert [list(entry) for entry in document["attestations"]] == [
        ["statement", "signatures"],
        ["statement"],
    ]
    assert list(document["image"]) == ["ref", "signatures", "config", "parent", "files", "source"]
    assert text[text.index('"image"') : text.index(',"snapshot"')] == (
        '"image":{"ref":"reg.example/shop/web@' + DIGEST + '",'
        '"signatures":[{"keyid":"k","sig":"c2ln","certificate":"CERT","chain":["A","B"],'
        '"metadata":{"Issuer":"i","Subject":"s"}}],'
        r'"config":{"Env":["A=B"],"Labels":{"a":"\u003c1\u003e","b":"2"}},'
        '"parent":{"ref":"base:1@' + PARENT + '","config":{"Cmd":["sh"]}},'
        '"files":{"manifests/a.json":[],"manifests/b.yaml":{"x":2,"y":1}},'
        '"source":{"git":{"url":"https://git.example/web","revision":"abc"}}}'
    )
    assert document["snapshot"] == {
        "application": "app",
        "displayName": "App",
        "components": [component.as_dict()],
        "artifacts": {},
    }
    assert text.endswith(
        '"component_name":"web",'
        '"policy_spec":{"sources":[{"policy":["git::x?ref=1"]}],"publicKey":"key"}}'
    )


def test_an_empty_name_is_left_out() -> None:
    assert "component_name" not in json.loads(built(Component("", "reg.example/shop/web:1.0")))


def test_what_was_not_fetched_is_left_out_and_what_was_empty_is_not() -> None:
    assert set(image_part()) == {"ref", "source"}
    assert image_part(config={})["config"] == {}
    parent = ParentImage.of({"org.opencontainers.image.base.name": f"base@{PARENT}"})
    assert image_part(parent=parent)["parent"] == {"ref": f"base@{PARENT}"}
    assert image_part(parent=parent, parent_config={})["parent"]["config"] == {}


NAME, BASE = "org.opencontainers.image.base.name", "org.opencontainers.image.base.digest"


@pytest.mark.parametrize(
    ("annotations", "text"),
    [
        ({NAME: "base:1", BASE: PARENT}, f"base:1@{PARENT}"),
        ({NAME: f"base@{PARENT}", BASE: DIGEST}, f"base@{PARENT}"),
        ({NAME: f"base:1@{PARENT}"}, f"base:1@{PARENT}"),
        ({NAME: "base:1"}, None),
        ({BASE: PARENT}, None),
        ({NAME: "", BASE: PARENT}, None),
        ({NAME: "scratch", BASE: "sha256:12"}, None),
        ({NAME: "not a name", BASE: PARENT}, None),
        ({}, None),
    ],
)
def test_the_parent_is_what_the_annotations_name(
    annotations: dict[str, str], text: str | None
) -> None:
    parent = ParentImage.of(annotations)
    assert (parent.text if parent else None) == text
    if parent is not None:
        assert str(parent.reference.digest) == PARENT
        assert parent.reference.repository_name == "index.docker.io/library/base"


def test_config_members_are_known_whatever_their_case() -> None:
    assert shown_config({"labels": {"a": "b"}, "exposedports": {"80/tcp": {}}, "Tty": False}) == {
        "Labels": {"a": "b"},
        "ExposedPorts": {"80/tcp": {}},
    }
    assert shown_config({"Healthcheck": {"Retries": 3, "Test": ["NONE"], "Timeout": 0}}) == {
        "Healthcheck": {"Test": ["NONE"], "Retries": 3}
    }


LABEL = "operators.operatorframework.io.bundle.manifests.v1"


@pytest.mark.parametrize(
    "config",
    [{"Labels": {"debug": "true"}, "labels": {}}, {"Healthcheck": {"Test": ["a"], "test": ["b"]}}],
)
def test_a_config_member_in_two_spellings_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(BadManifest, match="in two spellings"):
        shown_config(config)


@pytest.mark.parametrize(
    ("config", "directory"),
    [
        ({"Labels": {LABEL: "manifests/"}}, "manifests"),
        ({"Labels": {LABEL: "./a/../manifests"}}, "manifests"),
        ({"Labels": {LABEL: ""}}, "."),
        ({"Labels": {}}, None),
        ({}, None),
        ({"Labels": {LABEL: 5}}, None),
    ],
)
def test_the_directory_of_operator_manifests(config: dict[str, Any], directory: str | None) -> None:
    assert manifest_directory(config) == directory


def test_files_that_are_neither_yaml_nor_json_are_left_out() -> None:
    contents = {
        "./manifests/a.yaml": b"kind: CSV\non: off\n",
        "manifests/b.json": b'{"a": [1, 2]}',
        "manifests/c.yaml": b"a: [",
    }
    assert parsed_files(contents) == {
        "manifests/a.yaml": {"kind": "CSV", "true": False},
        "manifests/b.json": {"a": [1, 2]},
    }
