"""OCI artifacts as sources: policy bundles pushed with oras or conftest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from conforma.cancellation import Cancellation
from conforma.errors import (
    BadManifest,
    BadReference,
    ConformaError,
    NotFound,
    PolicyError,
    TooLarge,
    UnsafeArchive,
)
from conforma.oci.manifest import Descriptor, Index
from conforma.oci.reference import Reference
from conforma.policy.archive import unpack_layer
from conforma.policy.files import MOST_BYTES, MOST_FILES, Allowance

if TYPE_CHECKING:
    from conforma.oci.registry import Registry

_TITLE: Final = "org.opencontainers.image.title"
_UNPACK: Final = "io.deis.oras.content.unpack"
_LOCALHOST: Final = re.compile(r"^localhost(?=[:/]|$)", re.IGNORECASE)


class Artifacts:
    """Fetches artifacts through the registry client. Thread safe."""

    def __init__(self, registry: Registry, cancellation: Cancellation) -> None:
        self._registry = registry
        self._cancellation = cancellation

    def fetch(self, source: str, destination: Path) -> str:
        """Put the titled layers of the artifact into ``destination``; returns its digest.

        Raises ``PolicyError`` if it does not exist or cannot be used,
        ``UnsafeArchive`` for titles and members that would leave
        ``destination``, ``RegistryError`` if the registry could not be asked.
        """
        reference = reference_of(source)
        try:
            pinned = self._registry.resolve(reference)
            layers = tuple(self._layers(pinned))
        except (NotFound, BadManifest) as cause:
            reason, hint = cause.message, f"{reference} is no policy artifact"
            if isinstance(cause, NotFound):
                hint = f"{hint}: {reason}"
                reason = f'failed to perform "FetchReference" on source: {reference}: not found'
            raise PolicyError(f"pulling policy: {reason}", hint=hint) from cause
        if sum(layer.size for layer in layers) > MOST_BYTES or len(layers) > MOST_FILES:
            raise TooLarge(f"pulling policy: {reference}: larger than {MOST_BYTES >> 20} MiB")
        destination.mkdir(parents=True, exist_ok=True)
        allowance = Allowance()
        for layer in layers:
            try:
                self._store(pinned, layer, destination, allowance)
            except ConformaError as cause:
                # Class and exit status tell an outage from a bad artifact.
                raise type(cause)(f"pulling policy: {cause.message}", hint=cause.hint) from cause
        return str(pinned.digest)

    def _layers(self, pinned: Reference) -> Iterator[Descriptor]:
        manifest = self._registry.manifest(pinned)
        if isinstance(manifest, Index):
            for child in manifest.manifests:
                inner = self._registry.manifest(pinned.pinned(child.digest))
                if not isinstance(inner, Index):
                    yield from (layer for layer in inner.layers if _TITLE in layer.annotations)
        else:
            yield from (layer for layer in manifest.layers if _TITLE in layer.annotations)

    def _store(
        self, pinned: Reference, layer: Descriptor, destination: Path, allowance: Allowance
    ) -> None:
        title = layer.annotations[_TITLE]
        path = PurePosixPath(title)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in title:
            raise UnsafeArchive(f"layer title {title!r} would be written outside its directory")
        unpacked = layer.annotations.get(_UNPACK) == "true"
        target = (
            destination.with_suffix(".layer") if unpacked else destination.joinpath(*path.parts)
        )
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with (
                target.open("wb") as out,
                self._registry.open_blob(pinned, layer) as chunks,
            ):
                for chunk in chunks:
                    self._cancellation.raise_if_cancelled()
                    out.write(chunk)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as cause:
            raise UnsafeArchive(f"layer title {title!r} is a file and a directory") from cause
        if unpacked:
            unpack_layer(target, destination, title, self._cancellation, allowance)
            target.unlink()


def reference_of(source: str) -> Reference:
    """The reference an OCI source URL names (section 3.2). Raises ``BadReference``."""
    text = source.rpartition("::")[2]
    text = text.partition("://")[2] if "://" in text else text
    # A name that resolves to ::1 first would miss registries that listen on IPv4 only.
    text = _LOCALHOST.sub("127.0.0.1", text)
    if "/" not in text and not text.startswith(("oci:", "oci-archive:")):
        # For images this would be one of Docker Hub's; a policy is not found there by accident.
        raise BadReference(
            "failed to parse reference: invalid reference: missing registry or repository",
            hint=f"{source}: write REGISTRY/REPOSITORY",
        )
    try:
        return Reference.parse(text)
    except BadReference as cause:
        raise BadReference(
            f"failed to parse reference: {cause.message}", hint=cause.hint
        ) from cause
