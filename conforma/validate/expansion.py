"""Image indexes become components: one for each entry, beside the index itself.

Specification section 1.4. What is no index, or is not there, stays as it is
and is reported when it is validated. What could not be read might be an index,
with children that nobody would look at: its component cannot be decided.
"""

from __future__ import annotations

import logging
import os
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from conforma.cancellation import Cancellation
from conforma.errors import (
    ConformaError,
    DeadlineExceeded,
    IntegrityError,
    Interrupted,
    NotFound,
    RegistryError,
)
from conforma.oci.manifest import Descriptor, Index
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry
from conforma.validate.pool import in_parallel
from conforma.validate.result import Expansion
from conforma.validate.snapshot import Component, Snapshot

log = logging.getLogger(__name__)

_DEFAULT_WORKERS: Final = 5


class _Found(Struct, frozen=True):
    """An index: its reference as given, its pinned one, and a component for each entry."""

    alias: str
    pinned: str
    children: tuple[Component, ...]


def expand(
    snapshot: Snapshot, registry: Registry, cancellation: Cancellation
) -> tuple[Snapshot, Expansion, dict[str, ConformaError]]:
    """The snapshot with the children of its indexes, sorted by image, and what was expanded.

    Problems are logged as one warning, and those that kept us from finding out
    are returned by image, as is the time limit for images not looked at before it.
    Raises only what ends the run: ``Interrupted`` if the user stopped it.
    """
    answers = in_parallel(
        snapshot.components,
        lambda component: _look(component, registry),
        workers=_workers(),
        cancellation=cancellation,
    )
    components = list(snapshot.components)
    aliases: dict[str, str] = {}
    children: dict[str, tuple[str, ...]] = {}
    problems: list[str] = []
    unread: dict[str, ConformaError] = {}
    for component, answer in zip(snapshot.components, answers, strict=True):
        if isinstance(answer, _Problem):
            problems.append(answer.message)
            cause = answer.__cause__
            if isinstance(cause, RegistryError | IntegrityError) and not isinstance(
                cause, NotFound
            ):
                unread[component.container_image] = cause
        elif isinstance(answer, DeadlineExceeded):
            unread[component.container_image] = answer
        elif isinstance(answer, Exception):
            raise answer
        elif answer is not None:
            components.extend(answer.children)
            aliases[answer.alias] = answer.pinned
            children[answer.pinned] = tuple(c.container_image for c in answer.children)
    if problems:
        log.warning("Encountered error while checking for Image Index: %s", "\n".join(problems))
    components.sort(key=lambda component: component.container_image)
    expanded = replace(snapshot, components=tuple(components))
    return expanded, Expansion(aliases, children), unread


class _Problem(ConformaError):
    """Why one component could not be looked at."""


def _look(component: Component, registry: Registry) -> _Found | None:
    image = component.container_image
    step = f"unable to parse container image {image}"
    try:
        reference = Reference.parse(image)
        step = f"unable to fetch descriptor for container image {image}"
        # Not its HEAD: the digest in there is a claim, and the manifest is needed anyway.
        index = registry.manifest(reference)
        pinned = registry.resolve(reference)
    except Interrupted:
        raise
    except ConformaError as cause:
        raise _Problem(f"{step}: {cause.message}") from cause
    if not isinstance(index, Index):
        return None
    return _Found(
        str(reference),
        str(pinned),
        tuple(
            Component(
                f"{component.name}-{entry.digest}-{_architecture(entry, number)}",
                str(reference.pinned(entry.digest)),
                component.source,
            )
            for number, entry in enumerate(index.manifests)
        ),
    )


def _architecture(entry: Descriptor, number: int) -> str:
    architecture = entry.platform.architecture if entry.platform is not None else ""
    return architecture or f"noarch-{number}"


def _workers() -> int:
    try:
        return max(1, int(os.environ.get("IMAGE_INDEX_WORKERS", "")))
    except ValueError:
        return _DEFAULT_WORKERS
