"""Lists that come in pages: tags and referrers. Bounded, and never round in circles."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

from conforma.errors import BadManifest, BadResponse, NotFound
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.exchange import Answer, Exchange
from conforma.oci.manifest import Descriptor, Index
from conforma.oci.manifests import Manifests
from conforma.oci.options import MEBIBYTE, RegistryOptions
from conforma.oci.reference import Reference
from conforma.oci.sender import Ask
from conforma.oci.target import Target

_LARGEST_PAGE: Final = 8 * MEBIBYTE
_NEXT: Final = re.compile(r"<([^>]*)>\s*;[^,]*\brel=\"?next\"?", re.IGNORECASE)
# Answers of registries without the referrers API (distribution specification
# 1.1, "Unavailable Referrers API", and what real ones send).
_NO_API: Final = frozenset({400, 404, 405, 406})


class Listings:
    """Reads paged lists. Thread safe, remembers nothing."""

    def __init__(self, exchange: Exchange, manifests: Manifests, options: RegistryOptions) -> None:
        self._exchange = exchange
        self._manifests = manifests
        self._most_pages = options.most_pages

    def tags(self, reference: Reference) -> tuple[str, ...]:
        """All tags of the repository, in the registry's order."""
        found: list[str] = []
        reference = self._exchange.place_of_lists(reference)
        first = Ask("GET", reference, "tags/list?n=1000", {"Accept": "application/json"})
        for answer in self._pages(first):
            try:
                document = json.loads(answer.body)
                tags = document["tags"] or []
            except (ValueError, KeyError, TypeError, RecursionError) as cause:
                raise BadResponse(
                    f"{reference}: the list of tags is not what it should be"
                ) from cause
            if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
                raise BadResponse(f"{reference}: the list of tags is not a list of strings")
            found.extend(tags)
        return tuple(found)

    def referrers(self, reference: Reference) -> tuple[Descriptor, ...]:
        """What is attached to the pinned reference, from the API or the tag that replaces it."""
        reference = self._exchange.place_of_lists(reference)
        ask = Ask(
            "GET",
            reference,
            f"referrers/{reference.digest}",
            {"Accept": media_types.OCI_INDEX},
            expected=frozenset({200}) | _NO_API,
        )
        found: list[Descriptor] = []
        for answer in self._pages(ask):
            media_type = media_types.essence(answer.headers.get("content-type", ""))
            if answer.status != 200 or media_type != media_types.OCI_INDEX:
                if found:
                    raise BadResponse(f"{reference}: the list of referrers ends in the middle")
                return self._tagged_referrers(reference)
            try:
                found.extend(Index.parse(answer.body, media_type).manifests)
            except BadManifest as cause:
                raise BadManifest(f"{reference}: referrers: {cause.message}") from cause
        return tuple(found)

    def blob_size(self, reference: Reference, digest: Digest) -> int:
        """What a HEAD says about a blob's length. Raises ``BadResponse`` if it does not."""
        answer = self._exchange.fetch(Ask("HEAD", reference, f"blobs/{digest}"), _LARGEST_PAGE)
        length = answer.headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            raise BadResponse(f"{reference.repository_name}@{digest}: of unknown length")
        return int(length)

    def _tagged_referrers(self, reference: Reference) -> tuple[Descriptor, ...]:
        assert reference.digest is not None
        tagged = reference.with_tag(f"{reference.digest.algorithm}-{reference.digest.hex}")
        try:
            document = self._manifests.get(tagged)
        except NotFound:
            return ()
        if not isinstance(document, Index):
            raise BadResponse(f"{tagged}: expected an index of referrers, found an image manifest")
        return document.manifests

    def _pages(self, ask: Ask) -> Iterator[Answer]:
        home = self._exchange.target(ask).origin
        seen: set[Target] = set()
        for _ in range(self._most_pages):
            here = self._exchange.target(ask)
            if here in seen:
                raise BadResponse(f"{ask.reference}: the registry's pages go round in circles")
            seen.add(here)
            answer = self._exchange.fetch(ask, _LARGEST_PAGE)
            yield answer
            match = _NEXT.search(answer.headers.get("link", ""))
            if answer.status != 200 or match is None:
                return
            following = self._following(here, match[1], ask.reference)
            if Target.parse(following).origin != home:
                raise BadResponse(f"{ask.reference}: the next page is on another host")
            ask = Ask(ask.method, ask.reference, following, ask.headers)
        raise BadResponse(f"{ask.reference}: more than {self._most_pages} pages")

    def _following(self, here: Target, link: str, reference: Reference) -> str:
        import httpx

        try:
            return str(here.url.join(link))
        except (httpx.InvalidURL, ValueError) as cause:
            raise BadResponse(f"{reference}: the link to the next page is no URL") from cause
