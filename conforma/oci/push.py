"""Writing to a registry: blobs, then the manifests that name them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from conforma.errors import BadResponse, DigestMismatch, RegistryError
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.exchange import Exchange
from conforma.oci.manifest import Descriptor
from conforma.oci.reference import Reference
from conforma.oci.sender import Ask

if TYPE_CHECKING:
    import httpx

_WRITE: Final = "pull,push"
# Smaller blobs cost less to send again than to ask about (RC-12).
_ASK_FIRST: Final = 64 * 1024
_LIMIT: Final = 64 * 1024


class Pusher:
    """Writes blobs and manifests. Thread safe."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def blob(self, reference: Reference, data: bytes) -> Descriptor:
        """The repository has ``data`` as a blob."""
        digest = Digest.of(data)
        if len(data) <= _ASK_FIRST or not self.has_blob(reference, digest):
            self.put(reference, data, digest)
        return Descriptor(media_types.OCTETS, digest, len(data))

    def has_blob(self, reference: Reference, digest: Digest) -> bool:
        """Whether the repository has the blob."""
        expected = frozenset({200, 404})
        ask = Ask("HEAD", reference, f"blobs/{digest}", expected=expected, actions=_WRITE)
        return self._exchange.fetch(ask, _LIMIT).status == 200

    def manifest(self, reference: Reference, raw: bytes, media_type: str) -> Digest:
        """The repository has ``raw`` as a manifest, under the reference's digest or tag."""
        digest = Digest.of(raw, reference.digest.algorithm if reference.digest else "sha256")
        if reference.digest not in (None, digest):
            raise DigestMismatch(f"{reference}: the manifest to push has {digest}")
        ask = Ask(
            "PUT",
            reference,
            f"manifests/{reference.identifier}",
            {"Content-Type": media_type},
            raw,
            expected=frozenset({200, 201, 202}),
            actions=_WRITE,
        )
        answer = self._exchange.fetch(ask, _LIMIT)
        stored = answer.headers.get("docker-content-digest")
        if stored is not None and stored != str(digest) and digest.algorithm == "sha256":
            raise DigestMismatch(
                f"{reference}: pushed {digest}, the registry stored {stored[:200]}"
            )
        return digest

    def put(self, reference: Reference, data: bytes, digest: Digest) -> None:
        """Send ``data`` in one piece, without asking whether it is needed."""
        start = Ask(
            "POST",
            reference,
            "blobs/uploads/",
            {"Content-Length": "0"},
            expected=frozenset({202}),
            actions=_WRITE,
        )
        answer = self._exchange.fetch(start, _LIMIT)
        put = Ask(
            "PUT",
            reference,
            str(self.upload_url(reference, start, answer.headers.get("location"), digest)),
            {"Content-Type": media_types.OCTETS},
            data,
            expected=frozenset({201, 204}),
            actions=_WRITE,
            lane="bulk" if len(data) > _ASK_FIRST else "small",
        )
        try:
            self._exchange.fetch(put, _LIMIT)
        except RegistryError:
            # The answer to a PUT that succeeded may be lost; the repetition
            # then finds its upload gone.
            if not self.has_blob(reference, digest):
                raise

    def upload_url(
        self, reference: Reference, start: Ask, location: str | None, digest: Digest | None = None
    ) -> httpx.URL:
        """Where the answer to ``start`` says that an upload goes on; with ``digest``, ends."""
        import httpx

        origin = self._exchange.target(start).url
        try:
            url = origin.join(location or "")
        except (httpx.InvalidURL, ValueError) as cause:
            raise BadResponse(f"{reference}: the upload's location is no URL") from cause
        if not location or url.scheme not in (origin.scheme, "https"):
            raise BadResponse(f"{reference}: the registry names no usable location for an upload")
        return url if digest is None else url.copy_add_param("digest", str(digest))
