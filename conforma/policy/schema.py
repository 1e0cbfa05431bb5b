"""What a policy configuration may contain: the schema of section 2.3.

It is checked before anything in a configuration is used, since a key that is
silently ignored, such as a misspelt ``exclude`` or ``sources``, changes what a
release is judged by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from conforma.schema_errors import first_violation

_TEXT: Final = {"type": "string"}
_TEXTS: Final = {"type": "array", "items": _TEXT}


def _object(required: tuple[str, ...] = (), /, **properties: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
    if required:
        schema["required"] = list(required)
    return schema


def _list_of(name: str) -> dict[str, Any]:
    return {"type": "array", "items": {"$ref": f"#/$defs/{name}"}}


SCHEMA: Final[Mapping[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "https://github.com/conforma/crds/api/v1alpha1/enterprise-contract-policy-spec",
    "$ref": "#/$defs/Spec",
    "$defs": {
        "Spec": _object(
            name=_TEXT,
            description=_TEXT,
            sources=_list_of("Source"),
            configuration={"$ref": "#/$defs/Configuration"},
            rekorUrl=_TEXT,
            publicKey=_TEXT,
            identity={"$ref": "#/$defs/Identity"},
        ),
        "Source": _object(
            name=_TEXT,
            policy=_TEXTS,
            data=_TEXTS,
            ruleData={"$ref": "#/$defs/RuleData"},
            config={"$ref": "#/$defs/SourceConfig"},
            volatileConfig={"$ref": "#/$defs/VolatileConfig"},
        ),
        "RuleData": {"type": "object"},
        "SourceConfig": _object(include=_TEXTS, exclude=_TEXTS),
        "VolatileConfig": _object(include=_list_of("Criterion"), exclude=_list_of("Criterion")),
        "Criterion": _object(
            ("value",),
            value=_TEXT,
            effectiveOn=_TEXT,
            effectiveUntil=_TEXT,
            imageRef=_TEXT,
            imageDigest=_TEXT,
            imageUrl=_TEXT,
            componentNames=_TEXTS,
            reference=_TEXT,
        ),
        "Configuration": _object(include=_TEXTS, exclude=_TEXTS, collections=_TEXTS),
        "Identity": _object(subject=_TEXT, subjectRegExp=_TEXT, issuer=_TEXT, issuerRegExp=_TEXT),
    },
}


def first_problem(spec: object, *, unknown_keys: bool = False) -> str | None:
    """The first thing in a policy specification that the schema forbids; ``None`` if it conforms.

    ``unknown_keys`` lets keys pass that the schema does not name: a cluster has
    checked its resources against a schema of its own, perhaps a newer one.
    """
    return first_violation(_tolerant(SCHEMA) if unknown_keys else SCHEMA, spec)


def _tolerant(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {
            key: _tolerant(value) for key, value in schema.items() if key != "additionalProperties"
        }
    return schema
