"""The one way to a registry: everything the program reads from it or writes to it.

Equal requests made at the same time become one; what a digest names is asked
for once and verified; what a tag names is decided once per run. Answers mean
one of three things: it is there, it is not there (``NotFound``), or it could
not be found out (another ``RegistryError`` or ``IntegrityError``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from conforma.cancellation import Cancellation
from conforma.errors import BadManifest, TooLarge
from conforma.oci.digest import Digest
from conforma.oci.flights import Flights
from conforma.oci.manifest import Descriptor, ImageConfig, Index, Manifest
from conforma.oci.memory import Memory
from conforma.oci.meter import Meter, RegistryStats
from conforma.oci.options import MEBIBYTE, Delivery, Lane, Patience, RegistryOptions, RequestSeen
from conforma.oci.reference import Reference
from conforma.oci.retry import RetryPolicy

if TYPE_CHECKING:
    from conforma.oci.questions import Question
    from conforma.oci.upload import Open

__all__ = [
    "Patience",
    "Registry",
    "RegistryOptions",
    "RegistryStats",
    "RequestSeen",
    "RetryPolicy",
]


class Registry:
    """Talks to registries for one run. A context manager; thread safe.

    Every method raises ``NotFound`` when the registry says that it has no such
    thing, ``AccessDenied``, ``RateLimited``, ``RegistryUnreachable`` or
    ``BadResponse`` when it does not say, an ``IntegrityError`` when the bytes
    are not the promised ones, and ``Interrupted`` when the run is to stop.
    """

    def __init__(self, options: RegistryOptions, cancellation: Cancellation) -> None:
        # Deferred: httpx takes longer to import than most commands to run.
        from conforma.oci.exchange import Exchange
        from conforma.oci.listing import Listings
        from conforma.oci.manifests import Manifests
        from conforma.oci.push import Pusher
        from conforma.oci.questions import Questions
        from conforma.oci.recall import Recall
        from conforma.oci.upload import Uploader

        self._options = options
        self._meter = Meter()
        self._exchange = Exchange(options, cancellation, self._meter)
        self._questions = Questions(options, self._meter)
        self._recall = Recall(options)
        self._manifests = Manifests(
            self._exchange, options, cancellation, self._questions, self._recall
        )
        self._listings = Listings(self._exchange, self._manifests, options)
        self._pusher = Pusher(self._exchange)
        self._uploader = Uploader(self._exchange, self._pusher)
        self._blobs: Memory[bytes] = Memory(options.remembered)
        self._blob_flights: Flights[bytes] = Flights(cancellation)
        self._referrers: Memory[tuple[Descriptor, ...]] = Memory(options.remembered)
        self._referrer_flights: Flights[tuple[Descriptor, ...]] = Flights(cancellation)

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cut every connection."""
        self._exchange.close()

    @property
    def stats(self) -> RegistryStats:
        """What the run has asked for so far."""
        return self._meter.snapshot()

    def expect(self, references: Iterable[Reference]) -> None:
        """Say what is going to be read, so that repositories can share access tokens.

        May be called again; nothing is asked of any registry yet.
        """
        self._exchange.login.authorizer.expect(references)

    def head(self, reference: Reference) -> Descriptor:
        """Media type, digest and size of the manifest that ``reference`` names.

        A tag is asked about once per run.
        """
        return self._manifests.head(reference)

    def resolve(self, reference: Reference) -> Reference:
        """``reference`` pinned to the digest that its tag has in this run."""
        if reference.digest is not None:
            return reference.pinned(reference.digest)
        return reference.pinned(self.head(reference).digest)

    def manifest(self, reference: Reference) -> Manifest | Index:
        """The manifest or index, verified when the reference is pinned.

        Raises ``BadManifest`` if it is malformed or of an unknown kind,
        ``TooLarge`` over the limit, ``DigestMismatch``.
        """
        return self._manifests.get(reference)

    def image_config(self, reference: Reference, manifest: Manifest) -> ImageConfig:
        """The configuration of an image manifest. Raises ``BadManifest`` if it is malformed."""
        raw = self.read_blob(reference, manifest.config, limit=self._options.largest_config)
        try:
            return ImageConfig.parse(raw)
        except BadManifest as cause:
            raise BadManifest(f"{reference}: {cause.message}", hint=cause.hint) from cause

    @contextmanager
    def open_blob(
        self,
        reference: Reference,
        descriptor: Descriptor,
        *,
        offset: int = 0,
        verify: bool = True,
    ) -> Iterator[Iterator[bytes]]:
        """The blob's bytes from ``offset`` on, as they arrive.

        The connection may break and be resumed meanwhile. At the end of the
        iteration size and, when ``offset`` is 0, digest were right; before it
        nothing read may be acted on. Without ``verify`` the digest is left to
        whoever reads, who must hash the bytes anyway. Raises ``SizeMismatch``
        or ``DigestMismatch`` besides the errors of the class.
        """
        from conforma.oci.blobs import BlobStream

        stream = BlobStream(
            self._exchange,
            self._meter,
            reference,
            descriptor.digest,
            descriptor.size,
            offset,
            verify=verify,
        )
        try:
            yield iter(stream)
        finally:
            stream.close()

    def read_blob(
        self, reference: Reference, blob: Descriptor | Digest, *, limit: int = 16 * MEBIBYTE
    ) -> bytes:
        """The whole blob, verified; from the descriptor itself if it carries its content.

        Raises ``TooLarge`` if it has more than ``limit`` bytes.
        """
        digest = blob if isinstance(blob, Digest) else blob.digest
        size = None if isinstance(blob, Digest) else blob.size
        what = f"{reference.repository_name}@{digest}"
        if size is not None and size > limit:
            raise TooLarge(f"{what}: {size} bytes, over the limit of {limit}")
        embedded = _embedded(blob)
        if embedded is not None:
            return embedded
        with self._questions.ask("blob", what) as question:
            found = self._find_blob(reference, digest, size, limit, question)
        if len(found) > limit:
            raise TooLarge(f"{what}: {len(found)} bytes, over the limit of {limit}")
        return found

    def _find_blob(
        self, reference: Reference, digest: Digest, size: int | None, limit: int, question: Question
    ) -> bytes:
        key = (reference.repository_name, digest)
        found = self._blobs.get(key)
        if found is not None:
            question.source = "memory"
            return found
        # Who knows the size has a manifest of the repository that names the blob.
        found = self._recall.content(digest, size) if size is not None else None
        if found is not None:
            question.source = "store"
            self._exchange.delivered(Delivery(digest, len(found), ""))
        else:
            found = self._blob_flights.run(
                (key, size, limit),
                lambda: self._read_blob(reference, digest, size, limit),
                question.joined,
            )
        self._blobs.put(key, found, len(found))
        return found

    def _read_blob(
        self, reference: Reference, digest: Digest, size: int | None, limit: int
    ) -> bytes:
        from conforma.oci.blobs import BlobStream, read_all

        lane: Lane = "bulk" if size is not None and size > MEBIBYTE else "small"
        stream = BlobStream(self._exchange, self._meter, reference, digest, size, lane=lane)
        data = read_all(stream, limit, f"{reference.repository_name}@{digest}")
        if size is not None:
            self._recall.keep(digest, data)
        return data

    def blob_size(self, reference: Reference, digest: Digest) -> int:
        """How many bytes the repository's blob has; the registry is asked each time.

        Raises ``BadResponse`` if it does not say.
        """
        return self._listings.blob_size(reference, digest)

    def forget(self, reference: Reference) -> None:
        """Ask anew what the reference's tag means and what refers to its digest."""
        self._manifests.forget(reference)
        self._referrers.forget((reference.repository_name, reference.digest))

    def forget_all(self) -> None:
        """Ask anew what every tag means and what refers to any digest: for a run without an end."""
        self._manifests.forget_all()
        self._referrers.clear()

    def tags(self, reference: Reference) -> tuple[str, ...]:
        """All tags of the repository, in the registry's order."""
        return self._listings.tags(reference)

    def referrers(
        self, reference: Reference, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        """What says that it is about the pinned ``reference``, perhaps only one type of it.

        From the referrers API, or from the tag ``sha256-<hex>`` where a
        registry has none. Asked for once per run.
        """
        if reference.digest is None:
            raise ValueError(f"{reference} is not pinned")
        key = (reference.repository_name, reference.digest)
        with self._questions.ask("referrers", reference) as question:
            found = self._referrers.get(key)
            if found is not None:
                question.source = "memory"
            else:
                found = self._referrer_flights.run(
                    key, lambda: self._listings.referrers(reference), question.joined
                )
                self._referrers.put(key, found, 1 + sum(len(str(d)) for d in found))
        return tuple(d for d in found if artifact_type in (None, d.artifact_type))

    def push_blob(self, reference: Reference, data: bytes) -> Descriptor:
        """The repository of ``reference`` has ``data``; returns its descriptor (octet stream)."""
        return self._pusher.blob(reference, data)

    def has_blob(self, reference: Reference, digest: Digest) -> bool:
        """Whether the repository has the blob; asked with the right to write."""
        return self._pusher.has_blob(reference, digest)

    def mount_blob(self, reference: Reference, digest: Digest, source: str) -> bool:
        """Whether the registry took the blob over from its own repository ``source``."""
        return self._uploader.mount(reference, digest, source)

    def upload_blob(self, reference: Reference, descriptor: Descriptor, source: Open) -> None:
        """The repository has the blob that ``source`` opens, of whatever size.

        Raises also what reading ``source`` raises; then the repository lacks it.
        """
        self._uploader.upload(reference, descriptor, source)

    def push_manifest(self, reference: Reference, raw: bytes, media_type: str) -> Digest:
        """The repository has ``raw`` under the reference's digest or, without one, its tag.

        Raises ``DigestMismatch`` if the reference's digest is not that of ``raw``.
        """
        digest = self._pusher.manifest(reference, raw, media_type)
        self._manifests.forget(reference)
        return digest


def _embedded(blob: Descriptor | Digest) -> bytes | None:
    """The content a descriptor carries, if it is the content it describes."""
    if isinstance(blob, Digest) or blob.data is None or len(blob.data) != blob.size:
        return None
    matches = Digest.of(blob.data, blob.digest.algorithm) == blob.digest
    return blob.data if matches else None
