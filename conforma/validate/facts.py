"""What an image says about itself, read for the policy input (specification section 6).

An index without an image for linux/amd64, or a parent that we are not allowed
to see, is a fact like any other and leaves the member out; a parent that cannot
be reached does so with a warning. An image that is malformed or incomplete, and
a registry that does not answer for it, is raised: a rule must not judge by the
absence of what could not be read.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any

from conforma.cache.filters import InDirectories
from conforma.errors import AccessDenied, BadManifest, BadResponse, NotFound, RegistryError
from conforma.oci.reference import Reference
from conforma.validate.policy_input import (
    ImageFacts,
    ParentImage,
    manifest_directory,
    parsed_files,
)

if TYPE_CHECKING:
    from conforma.cache.images import ImageReader

log = logging.getLogger(__name__)


def read_facts(image: Reference, images: ImageReader, among: Container[str]) -> ImageFacts:
    """The configuration, parent and manifest files of a pinned image.

    For an index these are those of its linux/amd64 child, if it has one; what
    it lists must be ``among`` the images that are validated. The image is known
    to be there; raises ``BadManifest`` and what the registry and the cache raise.
    """
    _check_children(image, images, among)
    try:
        manifest, config = images.image(image)
    except NotFound as error:
        log.debug("no configuration of %s: %s", image, error)
        return ImageFacts()
    parent = ParentImage.of(manifest.annotations)
    return ImageFacts(
        config=config.config,
        parent=parent,
        parent_config=_parent_config(image, parent, images) if parent is not None else None,
        files=_manifest_files(image, config.config, images),
    )


def _check_children(image: Reference, images: ImageReader, among: Container[str]) -> None:
    try:
        children = images.children(image)
    except NotFound as cause:
        raise BadResponse(
            f"{image}: the registry has the manifest, and does not give it: {cause.message}"
        ) from cause
    missing = next((child for child in children if str(child) not in among), None)
    if missing is not None:
        raise BadManifest(
            f"{image}: {missing} in this index is not among the components, so nobody judges it",
            hint="an index inside an index is not expanded; validate it on its own",
        )


def _parent_config(
    image: Reference, parent: ParentImage, images: ImageReader
) -> Mapping[str, Any] | None:
    try:
        _, config = images.image(parent.reference)
    except (NotFound, AccessDenied, BadManifest) as error:
        # Base images often live where only their builders may look.
        log.debug("no configuration of parent image %s: %s", parent.text, error)
        return None
    except RegistryError as error:
        # Some live where only their builders get to, so this is no outage of ours.
        hint = f" ({error.hint})" if error.hint else ""
        log.warning("rules judge %s without its parent image: %s%s", image, error, hint)
        return None
    return config.config


def _manifest_files(
    image: Reference, config: Mapping[str, Any], images: ImageReader
) -> dict[str, Any]:
    directory = manifest_directory(config)
    if directory is None:
        return {}
    return parsed_files(images.files(image, InDirectories((directory,))))
