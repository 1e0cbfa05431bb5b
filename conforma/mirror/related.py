"""Images that attestations name: whatever a statement's predicate pins by digest.

SLSA provenance lists them as materials or resolved dependencies, Tekton as
bundles of tasks; other predicates elsewhere. So every string that is an image
reference with a digest counts, wherever it stands.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from typing import Any, Final

from conforma.errors import BadReference
from conforma.oci.reference import Reference

_SCHEMES: Final = ("oci://", "docker://", "oci::", "docker::")
_PINNED: Final = re.compile(r"[a-zA-Z0-9.-]+(?::\d+)?/[^\s@]+@sha256:[0-9a-f]{64}")
_DEEPEST: Final = 100


def images_in(document: bytes) -> tuple[Reference, ...]:
    """The pinned references in an envelope, a Sigstore bundle or a bare statement.

    Bytes that are nothing of the kind name no image.
    """
    try:
        parsed = json.loads(document)
    except (ValueError, RecursionError):
        return ()
    statement = _statement(parsed)
    if not isinstance(statement, dict):
        return ()
    found = dict.fromkeys(_references(statement.get("predicate"), 0))
    return tuple(found)


def _statement(parsed: Any) -> Any:
    if not isinstance(parsed, dict):
        return None
    envelope = parsed.get("dsseEnvelope", parsed)
    payload = envelope.get("payload") if isinstance(envelope, dict) else None
    if not isinstance(payload, str):
        return parsed
    try:
        return json.loads(base64.b64decode(payload))
    except (ValueError, binascii.Error, RecursionError):
        return None


def _references(value: Any, depth: int) -> Iterator[Reference]:
    if depth > _DEEPEST:
        return
    if isinstance(value, str):
        yield from _reference(value)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item, depth + 1)
    elif isinstance(value, dict):
        yield from _material(value)
        for item in value.values():
            yield from _references(item, depth + 1)


def _material(value: dict[str, Any]) -> Iterator[Reference]:
    """A resource descriptor that keeps name and digest apart."""
    uri, digest = value.get("uri"), value.get("digest")
    if isinstance(uri, str) and uri.startswith(_SCHEMES) and isinstance(digest, dict):
        yield from _reference(f"{uri.partition('@')[0]}@sha256:{digest.get('sha256')}")


def _reference(text: str) -> Iterator[Reference]:
    for scheme in _SCHEMES:
        text = text.removeprefix(scheme)
    if not _PINNED.fullmatch(text):
        return
    try:
        reference = Reference.parse(text)
    except BadReference:
        return
    if reference.digest is not None:
        yield reference.pinned(reference.digest)
