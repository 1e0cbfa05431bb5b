"""The source groups of a policy configuration, as values.

A group names sources of rules and data that are evaluated together, and says
which of its rules count: always (``config``), or for some time, images or
components only (``volatileConfig``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from conforma import gojson


class Criterion(Struct, frozen=True):
    """One entry of ``volatileConfig``: a pattern that counts for some time, images or components."""

    value: str
    effective_on: str = ""
    effective_until: str = ""
    image_ref: str = ""
    image_digest: str = ""
    image_url: str = ""
    component_names: tuple[str, ...] = ()
    reference: str = ""

    @classmethod
    def parse(cls, members: Mapping[str, Any]) -> Criterion:
        """Read an entry that conforms to the schema."""
        return cls(
            members["value"],
            members.get("effectiveOn", ""),
            members.get("effectiveUntil", ""),
            members.get("imageRef", ""),
            members.get("imageDigest", ""),
            members.get("imageUrl", ""),
            tuple(members.get("componentNames", ())),
            members.get("reference", ""),
        )

    def as_dict(self) -> dict[str, Any]:
        """As the report prints it (section 2.7)."""
        return {"value": self.value} | without_empty(
            effectiveOn=self.effective_on,
            effectiveUntil=self.effective_until,
            imageRef=self.image_ref,
            imageDigest=self.image_digest,
            imageUrl=self.image_url,
            componentNames=list(self.component_names),
            reference=self.reference,
        )


class Patterns(Struct, frozen=True):
    """What to include and what to exclude; ``collections`` only in the global configuration.

    ``given`` tells an empty object in the document from none; the report
    repeats the difference.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    collections: tuple[str, ...] = ()
    given: bool = True

    @classmethod
    def parse(cls, members: Mapping[str, Any] | None) -> Patterns:
        """Read an object that conforms to the schema."""
        given = members is not None
        members = members or {}
        return cls(
            tuple(members.get("include", ())),
            tuple(members.get("exclude", ())),
            tuple(members.get("collections", ())),
            given,
        )

    def as_dict(self) -> dict[str, Any]:
        """As the report prints it (section 2.7)."""
        return without_empty(
            exclude=list(self.exclude),
            include=list(self.include),
            collections=list(self.collections),
        )


class Volatile(Struct, frozen=True):
    """The entries of ``volatileConfig``."""

    include: tuple[Criterion, ...] = ()
    exclude: tuple[Criterion, ...] = ()
    given: bool = True

    @classmethod
    def parse(cls, members: Mapping[str, Any] | None) -> Volatile:
        """Read an object that conforms to the schema."""
        found = members or {}
        return cls(
            tuple(map(Criterion.parse, found.get("include", ()))),
            tuple(map(Criterion.parse, found.get("exclude", ()))),
            members is not None,
        )

    def as_dict(self) -> dict[str, Any]:
        """As the report prints it (section 2.7)."""
        return without_empty(
            exclude=[criterion.as_dict() for criterion in self.exclude],
            include=[criterion.as_dict() for criterion in self.include],
        )


class SourceGroup(Struct, frozen=True):
    """Policies and data that are evaluated together, on their own.

    ``rule_data`` is ``None`` where the document has none.
    """

    name: str = ""
    policy: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    rule_data: Mapping[str, Any] | None = None
    config: Patterns = field(default_factory=lambda: Patterns(given=False))
    volatile: Volatile = field(default_factory=lambda: Volatile(given=False))

    @classmethod
    def parse(cls, members: Mapping[str, Any]) -> SourceGroup:
        """Read an entry of ``sources`` that conforms to the schema."""
        return cls(
            members.get("name", ""),
            tuple(members.get("policy", ())),
            tuple(members.get("data", ())),
            members.get("ruleData"),
            Patterns.parse(members.get("config")),
            Volatile.parse(members.get("volatileConfig")),
        )

    def __hash__(self) -> int:
        return hash((self.name, self.policy, self.data))  # a mapping has no hash

    @property
    def urls(self) -> tuple[str, ...]:
        """Everything there is to fetch, policies first."""
        return self.policy + self.data

    def with_rule_data(self, values: Mapping[str, str]) -> SourceGroup:
        """The same group with ``values`` added to its rule data, replacing what was there."""
        return replace(self, rule_data={**(self.rule_data or {}), **values})

    def pinned(self, pin: Mapping[str, str]) -> SourceGroup:
        """The same group with each URL replaced by what ``pin`` maps it to."""
        return replace(
            self,
            policy=tuple(pin.get(url, url) for url in self.policy),
            data=tuple(pin.get(url, url) for url in self.data),
        )

    def as_dict(self) -> dict[str, Any]:
        """As the report prints it (section 2.7)."""
        document = without_empty(name=self.name, policy=list(self.policy), data=list(self.data))
        if self.rule_data is not None:
            document["ruleData"] = gojson.sorted_maps(self.rule_data)
        if self.config.given:
            document["config"] = self.config.as_dict()
        if self.volatile.given:
            document["volatileConfig"] = self.volatile.as_dict()
        return document


def without_empty(**members: Any) -> dict[str, Any]:
    """The members of an object of the report that are not empty."""
    return {name: value for name, value in members.items() if value}
