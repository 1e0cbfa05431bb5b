from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from conforma.errors import BadEvidence
from conforma.trust.envelope import Statement
from conforma.trust.slsa import check_schema, check_type

V02, V1 = "https://slsa.dev/provenance/v0.2", "https://slsa.dev/provenance/v1"
NAMES = (
    '"sha256", "sha224", "sha384", "sha512", "sha512_224", "sha512_256", "sha3_224", "sha3_256", '
    '"sha3_384", "sha3_512", "shake128", "shake256", "blake2b", "blake2s", "ripemd160", "sm3", '
    '"gost", "sha1", "md5"'
)


def v02() -> dict[str, Any]:
    return {
        "_type": "https://in-toto.io/Statement/v0.1",
        "predicateType": V02,
        "subject": [{"name": "a", "digest": {"sha256": "ab"}}],
        "predicate": {
            "builder": {"id": "https://tekton.dev/chains/v2"},
            "buildType": "tekton.dev/v1/PipelineRun",
            "invocation": {
                "configSource": {"uri": "", "digest": {"sha1": "ab"}, "entryPoint": "x"},
                "parameters": {},
                "environment": {},
            },
            "metadata": {
                "buildInvocationId": "1",
                "buildStartedOn": "2026-01-01T00:00:00Z",
                "buildFinishedOn": "2026-01-01T00:00:00.5Z",
                "completeness": {"parameters": True, "environment": False, "materials": False},
                "reproducible": False,
            },
            "buildConfig": {"tasks": []},
            "materials": [{"uri": "x", "digest": {"md5": "ab"}}],
            "anything": "else",
        },
        "more": 1,
    }


def v1() -> dict[str, Any]:
    resource = {
        "uri": "u", "name": "n", "downloadLocation": "d", "mediaType": "m", "content": "c",
        "digest": {"gitCommit": "ab"}, "annotations": {"x": 1},
    }  # fmt: skip
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": V1,
        "subject": [{"name": "a", "digest": {"sha256": "ab"}}],
        "predicate": {
            "buildDefinition": {
                "buildType": "b",
                "externalParameters": {},
                "internalParameters": {},
                "resolvedDependencies": [resource],
            },
            "runDetails": {
                "builder": {
                    "id": "https://b.test",
                    "builderDependencies": [resource],
                    "version": {"x": "1"},
                },
                "metadata": {
                    "invocationId": "i",
                    "startedOn": "2026-01-01T00:00:00Z",
                    "finishedOn": "2026-01-01T00:00:00Z",
                },
                "byproducts": [resource],
            },
        },
    }


def parsed(document: dict[str, Any]) -> Statement:
    return Statement.parse(json.dumps(document).encode())


def test_complete_and_minimal_provenance_passes() -> None:
    assert check_schema(parsed(v02())) == check_schema(parsed(v1())) == []
    small = v02()
    small["predicate"] = {"builder": {"id": "x:y"}, "buildType": ""}
    assert check_schema(parsed(small)) == []
    chains = {**v1(), "_type": "https://in-toto.io/Statement/v0.1"}
    assert check_schema(parsed(chains)) == []


P = "/properties/predicate/properties"
S = "/properties/subject/items"


