"""References: which image, in which repository of which registry.

The defaults are those of the Docker command line (registry
``index.docker.io``, namespace ``library/``, tag ``latest``); names follow the
grammar of the OCI distribution specification, section "Pulling manifests".
An OCI image layout stands in for a registry: ``oci:DIRECTORY[:NAME]`` and
``oci-archive:FILE[:NAME]``, as skopeo writes them.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from conforma.errors import BadDigest, BadReference
from conforma.oci.digest import ALGORITHMS, Digest

DEFAULT_REGISTRY: Final = "index.docker.io"
DEFAULT_TAG: Final = "latest"
_DEFAULT_NAMESPACE: Final = "library/"
# The longest name the distribution specification lets a client rely on.
_LONGEST_REPOSITORY: Final = 255

_LAYOUT: Final = re.compile(r"(oci|oci-archive):(?!//)([^:@\0]+)(?::([^\0]+))?")
_REPOSITORY: Final = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_REGISTRY: Final = re.compile(
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
)


class Reference(Struct, frozen=True, order=True):
    """A fully qualified reference; it has a tag, a digest or both.

    When it has both, the digest decides and the tag only documents. In a
    layout, ``registry`` is its place, ``oci:DIRECTORY``, and what it holds may
    have a repository or not; a bare place has neither tag nor digest.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference as people write it, filling in what Docker implies.

        Raises ``BadReference`` for text that is no reference.
        """
        if not text.strip():
            raise _bad(text, "there is none")
        if text.startswith(("oci:", "oci-archive:")):
            return _in_layout(text)
        rest, at, digest_text = text.partition("@")
        digest: Digest | None = None
        if at:
            if "@" in digest_text:
                raise _bad(text, "a digest must contain exactly one '@' separator")
            try:
                digest = Digest.parse(digest_text)
            except BadDigest as cause:
                raise _bad(text, cause.message) from cause
        registry, slash, path = rest.partition("/")
        if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
            registry, path = DEFAULT_REGISTRY, rest
        elif registry == "docker.io":
            registry = DEFAULT_REGISTRY
        repository, colon, tag = path.partition(":")
        if colon and not _TAG.fullmatch(tag):
            raise _bad(text, f"{tag[:200]!r} is not a tag")
        _check_registry(text, registry)
        if registry == DEFAULT_REGISTRY and "/" not in repository:
            repository = f"{_DEFAULT_NAMESPACE}{repository}"
        if len(repository) > _LONGEST_REPOSITORY or not _REPOSITORY.fullmatch(repository):
            raise _bad(text, f"{repository[:200]!r} is not a repository name")
        if not colon and digest is None:
            tag = DEFAULT_TAG
        return cls(registry, repository, tag or None, digest)

    @property
    def repository_name(self) -> str:
        """``registry/repository``, without tag and digest."""
        if self.is_layout:
            return f"{self.registry}:{self.repository}" if self.repository else self.registry
        return f"{self.registry}/{self.repository}"

    @property
    def is_layout(self) -> bool:
        """Whether it names something in an OCI image layout, not in a registry."""
        return self.registry.startswith(("oci:", "oci-archive:"))

    @property
    def identifier(self) -> str:
        """What names the manifest in a URL: the digest if there is one, else the tag."""
        return str(self.digest) if self.digest is not None else self.tag or DEFAULT_TAG

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is this machine, by its name alone (no look-up)."""
        return is_loopback_host(self.registry)

    def pinned(self, digest: Digest) -> Reference:
        """The same repository at ``digest``; the tag is dropped."""
        return Reference(self.registry, self.repository, None, digest)

    def with_tag(self, tag: str) -> Reference:
        """The same repository at ``tag``; the digest is dropped. Raises ``BadReference``."""
        if not _TAG.fullmatch(tag):
            raise _bad(f"{self.repository_name}:{tag}", f"{tag[:200]!r} is not a tag")
        return replace(self, tag=tag, digest=None)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{self.repository_name}{tag}{digest}"


@lru_cache(maxsize=1024)
def is_loopback_host(registry: str) -> bool:
    """Whether ``host`` or ``host:port`` is this machine (``localhost``, 127.0.0.0/8, ``::1``)."""
    match = _REGISTRY.fullmatch(registry)
    host = match["host"].strip("[]").lower() if match else ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _in_layout(text: str) -> Reference:
    place, at, digest_text = text.rpartition("@")
    digest: Digest | None = None
    if at and digest_text.partition(":")[0] in ALGORITHMS:
        try:
            digest = Digest.parse(digest_text)
        except BadDigest as cause:
            raise _bad(text, cause.message) from cause
    match = _LAYOUT.fullmatch(place if digest is not None else text)
    if match is None:
        raise _bad(text, "an image layout is written oci:DIRECTORY[:NAME]")
    name = match[3] or ""
    directory, slash, last = name.rpartition("/")
    # Like skopeo, tools name what they put into a layout by a tag alone or by a whole reference.
    base, _, tag = last.partition(":") if slash else ("", "", last)
    repository = f"{directory}/{base}" if slash else ""
    return Reference(f"{match[1]}:{match[2]}", repository, tag or None, digest)


def _check_registry(text: str, registry: str) -> None:
    match = _REGISTRY.fullmatch(registry)
    if match is None or int(match["port"] or 0) > 65535:
        raise _bad(text, f"{registry[:200]!r} is not a registry host")
    if registry.startswith("["):
        try:
            ipaddress.IPv6Address(match["host"].strip("[]"))
        except ValueError as cause:
            raise _bad(text, f"{registry!r} is not a registry host") from cause


def _bad(text: str, reason: str) -> BadReference:
    shown = text if len(text) <= 300 else f"{text[:300]}…"
    printable = shown if shown.isprintable() else repr(shown)[1:-1]
    return BadReference(
        f"could not parse reference: {printable}: {reason}",
        hint="write it as registry/repository:tag or registry/repository@sha256:<64 hex digits>",
    )
