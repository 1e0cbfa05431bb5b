"""What belongs to an image: its manifests, their blobs, and everything attached to them.

Attached are cosign's tags (``.sig``, ``.att``, ``.sbom``) and referrers, in
whatever layout they are; of an index, those of its children as well. On
request also what images were built from: parents, and the images attestations name.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from msgspec import Struct

from conforma.cancellation import Cancellation
from conforma.errors import BadManifest, ConformaError, InputError, Interrupted, NotFound
from conforma.mirror.related import images_in
from conforma.oci.digest import Digest
from conforma.oci.manifest import Descriptor, Index, Manifest, Platform
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry
from conforma.trust.evidence import MAX_LAYER_BYTES
from conforma.validate.policy_input import ParentImage
from conforma.validate.pool import in_parallel

COSIGN_TAGS: Final = ("sig", "att", "sbom")
_DEEPEST: Final = 5
_WORKERS: Final = 16
_Look = Literal["everything", "referrers", "nothing"]
_ABOUT: Final = "vnd.docker.reference.digest"


@dataclass(frozen=True, slots=True)
class Node:
    """One manifest, where it is, and what belongs to it."""

    origin: Reference
    document: Manifest | Index
    children: tuple[Node, ...] = ()
    attached: tuple[Attached, ...] = ()
    skipped: tuple[tuple[Descriptor, str], ...] = ()
    """Children and layers that are left out, each with the reason."""
    content: Mapping[Digest, bytes] = field(default_factory=dict, repr=False)
    """Blobs that were made here and no registry has."""

    @property
    def descriptor(self) -> Descriptor:
        """Type, digest and size of the manifest."""
        assert self.origin.digest is not None
        return Descriptor(self.document.media_type, self.origin.digest, len(self.document.raw))


class Attached(Struct, frozen=True):
    """Something about a manifest, under a tag of its own or, with ``tag`` ``None``, by its subject."""

    tag: str | None
    node: Node
    described: Descriptor | None = None
    """How the list of referrers describes it."""


class Root(Struct, frozen=True):
    """An image somebody asked for, or that is named by one; ``node`` is ``None`` after an error."""

    label: str
    source: Reference
    node: Node | None = None
    error: ConformaError | None = None


class Wish(Struct, frozen=True):
    """What of each image is wanted: ``platforms`` empty for all; ``related``: also its parent
    and what its attestations name."""

    platforms: tuple[Platform, ...] = ()
    related: bool = False


class Inventory:
    """Looks images up in their source, many at the same time."""

    def __init__(self, registry: Registry, wish: Wish, cancellation: Cancellation) -> None:
        self._registry = registry
        self._wish = wish
        self._cancellation = cancellation
        self._lock = threading.Lock()
        self._nodes: dict[tuple[str, Digest, _Look], Node] = {}

    def take(self, wanted: Sequence[tuple[str, Reference]]) -> tuple[Root, ...]:
        """Everything about the images, each with its label; an image that fails says why.

        Raises only what ends the run.
        """
        roots = self._look(wanted)
        if not self._wish.related:
            return roots
        known = {root.source for root in roots}
        named: dict[Reference, str] = {}
        taken: list[Root] = []
        for root in roots:
            try:
                related = () if root.node is None else tuple(self._named_by(root.node))
            except Interrupted:
                raise
            except ConformaError as error:
                # An image without what belongs to it would look as if it had all of it.
                taken.append(Root(root.label, root.source, error=error))
                continue
            taken.append(root)
            for reference in related:
                if reference not in known:
                    named.setdefault(reference, f"{reference} (named by {root.label})")
        found = self._look([(label, reference) for reference, label in named.items()])
        return (*taken, *found)

    def _look(self, wanted: Sequence[tuple[str, Reference]]) -> tuple[Root, ...]:
        answers = in_parallel(
            wanted,
            lambda item: self._root(*item),
            workers=_WORKERS,
            cancellation=self._cancellation,
        )
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return tuple(answer for answer in answers if isinstance(answer, Root))

    def _root(self, label: str, source: Reference) -> Root:
        try:
            return Root(label, source, self._node(self._registry.resolve(source), 0))
        except Interrupted:
            raise
        except ConformaError as error:
            return Root(label, source, error=error)

    def _node(self, pinned: Reference, depth: int, look: _Look = "everything") -> Node:
        assert pinned.digest is not None
        key = (pinned.repository_name, pinned.digest, look)
        with self._lock:
            known = self._nodes.get(key)
        if known is not None:
            return known
        if depth > _DEEPEST:
            raise BadManifest(f"{pinned}: nested too deep")
        self._cancellation.raise_if_cancelled()
        document = self._registry.manifest(pinned)
        children: tuple[Node, ...] = ()
        if isinstance(document, Index):
            wanted, skipped = self._chosen(document)
            children = tuple(self._node(pinned.pinned(d.digest), depth + 1) for d in wanted)
        else:
            skipped = [
                (layer, "its content is not distributed by registries")
                for layer in document.layers
                if layer.urls
            ]
        attached: list[Attached] = []
        if look == "everything":
            attached.extend(self._tagged(pinned, depth))
        if look != "nothing":
            attached.extend(self._referring(pinned, depth))
        node = Node(pinned, document, children, tuple(attached), tuple(skipped))
        with self._lock:
            return self._nodes.setdefault(key, node)

    def _chosen(self, index: Index) -> tuple[list[Descriptor], list[tuple[Descriptor, str]]]:
        platforms = self._wish.platforms
        if not platforms:
            return list(index.manifests), []
        chosen = {
            child.digest
            for child in index.manifests
            if child.platform is None or any(_covers(p, child.platform) for p in platforms)
        }
        wanted: list[Descriptor] = []
        skipped: list[tuple[Descriptor, str]] = []
        for child in index.manifests:
            # What build tools say about a platform's image stands beside it in the index.
            about = child.annotations.get(_ABOUT)
            if child.digest in chosen or about in set(map(str, chosen)):
                wanted.append(child)
            else:
                skipped.append((child, f"platform {child.platform} was not chosen"))
        return wanted, skipped

    def _tagged(self, pinned: Reference, depth: int) -> Iterable[Attached]:
        assert pinned.digest is not None
        for suffix in COSIGN_TAGS:
            tag = f"{pinned.digest.algorithm}-{pinned.digest.hex}.{suffix}"
            try:
                place = self._registry.resolve(pinned.with_tag(tag))
                yield Attached(tag, self._node(place, depth + 1, "nothing"))
            except NotFound:
                continue

    def _referring(self, pinned: Reference, depth: int) -> Iterable[Attached]:
        try:
            listed = self._registry.referrers(pinned)
        except NotFound:
            return
        for found in listed:
            node = self._node(pinned.pinned(found.digest), depth + 1, "referrers")
            yield Attached(None, node, found)

    def _named_by(self, node: Node) -> Iterable[Reference]:
        parent = ParentImage.of(node.document.annotations)
        if parent is not None and parent.reference.digest is not None:
            yield parent.reference.pinned(parent.reference.digest)
        for attached in node.attached:
            if attached.tag is None or attached.tag.endswith(".att"):
                document = attached.node.document
                for layer in document.layers if isinstance(document, Manifest) else ():
                    if layer.size <= MAX_LAYER_BYTES:  # else it is no attestation
                        raw = self._registry.read_blob(
                            attached.node.origin, layer, limit=MAX_LAYER_BYTES
                        )
                        yield from images_in(raw)
        for child in node.children:
            yield from self._named_by(child)


def _covers(wanted: Platform, found: Platform) -> bool:
    return (wanted.os, wanted.architecture) == (found.os, found.architecture) and (
        not wanted.variant or wanted.variant == found.variant
    )


def parse_platform(text: str) -> Platform:
    """Read ``os/architecture[/variant]``. Raises ``InputError``."""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise InputError(f"{text!r} is not a platform", hint="write it as linux/arm64")
    return Platform(parts[0], parts[1], parts[2] if len(parts) == 3 else "")
