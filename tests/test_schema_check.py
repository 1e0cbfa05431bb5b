"""The quick check of a schema accepts what jsonschema accepts, and nothing else."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from conforma import schema_errors
from conforma.policy.schema import SCHEMA
from conforma.schema_check import conforms
from conforma.trust.slsa import SCHEMAS

V02, V1 = SCHEMAS.values()
HEX = "0123456789abcdef"
PROVENANCE_V02: dict[str, Any] = {
    "_type": "https://in-toto.io/Statement/v0.1",
    "predicateType": "https://slsa.dev/provenance/v0.2",
    "subject": [{"name": "image", "digest": {"sha256": HEX}}],
    "predicate": {
        "builder": {"id": "https://builder.example/x?y#z"},
        "buildType": "t",
        "invocation": {
            "configSource": {"uri": "u", "digest": {"sha1": "ab"}, "entryPoint": "e"},
            "parameters": {},
        },
        "metadata": {
            "buildInvocationId": "i",
            "buildStartedOn": "2024-02-29T23:59:60.5Z",
            "completeness": {"parameters": True},
            "reproducible": False,
        },
        "materials": [{"uri": "git+https://example", "digest": {"sha512": HEX}}, {}],
    },
}
PROVENANCE_V1: dict[str, Any] = {
    "_type": "https://in-toto.io/Statement/v1",
    "predicateType": "https://slsa.dev/provenance/v1",
    "subject": [{"name": "image", "digest": {"gitCommit": HEX}}],
    "predicate": {
        "buildDefinition": {
            "buildType": "t",
            "externalParameters": {"a": 1},
            "resolvedDependencies": [{"uri": "u", "digest": {"md5": "0"}, "annotations": {}}],
        },
        "runDetails": {
            "builder": {"id": "urn:b", "version": {}, "builderDependencies": [{}]},
            "metadata": {"startedOn": "2024-01-01t00:00:00Z"},
            "byproducts": [{"name": "log"}],
        },
    },
}
POLICY: dict[str, Any] = {
    "name": "n",
    "sources": [
        {
            "policy": ["p"],
            "data": [],
            "ruleData": {"a": [1]},
            "config": {"include": ["x"]},
            "volatileConfig": {"exclude": [{"value": "v", "componentNames": ["c"]}]},
        }
    ],
    "configuration": {"collections": ["c"]},
    "identity": {"subject": "s", "issuer": "i"},
}
STRANGE = (
    *(None, True, False, 0, 1, 1.5, "", "x", "ab\n", "ABC", [], ["x"], [1], {}, {"a": 1}),
    *("https://a b/", "https://a/b c", "//a", "a:%zz", "http://[", "http://a:x", "u:\x00"),
    *("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z\n", "2023-02-29T00:00:00Z"),
    *({"value": 1}, {"digest": {"sha256": "g"}}, {"sha256": 1}, {"sha999": "ab"}, [{"uri": 1}]),
)


def variants(document: Any, count: int) -> Iterator[Any]:
    """The document with one or two places replaced, removed or added to."""
    source = random.Random(7)
    for _ in range(count):
        variant = copy.deepcopy(document)
        for _ in range(source.choice((1, 1, 2))):
            place: Any = source.choice(list(places(variant)))
            if isinstance(place, dict):
                key = source.choice([*place, "unknown", "digest", "_type", "sources"])
                if key in place and source.random() < 0.3:
                    del place[key]
                else:
                    place[key] = copy.deepcopy(source.choice(STRANGE))
            elif place and source.random() < 0.5:
                place[source.randrange(len(place))] = copy.deepcopy(source.choice(STRANGE))
            else:
                place.append(copy.deepcopy(source.choice(STRANGE)))
        yield variant


def places(value: Any) -> Iterator[Any]:
    """All objects and lists in a document."""
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from places(inner)


def is_valid(schema: Mapping[str, Any], document: object) -> bool:
    """What jsonschema says, with our formats and patterns."""
    checker = schema_errors._validator_class()(schema, format_checker=schema_errors._formats())
    return next(checker.iter_errors(document), None) is None


@pytest.mark.parametrize(
    ("schema", "document"),
    [(V02, PROVENANCE_V02), (V1, PROVENANCE_V1), (SCHEMA, POLICY)],
    ids=["slsa 0.2", "slsa 1", "policy"],
)
def test_it_says_what_jsonschema_says(schema: Mapping[str, Any], document: Any) -> None:
    assert conforms(schema, document)
    verdicts = {True: 0, False: 0}
    for variant in (*variants(document, 150), *STRANGE):
        verdict = is_valid(schema, variant)
        verdicts[verdict] += 1
        assert conforms(schema, variant) == verdict, variant
    assert min(verdicts.values()) > 20, verdicts


@pytest.mark.parametrize(
    "schema",
    [
        {"maxLength": 9},
        {"items": True},
        {"type": "number"},
        {"type": ["string", "null"]},
        {"format": "email"},
        {"$ref": "#/properties/x"},
        {"additionalProperties": {"anyOf": [{}]}},
    ],
)
def test_what_it_does_not_know_it_leaves_to_others(schema: dict[str, Any]) -> None:
    document = [1] if "items" in schema else {"a": 1} if "additionalProperties" in schema else "x"
    assert not conforms(schema, document)


def test_conforming_documents_need_no_jsonschema() -> None:
    program = (
        "import sys, json; from conforma.schema_errors import first_violation;"
        "from conforma.trust.slsa import SCHEMAS;"
        "document = json.load(sys.stdin);"
        "assert first_violation(SCHEMAS[document['predicateType']], document) is None;"
        "assert 'jsonschema' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(PROVENANCE_V1).encode(), check=True
    )
