"""Which include and exclude items of a source group apply to a component at a moment.

The first half of section 4.5 of the ``validate image`` specification: items
come from the group's ``config``, from its ``volatileConfig`` while they are in
force, or else from the policy-wide ``configuration``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from msgspec import Struct

from conforma.gotext import quoted
from conforma.oci.reference import Reference
from conforma.policy.effective_time import rfc3339_nano
from conforma.policy.scoring import Applicable, Item, Subject, matchers
from conforma.policy.source_group import Criterion, Patterns, SourceGroup
from conforma.policy.timestamps import parse_moment

log = logging.getLogger(__name__)

_PLATFORM_SUFFIX = re.compile(r"-sha256:[0-9a-f]{64}-\S+$", re.ASCII)


class TimedItem(Struct, frozen=True):
    """An item that is in force within a window, both ends included; ``None`` is open."""

    item: Item
    since: datetime | None
    until: datetime | None

    def is_active(self, at: datetime) -> bool:
        """Whether ``at`` lies in the window."""
        return (self.since is None or self.since <= at) and (self.until is None or at <= self.until)

    @property
    def window(self) -> str:
        """The window in words."""
        words = [f"from {rfc3339_nano(self.since)}"] if self.since else []
        words += [f"until {rfc3339_nano(self.until)}"] if self.until else []
        return f"in force {' '.join(words)}" if words else "always in force"


class Side(Struct, frozen=True):
    """One side, include or exclude, of what a source group configures."""

    always: tuple[Item, ...] = ()
    timed: tuple[TimedItem, ...] = ()

    @classmethod
    def of(cls, name: str, patterns: Iterable[str], volatile: Iterable[Criterion]) -> Side:
        """Read ``config`` and ``volatileConfig``; ``name`` is include or exclude.

        An entry with an unreadable date is left out with a logged warning.
        """
        return cls(
            tuple(Item(pattern, f"config.{name}") for pattern in patterns),
            tuple(timed for entry in volatile for timed in _timed_items(entry, name)),
        )

    def at(self, moment: datetime) -> tuple[Item, ...]:
        """The items in force at a moment."""
        return (*self.always, *(timed.item for timed in self.timed if timed.is_active(moment)))


class Criteria(Struct, frozen=True):
    """All items of one source group, for every component and moment.

    The ``fallback`` items are those of the policy-wide ``configuration``; they
    count only while the group has no item of its own.
    """

    include: Side = Side()
    exclude: Side = Side()
    fallback_include: tuple[Item, ...] = ()
    fallback_exclude: tuple[Item, ...] = ()

    @classmethod
    def of(cls, group: SourceGroup, configuration: Patterns | None) -> Criteria:
        """Collect the items of a group; ``configuration`` is the policy-wide one."""
        fallback = configuration or Patterns()
        return cls(
            Side.of("include", group.config.include, group.volatile.include),
            Side.of("exclude", group.config.exclude, group.volatile.exclude),
            (
                *(Item(pattern, "configuration.include") for pattern in fallback.include),
                *(Item(f"@{name}", "configuration.collections") for name in fallback.collections),
            ),
            tuple(Item(pattern, "configuration.exclude") for pattern in fallback.exclude),
        )

    def applicable(
        self, image: Reference | None, component_name: str, moment: datetime
    ) -> Applicable:
        """The items that apply to one component, or to a plain document, at one moment.

        A component to which no include item applies includes everything. The
        Go tool includes everything only if there is no include item for any
        image, and otherwise has nothing to say about the remaining images.
        """
        include, exclude = self.include.at(moment), self.exclude.at(moment)
        if not include and not exclude:
            include, exclude = self.fallback_include, self.fallback_exclude
        applies = _applies_to(image, component_name)
        return Applicable.of(
            tuple(filter(applies, include)) or (Item("*", "default"),),
            tuple(filter(applies, exclude)),
        )

    def dormant(
        self, subject: Subject, image: Reference, component_name: str, moment: datetime
    ) -> tuple[tuple[Item, str], ...]:
        """The items that name a subject and do not count for the component, each with the reason."""
        names = {name for name, _ in matchers(subject)}
        applies = _applies_to(image, component_name)
        found: list[tuple[Item, str]] = []
        for side in (self.include, self.exclude):
            found += [(t.item, t.window) for t in side.timed if not t.is_active(moment)]
            found += [(i, _scope(i)) for i in side.at(moment) if not applies(i)]
        if self.include.at(moment) or self.exclude.at(moment):
            reason = "the source group has items of its own"
            found += [(item, reason) for item in (*self.fallback_include, *self.fallback_exclude)]
        return tuple(
            (item, reason)
            for item, reason in found
            if item.value in names or item.value.partition(":")[0] in names
        )


def _applies_to(image: Reference | None, component_name: str) -> Callable[[Item], bool]:
    images = set() if image is None else {image.repository_name, str(image.digest)}
    # A child of an image index answers to the name of the component it was expanded from.
    components = {component_name, _PLATFORM_SUFFIX.sub("", component_name)}

    def applies(item: Item) -> bool:
        if item.image:
            return item.image in images
        return not item.component or item.component in components

    return applies


def _scope(item: Item) -> str:
    return f"for image {item.image}" if item.image else f"for component {item.component}"


def _timed_items(entry: Criterion, side: str) -> Iterator[TimedItem]:
    window: list[datetime | None] = []
    for text in (entry.effective_on, entry.effective_until):
        moment = parse_moment(text) if text else None
        if text and moment is None:
            log.warning(
                "skipping volatile criteria %s: unable to parse %s as RFC3339 or 2006-01-02",
                quoted(entry.value),
                quoted(text),
            )
            return
        window.append(moment)
    for item in _scoped_items(entry, f"volatileConfig.{side}"):
        yield TimedItem(item, window[0], window[1])


def _scoped_items(entry: Criterion, origin: str) -> Iterator[Item]:
    if image := entry.image_ref or entry.image_url or entry.image_digest:
        yield Item(entry.value, origin, image=image)
    elif entry.component_names:
        # An empty name names no component; taken as no scope it would name all of them.
        for name in filter(None, entry.component_names):
            yield Item(entry.value, origin, component=name)
    else:
        yield Item(entry.value, origin)