@pytest.mark.parametrize(
    ("change", "where", "keyword", "reason"),
    [
        (lambda d: d.pop("_type"), "", "/required", "missing properties: '_type'"),
        (lambda d: d.pop("subject"), "", "/required", "missing properties: 'subject'"),
        (lambda d: d.update(_type="x"), "/_type", "/properties/_type/const", 'value must be "https://in-toto.io/Statement/v0.1"'),
        (lambda d: d.update(subject=[]), "/subject", "/properties/subject/minItems", "minimum 1 items required, but found 0 items"),
        (lambda d: d.update(subject=[{}]), "/subject/0", f"{S}/required", "missing properties: 'name', 'digest'"),
        (lambda d: d["subject"][0].update(name=""), "/subject/0/name", f"{S}/properties/name/minLength", "length must be >= 1, but got 0"),
        (lambda d: d["subject"][0].update(digest={"foo": "ab"}), "/subject/0/digest/foo", f"{S}/properties/digest/$ref/propertyNames/enum", f"value must be one of {NAMES}"),
        (lambda d: d["subject"][0].update(digest={"sha1": "XY"}), "/subject/0/digest/sha1", f"{S}/properties/digest/$ref/additionalProperties/pattern", "does not match pattern '^[a-f0-9]+$'"),
        (lambda d: d["subject"][0].update(digest={"sha1": "ab\n"}), "/subject/0/digest/sha1", f"{S}/properties/digest/$ref/additionalProperties/pattern", "does not match pattern '^[a-f0-9]+$'"),
        (lambda d: d["predicate"].pop("builder"), "/predicate", "/properties/predicate/required", "missing properties: 'builder'"),
        (lambda d: d["predicate"].pop("buildType"), "/predicate", "/properties/predicate/required", "missing properties: 'buildType'"),
        (lambda d: d["predicate"]["builder"].clear(), "/predicate/builder", f"{P}/builder/required", "missing properties: 'id'"),
        (lambda d: d["predicate"]["builder"].update(id="invalid"), "/predicate/builder/id", f"{P}/builder/properties/id/format", "'invalid' is not valid 'uri'"),
        (lambda d: d["predicate"]["builder"].update(id=""), "/predicate/builder/id", f"{P}/builder/properties/id/format", "'' is not valid 'uri'"),
        (lambda d: d["predicate"]["invocation"]["configSource"].update(entryPoint=""), "/predicate/invocation/configSource/entryPoint", f"{P}/invocation/properties/configSource/properties/entryPoint/minLength", "length must be >= 1, but got 0"),
        (lambda d: d["predicate"]["metadata"].update(buildStartedOn="2026-01-01T00:00:00+00:00"), "/predicate/metadata/buildStartedOn", f"{P}/metadata/properties/buildStartedOn/$ref/pattern", "does not match pattern 'Z$'"),
        (lambda d: d["predicate"]["metadata"].update(buildStartedOn="todayZ"), "/predicate/metadata/buildStartedOn", f"{P}/metadata/properties/buildStartedOn/$ref/format", "'todayZ' is not valid 'date-time'"),
        (lambda d: d["predicate"]["metadata"]["completeness"].update(materials=1), "/predicate/metadata/completeness/materials", f"{P}/metadata/properties/completeness/properties/materials/type", "expected boolean, but got number"),
        (lambda d: d["predicate"].update(buildConfig=[]), "/predicate/buildConfig", f"{P}/buildConfig/type", "expected object, but got array"),
        (lambda d: d["predicate"].update(materials=[1]), "/predicate/materials/0", f"{P}/materials/items/type", "expected object, but got number"),
    ],
)  # fmt: skip
def test_v02_names_what_is_wrong(
    change: Callable[[dict[str, Any]], Any], where: str, keyword: str, reason: str
) -> None:
    document = copy.deepcopy(v02())
    change(document)
    assert check_schema(parsed(document)) == [
        f"jsonschema: '{where}' does not validate with {V02}#{keyword}: {reason}"
    ]


@pytest.mark.parametrize(
    ("change", "where", "keyword", "reason"),
    [
        (lambda d: d.update(_type="x"), "/_type", "/properties/_type/enum", 'value must be one of "https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"'),
        (lambda d: d["predicate"].pop("buildDefinition"), "/predicate", "/properties/predicate/required", "missing properties: 'buildDefinition'"),
        (lambda d: d["predicate"].pop("runDetails"), "/predicate", "/properties/predicate/required", "missing properties: 'runDetails'"),
        (lambda d: d["predicate"]["buildDefinition"].update(buildType=""), "/predicate/buildDefinition/buildType", f"{P}/buildDefinition/properties/buildType/minLength", "length must be >= 1, but got 0"),
        (lambda d: d["predicate"]["buildDefinition"].pop("externalParameters"), "/predicate/buildDefinition", f"{P}/buildDefinition/required", "missing properties: 'externalParameters'"),
        (lambda d: d["predicate"]["runDetails"]["builder"].update(id="x"), "/predicate/runDetails/builder/id", f"{P}/runDetails/properties/builder/properties/id/format", "'x' is not valid 'uri'"),
        (lambda d: d["predicate"]["runDetails"]["metadata"].update(finishedOn="x"), "/predicate/runDetails/metadata/finishedOn", f"{P}/runDetails/properties/metadata/properties/finishedOn/$ref/format", "'x' is not valid 'date-time'"),
    ],
)  # fmt: skip
def test_v1_names_what_is_wrong(
    change: Callable[[dict[str, Any]], Any], where: str, keyword: str, reason: str
) -> None:
    document = copy.deepcopy(v1())
    change(document)
    assert check_schema(parsed(document)) == [
        f"jsonschema: '{where}' does not validate with {V1}#{keyword}: {reason}"
    ]


def test_git_commits_are_digests_in_v1_only() -> None:
    document = v02()
    document["predicate"]["materials"][0]["digest"] = {"gitCommit": "ab"}
    (problem,) = check_schema(parsed(document))
    assert "/propertyNames/enum: value must be one of" in problem


def test_other_predicates_are_not_examined() -> None:
    assert check_schema(parsed({"predicateType": "https://spdx.dev/Document"})) == []
    assert check_schema(parsed({})) == []


def test_statement_types_that_go_with_a_predicate() -> None:
    check_type(parsed(v02()))
    check_type(parsed(v1()))
    check_type(parsed({**v1(), "_type": "https://in-toto.io/Statement/v0.1"}))
    check_type(parsed({"_type": "anything", "predicateType": "https://spdx.dev/Document"}))
    for document, text in (
        ({**v02(), "_type": "https://in-toto.io/Statement/v1"}, "v0.2: unsupported attestation type: https://in-toto.io/Statement/v1"),
        ({**v1(), "_type": ""}, "v1: unsupported attestation type: "),
    ):  # fmt: skip
        with pytest.raises(BadEvidence) as refusal:
            check_type(parsed(document))
        assert refusal.value.message == f"unable to parse as SLSA {text}"
