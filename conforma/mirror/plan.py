"""The plan of a mirror run: one item for each thing that must be at the destination.

Items form a graph. A manifest waits for its blobs, an index for its children,
a name for the manifest and everything attached to it. What several images
need is one item that knows them all. Planning is arithmetic: no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from msgspec import Struct, field

from conforma.errors import ConformaError, InputError
from conforma.mirror.inventory import Attached, Node, Root
from conforma.mirror.names import Names
from conforma.oci.digest import Digest
from conforma.oci.manifest import Descriptor, Index
from conforma.oci.reference import Reference
from conforma.oci.upload import Open, from_memory

Kind = Literal["blob", "manifest", "referrers", "name"]
State = Literal["planned", "active", "copied", "present", "skipped", "failed", "cancelled"]
FINAL: Final[tuple[State, ...]] = ("copied", "present", "skipped", "failed", "cancelled")


class Item(Struct, eq=False):
    """One thing to be at the destination. Its mutable half belongs to the run."""

    kind: Kind
    target: Reference
    descriptor: Descriptor
    origin: Reference | None = None
    """Where a registry has it; ``None`` for what was made here."""
    raw: bytes = b""
    wanted: tuple[Descriptor, ...] = ()
    """Of a list of referrers: what must be in it."""
    source: Open | None = None
    images: set[int] = field(default_factory=set)
    feeds: dict[Item, None] = field(default_factory=dict)
    needs: int = 0
    state: State = "planned"
    reason: str = ""
    mount: Reference | None = None
    """A repository of the destination's registry that has, or will have, the same blob."""

    @property
    def size(self) -> int:
        """Bytes to be moved; only blobs count."""
        return self.descriptor.size if self.kind == "blob" else 0

    def before(self, other: Item) -> None:
        """Have ``other`` wait for this one."""
        if other not in self.feeds:
            self.feeds[other] = None
            other.needs += 1

    def __str__(self) -> str:
        if self.kind == "blob":
            return f"blob {self.target.repository_name}@{self.descriptor.digest}"
        if self.kind == "referrers":
            return f"referrers of {self.target}"
        return f"{self.kind} {self.target}"

    def __repr__(self) -> str:
        return f"<Item {self}>"  # what it feeds would be the whole plan


class PlannedImage(Struct, frozen=True):
    """One image of the plan, by its number."""

    label: str
    source: Reference
    target: Reference


class Plan(Struct):
    """Everything one run will see to."""

    images: list[PlannedImage] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)

    @property
    def unique_bytes(self) -> int:
        """Bytes of all distinct blobs."""
        return sum({i.descriptor.digest: i.size for i in self.items if i.kind == "blob"}.values())


class Shape(Struct, frozen=True):
    """What kind of destination is planned for.

    ``one_store``: blobs and manifests belong to all names, as in a layout.
    ``lists_digests``: a manifest without a tag must be named too.
    """

    one_store: bool = False
    lists_digests: bool = False


