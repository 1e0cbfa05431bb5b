"""What an image says about itself, read for the policy input (specification section 6).

An index without an image for linux/amd64, or a parent that we are not allowed
to see, is a fact like any other and leaves the member out. An image that is
malformed or incomplete, and a registry that does not answer for it, is raised:
a rule must not judge by the absence of what could not be read.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from conforma.cache.filters import InDirectories
from conforma.errors import BadManifest, NotFound, RegistryError
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


def read_facts(image: Reference, images: ImageReader) -> ImageFacts:
    """The configuration, parent and manifest files of a pinned image.

    For an index these are those of its linux/amd64 child. Raises what the
    registry and the cache raise, except that there is no such image.
    """
    try:
        manifest, config = images.image(image)
    except NotFound as error:
        log.debug("no configuration of %s: %s", image, error)
        return ImageFacts()
    parent = ParentImage.of(manifest.annotations)
    return ImageFacts(
        config=config.config,
        parent=parent,
        parent_config=_parent_config(parent, images) if parent is not None else None,
        files=_manifest_files(image, config.config, images),
    )


def _parent_config(parent: ParentImage, images: ImageReader) -> Mapping[str, Any] | None:
    try:
        _, config = images.image(parent.reference)
    except (NotFound, BadManifest) as error:
        log.debug("no configuration of parent image %s: %s", parent.text, error)
        return None
    except RegistryError as error:
        # Base images often live where only their builders may look.
        log.debug("parent image %s could not be read: %s", parent.text, error)
        return None
    return config.config


def _manifest_files(
    image: Reference, config: Mapping[str, Any], images: ImageReader
) -> dict[str, Any]:
    directory = manifest_directory(config)
    if directory is None:
        return {}
    return parsed_files(images.files(image, InDirectories((directory,))))
