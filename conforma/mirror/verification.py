"""Proof that a mirror is whole: every name resolves, every digest is that of its bytes."""

from __future__ import annotations

from msgspec import Struct

from conforma.cancellation import Cancellation
from conforma.errors import ConformaError, DigestMismatch, Interrupted
from conforma.mirror.plan import Item, Plan
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry
from conforma.validate.pool import in_parallel


class Proof(Struct, frozen=True):
    """What was read back, and everything that was not as it should be."""

    names: int
    manifests: int
    blobs: int
    bytes: int
    problems: tuple[str, ...]


def verify(plan: Plan, reader: Registry, cancellation: Cancellation, *, workers: int) -> Proof:
    """Read everything of ``plan`` back through ``reader`` and compare.

    ``reader`` must not remember what was read or written before. What was
    skipped on purpose is not looked for. Raises only what ends the run.
    """
    expected = [item for item in plan.items if not (item.state == "skipped" and not item.raw)]
    answers = in_parallel(
        expected,
        lambda item: _check(item, reader, cancellation, plan),
        workers=workers,
        cancellation=cancellation,
    )
    problems: list[str] = []
    for item, answer in zip(expected, answers, strict=True):
        if isinstance(answer, Interrupted):
            raise answer
        if isinstance(answer, ConformaError):
            problems.append(f"{item}: {answer.message}")
        elif isinstance(answer, Exception):
            raise answer
    kinds = [item.kind for item in expected]
    return Proof(
        names=kinds.count("name"),
        manifests=kinds.count("manifest"),
        blobs=kinds.count("blob"),
        bytes=sum(item.size for item in expected),
        problems=tuple(problems),
    )


def _check(item: Item, reader: Registry, cancellation: Cancellation, plan: Plan) -> None:
    place = _readable(item, plan)
    if item.kind == "blob":
        with reader.open_blob(place, item.descriptor) as chunks:
            for _ in chunks:
                cancellation.raise_if_cancelled()
    elif item.kind == "manifest":
        if reader.manifest(place).raw != item.raw:
            raise DigestMismatch(f"{place}: other bytes than those of the source")
    elif item.kind == "name":
        found = reader.head(place).digest
        if found != item.descriptor.digest:
            raise DigestMismatch(f"{place}: is {found}, should be {item.descriptor.digest}")
    else:
        listed = {descriptor.digest for descriptor in reader.referrers(place)}
        missing = [str(d.digest) for d in item.wanted if d.digest not in listed]
        if missing:
            raise DigestMismatch(f"{place}: its referrers lack {', '.join(missing)}")


def _readable(item: Item, plan: Plan) -> Reference:
    """The item's place in words a reader understands: a layout has no repositories for blobs."""
    if item.target.registry or not item.images:
        return item.target
    image = plan.images[min(item.images)].target
    digest = item.target.digest
    return image.pinned(digest) if digest is not None else item.target
