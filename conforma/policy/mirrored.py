"""Policy and data sources as artifacts, so that they travel with the images they judge.

What git or https delivered is one compressed layer under a name that is made
from the source's URL, in a repository that no registry can have. ``Sources``
looks there first when a mirror is in use.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from conforma import gojson
from conforma.cancellation import Cancellation
from conforma.errors import BadManifest, NotFound, PolicyError
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.manifest import Descriptor, Manifest
from conforma.oci.reference import Reference
from conforma.policy.archive import unpack
from conforma.policy.source_url import directory_name, without_secrets

if TYPE_CHECKING:
    from conforma.oci.registry import Registry

ARTIFACT_TYPE: Final = "application/vnd.conforma.policy.source.v1"
#: RFC 2606 reserves the domain, so the name never leads to a registry.
REPOSITORY: Final = "sources.conforma.invalid/policy"
_URL: Final = "dev.conforma.source.url"
_REVISION: Final = "dev.conforma.source.revision"
_EMPTY: Final = b"{}"


def place_of(url: str) -> Reference:
    """The name under which a mirror keeps what ``url`` names."""
    return Reference.parse(REPOSITORY).with_tag(directory_name(url))


def pack(url: str, revision: str, directory: Path) -> tuple[bytes, tuple[bytes, ...]]:
    """The manifest of the artifact, and its blobs.

    The same files give the same bytes, so a mirror that has them keeps them.
    """
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(directory.rglob("*")):
            member = tarfile.TarInfo(path.relative_to(directory).as_posix())
            if path.is_dir():
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
            elif path.is_file():
                content = path.read_bytes()
                member.size, member.mode = len(content), 0o644
                archive.addfile(member, io.BytesIO(content))
    layer = gzip.compress(plain.getvalue(), mtime=0)
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "config": Descriptor(media_types.OCI_EMPTY, Digest.of(_EMPTY), len(_EMPTY)).as_dict(),
        "layers": [Descriptor(media_types.OCI_LAYER_GZIP, Digest.of(layer), len(layer)).as_dict()],
        "annotations": {_REVISION: revision, _URL: without_secrets(url)},
    }
    return gojson.dumps(document).encode(), (_EMPTY, layer)


def fetch(
    registry: Registry, url: str, destination: Path, cancellation: Cancellation
) -> str | None:
    """Unpack the mirrored source into ``destination``; its revision, or ``None`` if it is not there.

    Raises ``PolicyError`` if what is there is something else, and what reading
    and unpacking raise.
    """
    place = place_of(url)
    try:
        manifest = registry.manifest(place)
    except NotFound:
        return None
    except BadManifest as cause:
        raise PolicyError(f"{without_secrets(url)}: mirrored: {cause.message}") from cause
    if not isinstance(manifest, Manifest) or len(manifest.layers) != 1:
        raise PolicyError(f"{without_secrets(url)}: what the mirror has is no policy source")
    kept = manifest.annotations.get(_URL, "")
    if kept != without_secrets(url):  # the name is but a short hash of the URL
        raise PolicyError(
            f"{without_secrets(url)}: what the mirror has under this name is {kept!r}",
            hint="mirror the release again",
        )
    destination.parent.mkdir(parents=True, exist_ok=True)
    target = destination.with_suffix(".layer")
    with target.open("wb") as out, registry.open_blob(place, manifest.layers[0]) as chunks:
        for chunk in chunks:
            cancellation.raise_if_cancelled()
            out.write(chunk)
    unpack(target, destination, cancellation, name="source.tar.gz")
    target.unlink()
    return manifest.annotations.get(_REVISION, "")
