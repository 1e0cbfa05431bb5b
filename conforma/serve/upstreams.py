"""Which upstream a repository of ours stands for."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from conforma.errors import BadReference, InputError
from conforma.oci.reference import Reference


class Upstream(Struct, frozen=True):
    """A registry, perhaps with the first parts of a repository, or an image layout."""

    registry: str
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> Upstream:
        """Read ``registry[/path]``, ``oci:DIRECTORY`` or ``oci-archive:FILE``.

        Raises ``InputError``.
        """
        if text.startswith(("oci:", "oci-archive:")):
            return cls(Reference.parse(text).registry)
        registry, _, path = text.strip("/").partition("/")
        try:
            Reference.parse(f"{registry}/{path or 'x'}/x")
        except BadReference as cause:
            raise InputError(f"--upstream: {text!r}: {cause.message}") from cause
        return cls(registry, path)

    @property
    def is_layout(self) -> bool:
        """Whether it is on this machine."""
        return self.registry.startswith(("oci:", "oci-archive:"))

    def reference(self, repository: str, identifier: str) -> Reference:
        """The reference of a repository there. Raises ``BadReference``."""
        separator = "@" if ":" in identifier else ":"
        name = f"{self.prefix}/{repository}" if self.prefix else repository
        if self.is_layout:
            return Reference.parse(f"{self.registry}:{name}{separator}{identifier}")
        return Reference.parse(f"{self.registry}/{name}{separator}{identifier}")


class Upstreams:
    """The upstreams of one server; there is no way to any other registry.

    A repository whose first part is the host of an upstream lies there; every
    other one lies in the first upstream. Clients that say for which registry
    they ask (``?ns=``, as containerd does) are taken at their word.
    """

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        if not upstreams:
            raise InputError("nothing to serve", hint="name a registry with --upstream")
        self._first = upstreams[0]
        self._by_host = {upstream.registry: upstream for upstream in reversed(upstreams)}

    def reference(self, repository: str, identifier: str, namespace: str = "") -> Reference:
        """Where ``repository`` lies. Raises ``BadReference`` for what is no name."""
        if namespace in self._by_host:
            return self._by_host[namespace].reference(repository, identifier)
        host, _, rest = repository.partition("/")
        if rest and host in self._by_host:
            return self._by_host[host].reference(rest, identifier)
        return self._first.reference(repository, identifier)
