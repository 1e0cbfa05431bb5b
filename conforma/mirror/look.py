"""What is at the destination already, found out before anything moves.

A registry that has an image's manifest has its blobs, because it would not
have taken the manifest otherwise; so a second run asks about manifests and
names, and about blobs only where a manifest is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from conforma.cancellation import Cancellation
from conforma.errors import Interrupted
from conforma.mirror.destination import Destination
from conforma.mirror.plan import Item, Plan
from conforma.oci.digest import Digest
from conforma.validate.pool import in_parallel

_WORKERS: Final = 16


def look(plan: Plan, destination: Destination, cancellation: Cancellation) -> None:
    """Mark what is present, and let blobs of one digest be uploaded once and mounted else.

    A question that fails leaves its item to the run, which fails there and
    tells. Raises only what ends the run.
    """
    open_items = [item for item in plan.items if item.state == "planned"]
    manifests = [item for item in open_items if item.kind == "manifest"]
    _ask(manifests, lambda item: destination.has_manifest(item.target), cancellation)
    if not destination.shape.one_store:
        _with_their_manifests(open_items)
    blobs = [item for item in open_items if item.kind == "blob" and item.state == "planned"]
    _ask(blobs, lambda item: destination.has_blob(item.target, item.descriptor), cancellation)
    names = [item for item in open_items if item.kind == "name"]
    _ask(
        names,
        lambda item: destination.named(item.target) == item.descriptor.digest,
        cancellation,
    )
    _forget_what_is_there(open_items)
    if not destination.shape.one_store:
        _share(open_items)


def _ask(items: list[Item], is_there: Callable[[Item], bool], cancellation: Cancellation) -> None:
    answers = in_parallel(items, is_there, workers=_WORKERS, cancellation=cancellation)
    for item, answer in zip(items, answers, strict=True):
        if isinstance(answer, Interrupted):
            raise answer
        if answer is True:
            item.state = "present"


def _with_their_manifests(items: Iterable[Item]) -> None:
    for item in items:
        if item.kind == "blob":
            for fed in item.feeds:
                if fed.kind == "manifest" and fed.state == "present":
                    item.state = "present"


def _forget_what_is_there(items: Iterable[Item]) -> None:
    for item in items:
        if item.state == "present":
            for fed in item.feeds:
                fed.needs -= 1
            item.feeds.clear()


def _share(items: Iterable[Item]) -> None:
    """Of equal blobs for several repositories one is copied, the others are mounted from it."""
    first: dict[Digest, Item] = {}
    blobs = [item for item in items if item.kind == "blob"]
    for item in sorted(blobs, key=lambda item: item.state != "present"):
        chosen = first.setdefault(item.descriptor.digest, item)
        if chosen is not item and item.state == "planned":
            item.mount = chosen.target
            chosen.images |= item.images
            if chosen.state == "planned":
                chosen.before(item)
        elif item.state == "planned" and item.origin is not None:
            item.mount = item.origin if item.origin.registry == item.target.registry else None
