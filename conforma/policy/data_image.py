"""One data file as an OCI image that policy tools pull: the data bundle of Conftest and OPA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from conforma import gojson
from conforma.errors import InputError, NotFound
from conforma.oci import media_types
from conforma.oci.digest import DiffID, Digest
from conforma.oci.manifest import Descriptor, Manifest
from conforma.oci.reference import Reference

if TYPE_CHECKING:
    from conforma.oci.registry import Registry

DATA_LAYER: Final = "application/vnd.cncf.openpolicyagent.data.layer.v1+json"
TITLE: Final = "org.opencontainers.image.title"
# Without it tools that show an image's age fail; a real one would make every push another image.
_CREATED: Final = "0001-01-01T00:00:00Z"


def pull(registry: Registry, reference: Reference) -> bytes:
    """The data of the image, as its tag stands now.

    Raises ``InputError`` if there is no such image or it has not one layer of
    data, and what :class:`Registry` raises.
    """
    registry.forget(reference)
    try:
        pinned = registry.resolve(reference)
        manifest = registry.manifest(pinned)
    except NotFound as cause:
        raise InputError(f"{reference}: {cause.message}", hint=cause.hint) from cause
    layers = manifest.layers if isinstance(manifest, Manifest) else ()
    data = [layer for layer in layers if layer.media_type == DATA_LAYER]
    if len(data) != 1:
        # Of several, all but one would be lost when the image is written again.
        raise InputError(
            f"{reference}: the image has {len(data)} layers of policy data instead of one",
            hint=f"the layer's media type is {DATA_LAYER}",
        )
    return registry.read_blob(pinned, data[0])


def push(
    registry: Registry, reference: Reference, data: bytes, *, title: str, created_by: str
) -> Digest:
    """The tag of ``reference`` names an image of ``data``, which unpacks as the file ``title``.

    ``created_by`` is what its history says about it. Raises what
    :class:`Registry` raises; then the tag means what it meant before.
    """
    config = gojson.encode(_config(data, created_by))
    for blob in (data, config):
        registry.push_blob(reference, blob)
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": Descriptor(media_types.OCI_CONFIG, Digest.of(config), len(config)).as_dict(),
        "layers": [Descriptor(DATA_LAYER, Digest.of(data), len(data), {TITLE: title}).as_dict()],
    }
    return registry.push_manifest(reference, gojson.encode(document), media_types.OCI_MANIFEST)


def _config(data: bytes, created_by: str) -> dict[str, Any]:
    return {
        "architecture": "",
        "created": _CREATED,
        "history": [{"created": _CREATED, "created_by": created_by}],
        "os": "",
        "rootfs": {"type": "layers", "diff_ids": [str(DiffID.of(data))]},
        "config": {},
    }
