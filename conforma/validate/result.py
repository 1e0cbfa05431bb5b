"""What came out: the findings of each component, and all of them as one report."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from conforma.cache.stats import CacheStats
from conforma.errors import ConformaError
from conforma.findings import PolicyWarning, Success, Violation
from conforma.oci.meter import RegistryStats
from conforma.validate.snapshot import Component

if TYPE_CHECKING:
    from conforma.cache.origins import Origin


class ComponentResult(Struct, frozen=True):
    """Everything that can be said about one component.

    ``image`` is the pinned reference, or the reference as given if the image
    could not be reached. ``signatures`` and ``attestations`` are JSON objects
    as section 7.2 of the specification shows them. ``statements`` (the signed
    bytes) and ``policy_input`` are only kept when an output asks for them;
    ``provenance`` is who vouched for ``signatures`` and ``attestations``.
    ``moment`` is the effective time it was judged at. ``skipped`` says which
    earlier verdict stands, if the component was not validated in this run.
    With an ``error`` the component could not be decided, and whatever was found
    before is not a verdict.
    """

    component: Component
    image: str
    violations: tuple[Violation, ...] = ()
    warnings: tuple[PolicyWarning, ...] = ()
    successes: tuple[Success, ...] = ()
    signatures: tuple[Mapping[str, Any], ...] = ()
    attestations: tuple[Mapping[str, Any], ...] = ()
    statements: tuple[bytes, ...] = ()
    policy_input: bytes = b""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    moment: datetime | None = None
    skipped: str = ""
    error: ConformaError | None = None

    @property
    def success(self) -> bool:
        """Whether the component was decided and nothing speaks against its release."""
        return not self.violations and self.error is None


class Expansion(Struct, frozen=True):
    """How image indexes became components.

    ``index_of_alias``: fully qualified reference as given to pinned index;
    ``children``: pinned index to its pinned children, in order.
    """

    index_of_alias: Mapping[str, str] = field(default_factory=dict)
    children: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Effort(Struct, frozen=True):
    """What a run has cost and saved, and, if that was asked for, where its content came from."""

    cache: CacheStats = field(default_factory=CacheStats)
    registry: RegistryStats = field(default_factory=RegistryStats)
    origins: tuple[Origin, ...] = ()


class Report(Struct, frozen=True):
    """The results of one run and how they were obtained.

    ``components`` are ordered by image, descending, whatever the order of work
    was (specification 7.1); ``policy`` is the effective policy with pinned
    URLs; ``effective_time`` is RFC 3339 text; ``created`` is in UTC. ``info``
    is whether formats that leave details of rules out by default show them.
    """

    components: tuple[ComponentResult, ...]
    snapshot: str
    key: str
    policy: Mapping[str, Any]
    version: str
    effective_time: str
    created: datetime
    show_successes: bool = False
    info: bool = True
    expansion: Expansion = field(default_factory=Expansion)
    effort: Effort = field(default_factory=Effort)

    @property
    def success(self) -> bool:
        """Whether every component was decided and may be released."""
        return all(result.success for result in self.components)

    @property
    def undecided(self) -> tuple[ComponentResult, ...]:
        """The components that ended in an error, in report order."""
        return tuple(result for result in self.components if result.error is not None)

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many violations, warnings and successes there are, shown or not."""
        return (
            sum(len(result.violations) for result in self.components),
            sum(len(result.warnings) for result in self.components),
            sum(len(result.successes) for result in self.components),
        )

    @property
    def outcome(self) -> str:
        """``FAILURE``, ``WARNING``, ``SKIPPED`` or ``SUCCESS`` (specification 7.5)."""
        violations, warnings, successes = self.counts
        if violations or not self.success:
            return "FAILURE"
        if warnings:
            return "WARNING"
        skipped = any(result.skipped for result in self.components)
        return "SUCCESS" if successes or skipped else "SKIPPED"
