"""Whether a statement is the SLSA provenance it says it is.

Schemas written from validate-image.md 5.5 (draft 2020-12, formats asserted,
unknown properties allowed). Other predicate types are not examined.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from conforma.errors import BadEvidence
from conforma.trust.envelope import STATEMENT_TYPES, STATEMENT_V01, Statement
from conforma.trust.signature import SLSA_V02, SLSA_V1

_Schema = dict[str, Any]

# fmt: off
_DIGESTS: Final = (
    "sha256", "sha224", "sha384", "sha512", "sha512_224", "sha512_256", "sha3_224", "sha3_256",
    "sha3_384", "sha3_512", "shake128", "shake256", "blake2b", "blake2s", "ripemd160", "sm3",
    "gost", "sha1", "md5",
)
# fmt: on
_TEXT: Final[_Schema] = {"type": "string"}
_WORD: Final[_Schema] = {"type": "string", "minLength": 1}
_URI: Final[_Schema] = {"type": "string", "format": "uri"}
_OBJECT: Final[_Schema] = {"type": "object"}
_BOOLEAN: Final[_Schema] = {"type": "boolean"}
_DIGEST_SET: Final[_Schema] = {"$ref": "#/$defs/DigestSet"}
_TIME: Final[_Schema] = {"$ref": "#/$defs/Timestamp"}
_RESOURCE: Final[_Schema] = {"$ref": "#/$defs/ResourceDescriptor"}


def _object(required: str = "", /, **properties: _Schema) -> _Schema:
    schema: _Schema = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required.split()
    return schema


def _list_of(items: _Schema, **limits: int) -> _Schema:
    return {"type": "array", "items": items, **limits}


def _statement(name: str, type_: _Schema, predicate: _Schema, **definitions: _Schema) -> _Schema:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": name,
        "type": "object",
        "required": ["_type", "subject", "predicate"],
        "properties": {
            "_type": type_,
            "subject": _list_of(_object("name digest", name=_WORD, digest=_DIGEST_SET), minItems=1),
            "predicateType": {"const": name},
            "predicate": predicate,
        },
        "$defs": {
            "Timestamp": {"type": "string", "format": "date-time", "pattern": "Z$"},
            **definitions,
        },
    }


def _digest_set(*more: str) -> _Schema:
    return {
        "type": "object",
        "propertyNames": {"enum": [*_DIGESTS, *more]},
        "additionalProperties": {"type": "string", "pattern": "^[a-f0-9]+$"},
    }


_V02: Final = _statement(
    SLSA_V02,
    {"const": STATEMENT_V01},
    _object(
        "builder buildType",
        builder=_object("id", id=_URI),
        buildType=_TEXT,
        invocation=_object(
            configSource=_object(uri=_TEXT, digest=_DIGEST_SET, entryPoint=_WORD),
            parameters=_OBJECT,
            environment=_OBJECT,
        ),
        metadata=_object(
            buildInvocationId=_WORD,
            buildStartedOn=_TIME,
            buildFinishedOn=_TIME,
            completeness=_object(parameters=_BOOLEAN, environment=_BOOLEAN, materials=_BOOLEAN),
            reproducible=_BOOLEAN,
        ),
        buildConfig=_OBJECT,
        materials=_list_of(_object(uri=_TEXT, digest=_DIGEST_SET)),
    ),
    DigestSet=_digest_set(),
)
_V1: Final = _statement(
    SLSA_V1,
    {"enum": list(reversed(STATEMENT_TYPES))},
    _object(
        "buildDefinition runDetails",
        buildDefinition=_object(
            "buildType externalParameters",
            buildType=_WORD,
            externalParameters=_OBJECT,
            internalParameters=_OBJECT,
            resolvedDependencies=_list_of(_RESOURCE),
        ),
        runDetails=_object(
            "builder",
            builder=_object(
                "id", id=_URI, builderDependencies=_list_of(_RESOURCE), version=_OBJECT
            ),
            metadata=_object(invocationId=_WORD, startedOn=_TIME, finishedOn=_TIME),
            byproducts=_list_of(_RESOURCE),
        ),
    ),
    DigestSet=_digest_set("gitCommit"),
    ResourceDescriptor=_object(
        uri=_TEXT,
        name=_TEXT,
        downloadLocation=_TEXT,
        mediaType=_TEXT,
        content=_TEXT,
        digest=_DIGEST_SET,
        annotations=_OBJECT,
    ),
)
SCHEMAS: Final[Mapping[str, Mapping[str, Any]]] = {SLSA_V02: _V02, SLSA_V1: _V1}


def check_schema(statement: Statement) -> list[str]:
    """What the statement's schema objects to: nothing, or one ``jsonschema: …`` text."""
    from conforma.schema_errors import first_violation

    schema = SCHEMAS.get(statement.predicate_type)
    problem = first_violation(schema, statement.document) if schema is not None else None
    return [] if problem is None else [problem]


def check_type(statement: Statement) -> None:
    """Raise ``BadEvidence`` for a provenance in a statement type that it does not go with.

    Tekton Chains puts v1 provenance into a v0.1 statement, which therefore passes.
    """
    expected: tuple[str, ...]
    match statement.predicate_type:
        case "https://slsa.dev/provenance/v0.2":
            expected, prefix = (STATEMENT_V01,), "unable to parse as SLSA v0.2"
        case "https://slsa.dev/provenance/v1":
            expected, prefix = STATEMENT_TYPES, "unable to parse as SLSA v1"
        case _:
            return
    if statement.type not in expected:
        raise BadEvidence(f"{prefix}: unsupported attestation type: {statement.type}")
