"""What things are called at their destination."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from conforma.errors import BadReference, InputError
from conforma.oci.reference import Reference


class Prefix(Struct, frozen=True):
    """A registry and, perhaps, the first parts of a repository."""

    registry: str
    repository: str = ""

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """Read ``registry[/path]``. Raises ``InputError``."""
        registry, _, path = text.strip("/").partition("/")
        try:
            if not registry or "@" in text:
                raise BadReference(f"{text!r} is no registry")
            probe = Reference.parse(f"{registry}/{path or 'x'}")
        except BadReference as cause:
            raise InputError(
                f"{text!r} is not a registry with a path: {cause.message}",
                hint="write registry[:port][/path]",
            ) from cause
        if probe.tag not in (None, "latest") or ":" in path or probe.repository not in (path, "x"):
            raise InputError(f"{text!r} is not a registry with a path: it has a tag or no host")
        return cls(registry, path)

    def of(self, name: str) -> str | None:
        """What follows the prefix in ``registry/repository``; ``None`` if it does not begin so."""
        if name == str(self):
            return ""
        return name[len(str(self)) + 1 :] if name.startswith(f"{self}/") else None

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}" if self.repository else self.registry


class Rule(Struct, frozen=True):
    """``FROM=TO``: names that begin with one prefix begin with the other."""

    origin: Prefix
    target: Prefix

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read ``FROM=TO``. Raises ``InputError``."""
        origin, equals, target = text.partition("=")
        if not equals:
            raise InputError(f"{text!r} is no rule for names", hint="write FROM=TO")
        return cls(Prefix.parse(origin), Prefix.parse(target))


class Names(Struct, frozen=True):
    """Names at the destination: the rule with the longest match, else below ``default``.

    Without a ``default``, names that no rule matches stay as they are, as in
    layouts, which can hold any name.
    """

    rules: Sequence[Rule] = ()
    default: Prefix | None = None

    def of(self, source: Reference) -> Reference:
        """The name of ``source`` there, with the same tag and digest.

        Raises ``InputError`` for one without a repository where one is needed.
        """
        name = original(source)
        full = name.repository_name if name.registry else ""
        matching = [
            (len(str(rule.origin)), rest, rule)
            for rule in self.rules
            if (rest := rule.origin.of(full)) is not None
        ]
        if matching:
            _, rest, rule = max(matching, key=lambda match: match[0])
            return _below(rule.target, rest, name)
        if self.default is None:
            return name
        return _below(self.default, name.repository, name)


def original(source: Reference) -> Reference:
    """The name something in a layout had before; other references are their own name.

    What a layout knows by a tag alone has an empty registry and repository.
    """
    if not source.is_layout:
        return source
    if not source.repository:
        return replace(source, registry="")
    try:
        named = Reference.parse(source.repository)
    except BadReference:
        return replace(source, registry="", repository="")
    return replace(source, registry=named.registry, repository=named.repository)


def layout_name(name: Reference) -> str:
    """How a layout annotates the name: the whole reference, or the tag if that is all."""
    return str(name) if name.registry else name.tag or ""


def _below(prefix: Prefix, rest: str, name: Reference) -> Reference:
    repository = "/".join(part for part in (prefix.repository, rest) if part)
    if not repository:
        raise InputError(
            f"{name.tag or name.digest}: has no repository of its own, and {prefix} names none",
            hint="add a path to the destination: registry/path",
        )
    return replace(name, registry=prefix.registry, repository=repository)
