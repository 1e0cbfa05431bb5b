"""What a check says about an image: values, never exceptions.

A finding carries its own kind from the rule that made it to the report, so
that nothing has to be guessed from its code or message on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field


class Finding(Struct, frozen=True):
    """One rule's statement about one component.

    ``metadata`` holds JSON values; the keys with a meaning are ``code``,
    ``term``, ``effective_on``, ``severity``, ``collections``, ``depends_on``,
    ``title``, ``description`` and ``solution``.
    """

    message: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def code(self) -> str:
        """The rule's code, or ``""`` when it has none (or no text)."""
        code = self.metadata.get("code")
        return code if isinstance(code, str) else ""

    @property
    def terms(self) -> tuple[str, ...]:
        """The finding's terms; a single string counts as one."""
        term = self.metadata.get("term")
        if term is None:
            return ()
        if isinstance(term, str):
            return (term,)
        if isinstance(term, list | tuple):
            return tuple(t for t in term if isinstance(t, str))
        return ()


class Violation(Finding, frozen=True):
    """The image must not be released."""


class PolicyWarning(Finding, frozen=True):
    """Something its owner should know; does not stop a release."""


class Success(Finding, frozen=True):
    """A rule that was evaluated and had nothing to say."""
