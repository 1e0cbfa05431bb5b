"""What the rules of a policy say about themselves, as the engine found it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

_SUPPORTED_SHAPES = frozenset({"string", "object", "var", "call"})


class Annotations(Struct, frozen=True):
    """One link of a rule's chain of METADATA blocks, nearest first.

    The first link always stands for the rule itself; ``content`` is ``None``
    if nothing is written above it. ``path`` is without the leading ``data``;
    ``terms`` is the whole path as OPA's JSON has it, each term with its type.
    """

    file: str
    row: int
    path: tuple[str, ...]
    of_rule: bool
    scope: str
    content: Mapping[str, Any] | None
    column: int = 1
    terms: tuple[Mapping[str, Any], ...] = ()

    @property
    def custom(self) -> Mapping[str, Any]:
        """The ``custom`` member, empty if there is none."""
        found = (self.content or {}).get("custom")
        return found if isinstance(found, Mapping) else {}


class AnnotatedRule(Struct, frozen=True):
    """One rule (one body) of a policy file, annotated or not.

    ``file`` is relative to ``directory``. ``shape`` names the kind of its value
    (its key, for ``contains``); ``text`` is the rule as OPA prints it, given
    only if that shape cannot be reported. ``code`` is the literal ``"code"``
    of an object assigned in the body, or empty.
    """

    directory: Path
    file: str
    row: int
    column: int
    package: tuple[str, ...]
    name: str
    path: tuple[str, ...]
    shape: str
    text: str
    code: str
    chain: tuple[Annotations, ...]

    @property
    def supported(self) -> bool:
        """Whether a result can be made of the rule's value (section 4.1)."""
        return self.shape in _SUPPORTED_SHAPES

    @classmethod
    def parse(cls, entry: Mapping[str, Any], directory: Path) -> AnnotatedRule:
        """Make one from the engine's description."""
        return cls(
            directory=directory,
            file=entry["file"],
            row=entry["row"],
            column=entry["column"],
            package=tuple(entry["package"]),
            name=entry["name"],
            path=tuple(entry["path"]),
            shape=entry["shape"],
            text=entry.get("text", ""),
            code=entry.get("code", ""),
            chain=tuple(
                Annotations(
                    file=link["file"],
                    row=link["row"],
                    path=tuple(link["path"]),
                    of_rule=link["of_rule"],
                    scope=link.get("scope", ""),
                    content=link["annotations"],
                    column=link["column"],
                    terms=tuple(link["terms"]),
                )
                for link in entry["chain"]
            ),
        )


class RuleDetails(Struct, frozen=True):
    """What a rule is made of.

    ``text`` is the rule as it is written. ``depends`` are the parts of input
    and data that it looks at, itself or through other rules, each a path from
    ``input`` or ``data`` up to the first step that is not fixed. ``functions``
    are the functions of ours that it may call.
    """

    text: str
    depends: tuple[tuple[str | int, ...], ...]
    functions: tuple[str, ...]

    @classmethod
    def parse(cls, entry: Mapping[str, Any]) -> RuleDetails:
        """Make one from the engine's description."""
        return cls(
            entry["text"],
            tuple(tuple(path) for path in entry["depends"]),
            tuple(entry["functions"]),
        )
