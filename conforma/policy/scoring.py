"""What an include or exclude item matches and how much it counts.

Section 4.5 of the ``validate image`` specification as pure functions. An item
is compared as a whole with the names a result goes by; there is no globbing.
The more exactly a name tells what is meant, the more it scores, and a result
is in if its includes score more than its excludes.

A package may have several segments. Its last one names it, as in the Go
tool; so does every longer end of its path up to all of it, each segment worth
ten points, so that ``a.pkg`` and ``b.pkg`` can be told apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import Struct


class Item(Struct, frozen=True):
    """One include or exclude item.

    ``origin`` is where it stands in the policy configuration. It applies to
    everything, unless ``image`` (a repository or a digest) or ``component``
    narrows it.
    """

    value: str
    origin: str
    image: str = ""
    component: str = ""


class Subject(Struct, frozen=True):
    """What an item can name: the code of a result, its terms and its rule's collections."""

    code: str
    terms: tuple[str, ...] = ()
    collections: tuple[str, ...] = ()


class Match(Struct, frozen=True):
    """An item that names the subject, with the points it gives."""

    item: Item
    score: int


class Decision(Struct, frozen=True):
    """Whether something takes part, and which items decided it.

    ``reason`` is set where it was not the score that decided.
    """

    included: bool
    include: tuple[Match, ...] = ()
    exclude: tuple[Match, ...] = ()
    reason: str = ""

    @property
    def include_score(self) -> int:
        """The points of all matching include items."""
        return sum(match.score for match in self.include)

    @property
    def exclude_score(self) -> int:
        """The points of all matching exclude items."""
        return sum(match.score for match in self.exclude)


@dataclass(frozen=True, slots=True)
class Applicable:
    """The items that apply to one component; decides about rules and results alike."""

    include: tuple[Item, ...]
    exclude: tuple[Item, ...]
    _include_by_value: Mapping[str, tuple[Item, ...]] = field(compare=False, repr=False)
    _exclude_by_value: Mapping[str, tuple[Item, ...]] = field(compare=False, repr=False)

    @classmethod
    def of(cls, include: Sequence[Item], exclude: Sequence[Item]) -> Applicable:
        """Items that are already known to apply."""
        return cls(tuple(include), tuple(exclude), _by_value(include), _by_value(exclude))

    def decide(self, subject: Subject) -> Decision:
        """Whether the subject is in: its include score must exceed its exclude score."""
        names = tuple(matchers(subject))
        include = _matches(names, self._include_by_value)
        exclude = _matches(names, self._exclude_by_value)
        won = sum(match.score for match in include) > sum(match.score for match in exclude)
        return Decision(won, include, exclude)

    def could_include(self, subject: Subject) -> bool:
        """Whether a result of this rule could be in, whatever terms it has."""
        if self.decide(subject).included:
            return True
        names = {name for name, _ in matchers(subject)}
        return any(
            term and base in names
            for base, _, term in (item.value.partition(":") for item in self.include)
        )


def matchers(subject: Subject) -> Iterator[tuple[str, int]]:
    """The names a subject goes by, each with its score.

    A name comes twice if a term or a collection does; it then counts twice.
    """
    *package, rule = subject.code.split(".")
    if package and package[-1]:
        named: list[tuple[str, int]] = []
        exact = 100 if rule not in {"", "*"} else 0
        for depth in range(1, len(package) + 1):
            end = ".".join(package[-depth:])
            named.append((end, 10 * depth))
            named.append((f"{end}.*", 10 * depth))
            named.append((f"{end}.{rule}", 10 * depth + exact))
        yield from named
        for term in subject.terms:
            if term:
                yield from ((f"{name}:{term}", score + 100) for name, score in named)
    yield "*", 1
    for collection in subject.collections:
        yield f"@{collection}", 10


def _matches(
    names: Iterable[tuple[str, int]], items: Mapping[str, tuple[Item, ...]]
) -> tuple[Match, ...]:
    return tuple(Match(item, score) for name, score in names for item in items.get(name, ()))


def _by_value(items: Iterable[Item]) -> Mapping[str, tuple[Item, ...]]:
    found: dict[str, tuple[Item, ...]] = {}
    for item in items:
        found[item.value] = (*found.get(item.value, ()), item)
    return found
