"""Manifests by tag and by digest: asked for once, verified, shared by everybody.

What a digest names never changes, so it is remembered for its repository (to
know content is not to be allowed to see it elsewhere), and its bytes beyond
this run; what a tag names is decided once per run. Bytes of an earlier run are
used after the registry has said, in this run, that the repository still offers them.
"""

from __future__ import annotations

import threading
from typing import Final

from conforma.cancellation import Cancellation
from conforma.errors import BadDigest, BadManifest, BadResponse, DigestMismatch, NotFound
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.exchange import Answer, Exchange
from conforma.oci.flights import Flights
from conforma.oci.layout_names import is_attachment_of
from conforma.oci.manifest import Descriptor, Index, Manifest, parse_manifest
from conforma.oci.memory import Memory
from conforma.oci.options import Delivery, RegistryOptions
from conforma.oci.questions import Question, Questions
from conforma.oci.recall import Meaning, Recall
from conforma.oci.reference import DEFAULT_REGISTRY, Reference
from conforma.oci.sender import Ask

_ACCEPT: Final = {"Accept": media_types.ACCEPT_MANIFEST}
# There, or a registry that knows no HEAD.
_HEAD_STATUSES: Final = frozenset({200, 405, 501})
# Registry, repository, and digest or tag.
_Key = tuple[str, str, str]
# Where every GET of a manifest counts as a pull, even one without a body, and
# a HEAD does not (docs.docker.com, "Docker Hub pull usage and limits").
_COUNTS_PULLS: Final = frozenset({DEFAULT_REGISTRY})


