"""Input documents of evaluations, and what many of them have in common.

Each component's input holds the whole snapshot. Handing it over and reading it
anew for every component would make a run's time grow with the square of its
components, so such a value is handed over once and put in its place there.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field


class Shared:
    """A JSON value that stands in many inputs; two objects are two values, whatever they hold."""

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        """``text`` is one JSON value in UTF-8."""
        self.text = text


class Input(Struct, frozen=True):
    """The text of a JSON object, and the members that are not in it but shared."""

    text: bytes
    shared: Mapping[str, Shared] = field(default_factory=dict)
