"""Image indexes become components: one for each entry, beside the index itself.

Specification section 1.4. An index that cannot be read stays as it is; what
is wrong with it is found again, and reported, when it is validated.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from typing import Final

from conforma.cancellation import Cancellation
from conforma.errors import ConformaError, Interrupted
from conforma.oci.manifest import Descriptor, Index
from conforma.oci.media_types import INDEXES
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry
from conforma.validate.pool import in_parallel
from conforma.validate.result import Expansion
from conforma.validate.snapshot import Component, Snapshot

log = logging.getLogger(__name__)

_DEFAULT_WORKERS: Final = 5


@dataclass(frozen=True, slots=True)
class _Found:
    """An index: its reference as given, its pinned one, and a component for each entry."""

    alias: str
    pinned: str
    children: tuple[Component, ...]


def expand(
    snapshot: Snapshot, registry: Registry, cancellation: Cancellation
) -> tuple[Snapshot, Expansion]:
    """The snapshot with the children of its indexes, sorted by image, and what was expanded.

    Problems are logged as one warning. Raises only what ends the run.
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
    for answer in answers:
        if isinstance(answer, _Problem):
            problems.append(answer.message)
        elif isinstance(answer, Exception):
            raise answer
        elif answer is not None:
            components.extend(answer.children)
            aliases[answer.alias] = answer.pinned
            children[answer.pinned] = tuple(c.container_image for c in answer.children)
    if problems:
        log.warning("Encountered error while checking for Image Index: %s", "\n".join(problems))
    components.sort(key=lambda component: component.container_image)
    return replace(snapshot, components=tuple(components)), Expansion(aliases, children)


class _Problem(ConformaError):
    """Why one component could not be looked at."""


def _look(component: Component, registry: Registry) -> _Found | None:
    image = component.container_image
    step = f"unable to parse container image {image}"
    try:
        reference = Reference.parse(image)
        step = f"unable to fetch descriptor for container image {image}"
        descriptor = registry.head(reference)
        if descriptor.media_type not in INDEXES:
            return None
        step = f"unable to fetch index manifest for container image {image}"
        pinned = reference.pinned(descriptor.digest)
        index = registry.manifest(pinned)
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