class Planner:
    """Turns an inventory into a plan. Not thread safe."""

    def __init__(self, names: Names, shape: Shape) -> None:
        self._names = names
        self._shape = shape
        self._items: dict[tuple[Kind, Reference], Item] = {}
        self._plan = Plan()

    def plan(self, roots: Iterable[Root]) -> Plan:
        """The plan for these images.

        Raises ``InputError`` when two of them would get the same name there.
        """
        for root in roots:
            number = len(self._plan.images)
            target = self._names.of(root.source)
            self._plan.images.append(PlannedImage(root.label, root.source, target))
            if root.node is None:
                self._failed(number, target, root.error)
            else:
                self._name(root.node, target, number, self._manifest(root.node, target, number))
        self._plan.items = list(self._items.values())
        return self._plan

    def _failed(self, number: int, target: Reference, error: ConformaError | None) -> None:
        absent = Descriptor("", Digest.of(b""), 0)
        item = Item("name", target, absent, images={number}, state="failed")
        item.reason = str(error)
        self._items.setdefault(("name", target), item).images.add(number)

    def _name(self, node: Node, target: Reference, number: int, after: list[Item]) -> None:
        """The name itself, which moves after everything in ``after``."""
        if target.tag is None and not self._shape.lists_digests:
            return
        target = target if target.tag is None else target.with_tag(target.tag)
        known = self._items.get(("name", target))
        if known is not None and known.descriptor.digest != node.descriptor.digest:
            raise InputError(
                f"{target} would be two things: {known.origin} and {node.origin}",
                hint="give them different names with --rewrite FROM=TO",
            )
        item = self._item("name", target, node.descriptor, number, node)
        for needed in after:
            needed.before(item)

    def _manifest(self, node: Node, target: Reference, number: int) -> list[Item]:
        """The items of a manifest and all that belongs to it; the manifest itself comes first."""
        digest = node.descriptor.digest
        place = self._place(target, digest)
        fresh = ("manifest", place) not in self._items
        item = self._item("manifest", place, node.descriptor, number, node)
        everything = [item]
        if not isinstance(node.document, Index):
            skipped = {descriptor.digest for descriptor, _ in node.skipped}
            for blob in (node.document.config, *node.document.layers):
                if blob.digest not in skipped:
                    self._blob(blob, node, target, number).before(item)
        for child in node.children:
            belonging = self._manifest(child, target, number)
            belonging[0].before(item)
            everything.extend(belonging)
        if fresh:
            for descriptor, reason in node.skipped:
                kind: Kind = "manifest" if isinstance(node.document, Index) else "blob"
                self._skipped(kind, descriptor, target, number, reason)
        for attached in node.attached:
            everything.extend(self._attachment(attached, target, number))
        everything.extend(self._referrers(node, target, number, place))
        return everything

    def _attachment(self, attached: Attached, target: Reference, number: int) -> list[Item]:
        belonging = self._manifest(attached.node, target, number)
        digest = attached.node.descriptor.digest
        name = target.pinned(digest) if attached.tag is None else target.with_tag(attached.tag)
        self._name(attached.node, name, number, belonging[:1])
        named = self._items.get(("name", name))
        return [*belonging, named] if named is not None else belonging

    def _referrers(
        self, node: Node, target: Reference, number: int, place: Reference
    ) -> list[Item]:
        """The list of referrers, which a registry without the API keeps under a tag."""
        listed = [a for a in node.attached if a.tag is None and a.described is not None]
        if not listed or self._shape.one_store:
            return []
        item = self._item("referrers", place, node.descriptor, number, node)
        item.wanted = tuple(a.described for a in listed if a.described is not None)
        for attached in listed:
            there = self._place(target, attached.node.descriptor.digest)
            self._items["manifest", there].before(item)
        return [item]

    def _blob(self, blob: Descriptor, node: Node, target: Reference, number: int) -> Item:
        place = self._place(target, blob.digest)
        item = self._items.get(("blob", place))
        if item is None:
            item = self._items["blob", place] = Item("blob", place, blob, node.origin)
            content = node.content.get(blob.digest)
            item.source = None if content is None else from_memory(content)
        item.images.add(number)
        return item

    def _skipped(
        self, kind: Kind, descriptor: Descriptor, target: Reference, number: int, reason: str
    ) -> None:
        place = self._place(target, descriptor.digest)
        item = Item(kind, place, descriptor, images={number}, state="skipped", reason=reason)
        self._items.setdefault((kind, place), item)

    def _item(
        self, kind: Kind, place: Reference, descriptor: Descriptor, number: int, node: Node
    ) -> Item:
        item = self._items.get((kind, place))
        if item is None:
            item = Item(kind, place, descriptor, node.origin, node.document.raw)
            self._items[kind, place] = item
        item.images.add(number)
        return item

    def _place(self, target: Reference, digest: Digest) -> Reference:
        if self._shape.one_store:
            return Reference("", "", digest=digest)
        return target.pinned(digest)


def check_order(items: Sequence[Item]) -> None:
    """Raise ``InputError`` if the items wait for each other in a circle."""
    waiting = {id(item): item.needs for item in items}
    ready = [item for item in items if item.needs == 0]
    seen = 0
    while ready:
        item = ready.pop()
        seen += 1
        for fed in item.feeds:
            if id(fed) in waiting:
                waiting[id(fed)] -= 1
                if waiting[id(fed)] == 0:
                    ready.append(fed)
    if seen < len(items):
        stuck = next(item for item in items if waiting[id(item)] > 0)
        raise InputError(f"{stuck} waits for itself")
