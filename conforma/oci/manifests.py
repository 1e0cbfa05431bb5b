"""Manifests by tag and by digest: asked for once, verified, shared by everybody.

What a digest names never changes, so it is remembered for its repository (to
know content is not to be allowed to see it elsewhere); what a tag names is
decided once per run.
"""

from __future__ import annotations

import threading

from conforma.cancellation import Cancellation
from conforma.errors import BadDigest, BadManifest, BadResponse, DigestMismatch
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.exchange import Answer, Exchange
from conforma.oci.flights import Flights
from conforma.oci.manifest import Descriptor, Index, Manifest, parse_manifest
from conforma.oci.memory import Memory
from conforma.oci.meter import Meter
from conforma.oci.options import RegistryOptions
from conforma.oci.reference import Reference
from conforma.oci.sender import Ask

_ACCEPT = {"Accept": media_types.ACCEPT_MANIFEST}


class Manifests:
    """Answers about the manifests of registries. Thread safe."""

    def __init__(
        self,
        exchange: Exchange,
        options: RegistryOptions,
        cancellation: Cancellation,
        meter: Meter,
    ) -> None:
        self._exchange = exchange
        self._limit = options.largest_manifest
        self._meter = meter
        self._lock = threading.Lock()
        self._heads: dict[tuple[str, str], Descriptor] = {}
        self._repositories: set[str] = set()
        self._documents: Memory[Manifest | Index] = Memory(options.remembered)
        self._head_flights: Flights[Descriptor] = Flights(cancellation)
        self._flights: Flights[Manifest | Index] = Flights(cancellation)

    def head(self, reference: Reference) -> Descriptor:
        """What the reference names, without its content."""
        known = self._known_head(reference)
        if known is not None:
            self._meter.add(remembered=1)
            return known
        return self._head_flights.run(
            (reference.repository_name, reference.identifier), lambda: self._head(reference)
        )

    def get(self, reference: Reference) -> Manifest | Index:
        """The manifest or index itself, verified against the digest if there is one."""
        if reference.digest is None:
            known = self._known_head(reference)
            if known is None and reference.repository_name in self._repositories:
                # Likely another name of something we have; a HEAD is cheaper than a body.
                known = self.head(reference)
            if known is not None:
                reference = reference.pinned(known.digest)
        found = self._documents.get(_key(reference))
        if found is not None:
            self._meter.add(remembered=1)
            return found
        return self._flights.run(_key(reference), lambda: self._get(reference))

    def forget(self, reference: Reference) -> None:
        """The tag was just written: ask again."""
        with self._lock:
            self._heads.pop(_key(reference), None)

    def _known_head(self, reference: Reference) -> Descriptor | None:
        with self._lock:
            known = self._heads.get(_key(reference))
        if known is None and reference.digest is not None:
            document = self._documents.get(_key(reference))
            if document is not None:
                return _describe(document, reference.digest)
        return known

    def _head(self, reference: Reference) -> Descriptor:
        path = f"manifests/{reference.identifier}"
        expected = frozenset({200, 405, 501})
        answer = self._exchange.fetch(
            Ask("HEAD", reference, path, _ACCEPT, expected=expected), self._limit
        )
        described = _from_headers(answer) if answer.status == 200 else None
        if described is None:
            # Some registries answer a HEAD without saying what it is about.
            document = self.get_uncached(reference)
            described = _describe(document, _digest_of(document, reference))
        if reference.digest is not None and described.digest != reference.digest:
            raise DigestMismatch(
                f"{reference}: the registry calls it {described.digest}",
                hint="the registry, or something between it and us, is broken",
            )
        with self._lock:
            self._heads[_key(reference)] = described
        return described

    def get_uncached(self, reference: Reference) -> Manifest | Index:
        """As :meth:`get`, but asks the registry unless somebody is asking right now."""
        return self._flights.run(_key(reference), lambda: self._get(reference))

    def _get(self, reference: Reference) -> Manifest | Index:
        path = f"manifests/{reference.identifier}"
        answer = self._exchange.fetch(Ask("GET", reference, path, _ACCEPT), self._limit)
        # Of a tag we know nothing better than what the registry calls it.
        promised = reference.digest or _digest_header(answer)
        if promised is not None:
            actual = Digest.of(answer.body, promised.algorithm)
            if actual != promised:
                raise DigestMismatch(
                    f"{reference}: digest mismatch: promised {promised}, served {actual}",
                    hint="the registry, or something between it and us, changed the content",
                )
        document = read_document(answer, reference)
        digest = _digest_of(document, reference)
        with self._lock:
            self._repositories.add(reference.repository_name)
            if reference.digest is None:
                self._heads[_key(reference)] = _describe(document, digest)
        pinned = reference.pinned(digest)
        self._documents.put(_key(pinned), document, len(document.raw))
        return document


def read_document(answer: Answer, reference: Reference) -> Manifest | Index:
    """The manifest in an answer. Raises ``BadManifest`` naming the reference."""
    media_type = media_types.essence(answer.headers.get("content-type", ""))
    if not media_type:
        raise BadResponse(f"{reference}: the registry does not say what kind of manifest it is")
    try:
        return parse_manifest(answer.body, media_type)
    except BadManifest as cause:
        raise BadManifest(f"{reference}: {cause.message}", hint=cause.hint) from cause


def _key(reference: Reference) -> tuple[str, str]:
    return (reference.repository_name, reference.identifier)


def _digest_of(document: Manifest | Index, reference: Reference) -> Digest:
    return reference.digest or Digest.of(document.raw)


def _describe(document: Manifest | Index, digest: Digest) -> Descriptor:
    return Descriptor(document.media_type, digest, len(document.raw))


def _from_headers(answer: Answer) -> Descriptor | None:
    """What a HEAD says about a manifest, if it says all of it."""
    media_type = media_types.essence(answer.headers.get("content-type", ""))
    length = answer.headers.get("content-length", "")
    digest = _digest_header(answer)
    if digest is None or not media_type or not (length.isascii() and length.isdigit()):
        return None
    return Descriptor(media_type, digest, int(length))


def _digest_header(answer: Answer) -> Digest | None:
    try:
        return Digest.parse(answer.headers.get("docker-content-digest", ""))
    except BadDigest:
        return None