class Manifests:
    """Answers about the manifests of registries. Thread safe."""

    def __init__(
        self,
        exchange: Exchange,
        options: RegistryOptions,
        cancellation: Cancellation,
        questions: Questions,
        recall: Recall,
    ) -> None:
        self._exchange = exchange
        self._cancellation = cancellation
        self._limit = options.largest_manifest
        self._questions = questions
        self._recall = recall
        self._lock = threading.Lock()
        self._heads: dict[_Key, Descriptor] = {}
        self._repositories: set[str] = set()
        self._brought: set[Digest] = set()  # not kept by an earlier run
        self._beginnings: dict[str, threading.Event] = {}
        self._documents: Memory[Manifest | Index] = Memory(options.remembered)
        self._head_flights: Flights[Descriptor] = Flights(cancellation)
        self._flights: Flights[Manifest | Index] = Flights(cancellation)

    def head(self, reference: Reference) -> Descriptor:
        """What the reference names, without its content."""
        with self._questions.ask("head", reference) as question:
            known = self._known_head(reference)
            if known is not None:
                question.source = "memory"
                return known
            return self._head_flights.run(
                _key(reference), lambda: self._head(reference), question.joined
            )

    def get(self, reference: Reference) -> Manifest | Index:
        """The manifest or index itself, verified against the digest if there is one."""
        with self._questions.ask("manifest", reference) as question:
            return self._find(reference, question)

    def _find(self, reference: Reference, question: Question) -> Manifest | Index:
        if reference.digest is None:
            known = self._known_head(reference)
            if known is None and self._is_certainly_new(reference):
                return self._find_pinned(reference, question)
            if known is None and self._prefers_head(reference):
                known = self.head(reference)
            if known is not None:
                return self._named_by_tag(reference, reference.pinned(known.digest), question)
            return self._in_its_turn(reference, question)
        return self._find_pinned(reference, question)

    def _in_its_turn(self, reference: Reference, question: Question) -> Manifest | Index:
        """The first request of a repository goes alone: after it the others may need no body."""
        own = threading.Event()
        begun = self._beginnings.setdefault(reference.repository_name, own)
        if begun is own:
            try:
                return self._find_pinned(reference, question)
            finally:
                # Also after a failure: nobody waits for a registry that is down in turns.
                own.set()
        if begun.is_set():
            return self._find_pinned(reference, question)
        unregister = self._cancellation.on_cancel(begun.set)
        try:
            begun.wait()
        finally:
            unregister()
        return self._find(reference, question)

    def _named_by_tag(
        self, tagged: Reference, pinned: Reference, question: Question
    ) -> Manifest | Index:
        """The manifest whose digest the registry gave for the tag."""
        try:
            return self._find_pinned(pinned, question)
        except NotFound as cause:
            # Nothing verified what a HEAD said, so this says nothing about the tag.
            raise BadResponse(
                f"{tagged}: the registry says that it is {pinned.digest}, but has no such thing",
                hint="it is broken, or the tag was just moved: try again",
            ) from cause

    def _find_pinned(self, reference: Reference, question: Question) -> Manifest | Index:
        found = self._documents.get(_key(reference))
        if found is not None:
            question.source = "memory"
            return found
        return self._flights.run(
            _key(reference), lambda: self._get(reference, question), question.joined
        )

    def _is_certainly_new(self, reference: Reference) -> bool:
        """Whether the tag is about an image that we had never seen before this run.

        Then what it names is not here either, under no other tag: a HEAD would only come first.
        """
        if reference.registry in _COUNTS_PULLS:
            return False  # most images have no such tag, and there asking for its body costs a pull
        subject = is_attachment_of(reference.tag)
        return subject is not None and subject in self._brought

    def _prefers_head(self, reference: Reference) -> bool:
        """Whether the tag probably names something we have, and no GET can tell us for less."""
        if reference.repository_name in self._repositories:
            return True
        return reference.registry in _COUNTS_PULLS and self._recall.meaning(reference) is not None

    def forget(self, reference: Reference) -> None:
        """The tag was just written: ask again."""
        with self._lock:
            self._heads.pop(_key(reference), None)

    def forget_all(self) -> None:
        """Ask again about every tag."""
        with self._lock:
            self._heads.clear()

    def _known_head(self, reference: Reference) -> Descriptor | None:
        key = _key(reference)
        known = self._heads.get(key)
        if known is None and reference.digest is not None:
            document = self._documents.get(key)
            if document is not None:
                return _describe(document, reference.digest)
        return known

    def _head(self, reference: Reference) -> Descriptor:
        described = self._ask_head(reference)
        if described is None:
            document = self._flights.run(_key(reference), lambda: self._fetch(reference, None)[0])
            described = _describe(document, _digest_of(document, reference))
            self._offers(reference, described)
        return described

    def _ask_head(self, reference: Reference) -> Descriptor | None:
        """What a HEAD says; ``None`` from registries that know none, or say too little."""
        path = f"manifests/{reference.identifier}"
        answer = self._exchange.fetch(
            Ask("HEAD", reference, path, _ACCEPT, expected=_HEAD_STATUSES), self._limit
        )
        described = _from_headers(answer) if answer.status == 200 else None
        if described is None:
            return None
        if reference.digest is not None and described.digest != reference.digest:
            raise DigestMismatch(
                f"{reference}: the registry calls it {described.digest}",
                hint="the registry, or something between it and us, is broken",
            )
        self._offers(reference, described)
        return described

    def _offers(self, reference: Reference, described: Descriptor) -> None:
        """The registry has just said that the repository has it."""
        pinned = (reference.registry, reference.repository, str(described.digest))
        with self._lock:
            self._heads[_key(reference)] = self._heads[pinned] = described

    def _get(self, reference: Reference, question: Question) -> Manifest | Index:
        if reference.digest is None:
            new = self._is_certainly_new(reference)
            meaning = None if new else self._recall.meaning(reference)
            document, changed = self._fetch(reference, meaning)
            question.source = "network" if changed else "unchanged"
            return document
        raw = self._recall.content(reference.digest)
        if raw is None:
            return self._fetch(reference, None)[0]
        # Bodyless, and it says whether the repository still has it.
        described = self._known_head(reference) or self._ask_head(reference)
        if described is None:
            return self._fetch(reference, None)[0]
        question.source = "store"
        document = _parsed(raw, described.media_type, reference)
        self._kept(reference.digest, document)
        return self._remember(reference, reference.digest, document)

    def _fetch(
        self, reference: Reference, meaning: Meaning | None
    ) -> tuple[Manifest | Index, bool]:
        """What the registry has, and whether that is something else than ``meaning``."""
        path = f"manifests/{reference.identifier}"
        headers, expected = _ACCEPT, frozenset({200})
        if meaning is not None:
            headers = {**_ACCEPT, "If-None-Match": meaning.entity_tag}
            expected = frozenset({200, 304})
        answer = self._exchange.fetch(
            Ask("GET", reference, path, headers, expected=expected), self._limit
        )
        if meaning is not None and answer.status == 304:
            document = _parsed(meaning.raw, meaning.media_type, reference)
            self._kept(meaning.digest, document)
            return self._remember(reference, meaning.digest, document), False
        # Of a tag we know nothing better than what the registry calls it.
        promised = reference.digest or _digest_header(answer)
        if promised is not None:
            actual = Digest.of(answer.body, promised.algorithm)
            if actual != promised:
                raise DigestMismatch(
                    f"{reference}: digest mismatch: promised {promised}, served {actual}",
                    hint="the registry, or something between it and us, changed the content",
                )
        document = _read_document(answer, reference, verified=promised is not None)
        digest = _digest_of(document, reference)
        self._recall.keep(digest, document.raw)
        self._brought.add(digest)
        self._exchange.delivered(Delivery(digest, len(document.raw), answer.place, answer.mirror))
        if reference.digest is None and not self._is_certainly_new(reference):
            entity_tag = answer.headers.get("etag", "")
            self._recall.note(reference, entity_tag, digest, document.media_type)
        return self._remember(reference, digest, document), True

    def _kept(self, digest: Digest, document: Manifest | Index) -> None:
        """An earlier run has kept it, and it was hashed again."""
        self._exchange.delivered(Delivery(digest, len(document.raw), ""))

    def _remember(
        self, reference: Reference, digest: Digest, document: Manifest | Index
    ) -> Manifest | Index:
        self._offers(reference, _describe(document, digest))
        self._repositories.add(reference.repository_name)
        self._documents.put(_key(reference.pinned(digest)), document, len(document.raw))
        return document


def _read_document(answer: Answer, reference: Reference, *, verified: bool) -> Manifest | Index:
    """The manifest in an answer.

    Raises ``BadManifest`` for content that is what was promised, and
    ``BadResponse`` for what may as well be the page of a proxy.
    """
    media_type = media_types.essence(answer.headers.get("content-type", ""))
    if not media_type:
        raise BadResponse(f"{reference}: the registry does not say what kind of manifest it is")
    try:
        return _parsed(answer.body, media_type, reference)
    except BadManifest as cause:
        if verified:
            raise
        raise BadResponse(cause.message, hint=cause.hint) from cause


def _parsed(raw: bytes, media_type: str, reference: Reference) -> Manifest | Index:
    try:
        return parse_manifest(raw, media_type)
    except BadManifest as cause:
        raise BadManifest(f"{reference}: {cause.message}", hint=cause.hint) from cause


def _key(reference: Reference) -> _Key:
    return (reference.registry, reference.repository, reference.identifier)


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
