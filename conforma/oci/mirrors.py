"""Read-only mirrors: another place where the content of a registry can be read."""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from conforma.errors import BadReference, InputError
from conforma.oci.reference import DEFAULT_REGISTRY, Reference

_ATTACHED: Final = re.compile(r"manifests/sha(256|384|512)-[0-9a-f]+")


class Mirror(Struct, frozen=True):
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
        """Read ``ORIGIN=HOST[/PREFIX][?final]``. Raises ``InputError``."""
        origin, equals, rest = text.partition("=")
        place, question, word = rest.partition("?")
        host, _, prefix = place.rstrip("/").partition("/")
        try:
            if not equals or not host or (question and word != "final"):
                raise BadReference("")
            Reference.parse(f"{host}/{prefix}/x" if prefix else f"{host}/x/x")
            named = Reference.parse(f"{origin}/x/x").registry
            if named != (DEFAULT_REGISTRY if origin == "docker.io" else origin):
                raise BadReference("")
        except BadReference as cause:
            raise InputError(
                f"{text[:200]!r} names no mirror",
                hint="write it as ORIGIN=HOST, ORIGIN=HOST/PREFIX or ORIGIN=HOST?final",
            ) from cause
        return cls(named, host, prefix, bool(question))

    def may_answer(self, path: str) -> bool:
        """Whether to ask the mirror for ``path`` below a repository.

        What is attached to an image is a list that grows, under a tag or in
        the referrers API. A mirror that is behind would make a signed image
        unsigned, so unless it is final the origin is asked for those.
        """
        return self.final or (
            path.startswith(("blobs/", "manifests/")) and _ATTACHED.match(path) is None
        )

    def place_of(self, reference: Reference) -> Reference:
        """The same thing at the mirror."""
        repository = (
            f"{self.prefix}/{reference.repository}" if self.prefix else reference.repository
        )
        return replace(reference, registry=self.host, repository=repository)
