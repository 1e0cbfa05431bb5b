"""Read-only mirrors: another place where the content of a registry can be read."""

from __future__ import annotations

from dataclasses import dataclass, replace

from conforma.errors import BadReference, InputError
from conforma.oci.reference import DEFAULT_REGISTRY, Reference


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where ``origin`` can be read. ``prefix`` goes before the repository's name.

    ``final`` says that what the mirror does not have, the origin has not
    either; the origin is then never asked for anything that is read.
    """

    origin: str
    host: str
    prefix: str = ""
    final: bool = False

    @classmethod
    def parse(cls, text: str) -> Mirror:
        """Read ``ORIGIN=HOST[/PREFIX][,final]``. Raises ``InputError``."""
        origin, equals, rest = text.partition("=")
        place, comma, word = rest.partition(",")
        host, _, prefix = place.rstrip("/").partition("/")
        try:
            if not equals or not host or (comma and word != "final"):
                raise BadReference("")
            Reference.parse(f"{host}/{prefix}/x" if prefix else f"{host}/x/x")
            named = Reference.parse(f"{origin}/x/x").registry
            if named != (DEFAULT_REGISTRY if origin == "docker.io" else origin):
                raise BadReference("")
        except BadReference as cause:
            raise InputError(
                f"{text[:200]!r} names no mirror",
                hint="write it as ORIGIN=HOST, ORIGIN=HOST/PREFIX or ORIGIN=HOST,final",
            ) from cause
        return cls(named, host, prefix, bool(comma))

    def place_of(self, reference: Reference) -> Reference:
        """The same thing at the mirror."""
        repository = (
            f"{self.prefix}/{reference.repository}" if self.prefix else reference.repository
        )
        return replace(reference, registry=self.host, repository=repository)
