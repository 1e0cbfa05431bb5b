"""The JSON that Rego rules see of registry documents (rego-builtins.md, section 2).

Every key a rule may read is there, whatever the document left out, since a
missing key would make the rule undefined instead of false.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from conforma.oci.manifest import Descriptor, Index, Manifest
from conforma.oci.reference import Reference


def manifest(value: Manifest) -> dict[str, Any]:
    """What ``ec.oci.image_manifest`` yields."""
    document = value.document
    return _common(document) | {
        "config": _descriptor(document.get("config")),
        "layers": [_descriptor(layer) for layer in document.get("layers") or ()],
    }


def index(value: Index) -> dict[str, Any]:
    """What ``ec.oci.image_index`` yields."""
    document = value.document
    return _common(document) | {
        "manifests": [_descriptor(child) for child in document.get("manifests") or ()]
    }


def head(value: Descriptor) -> dict[str, Any]:
    """What ``ec.oci.descriptor`` yields: only type, size and digest carry information."""
    return _descriptor(
        {"mediaType": value.media_type, "size": value.size, "digest": str(value.digest)}
    )


def referrer(subject: Reference, value: Descriptor) -> dict[str, Any]:
    """One member of what ``ec.oci.image_referrers`` yields."""
    return {
        "mediaType": value.media_type,
        "size": value.size,
        "digest": str(value.digest),
        "artifactType": value.artifact_type or "",
        "ref": str(subject.pinned(value.digest)),
        "annotations": dict(value.annotations),
    }


def _common(document: Mapping[str, Any]) -> dict[str, Any]:
    shape = {
        "schemaVersion": document.get("schemaVersion") or 0,
        "mediaType": document.get("mediaType") or "",
        "annotations": document.get("annotations") or {},
    }
    if document.get("subject") is not None:
        shape["subject"] = _descriptor(document["subject"])
    return shape


def _descriptor(found: Any) -> dict[str, Any]:
    members: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    shape = {
        "mediaType": members.get("mediaType") or "",
        "size": members.get("size") or 0,
        # What the Go type prints for a digest that is not there.
        "digest": members.get("digest") or ":",
        "data": _inline(members.get("data")),
        "urls": members.get("urls") or [],
        "annotations": members.get("annotations") or {},
        "artifactType": members.get("artifactType") or "",
    }
    platform = members.get("platform")
    if isinstance(platform, Mapping):
        texts = ("architecture", "os", "os.version", "variant")
        lists = ("os.features", "features")
        shape["platform"] = {name: platform.get(name) or "" for name in texts} | {
            name: platform.get(name) or [] for name in lists
        }
    return shape


def _inline(data: object) -> str:
    try:
        return base64.b64decode(data or b"").decode("utf-8", "replace")  # type: ignore[arg-type]
    except (TypeError, binascii.Error):
        return ""
