"""Links: the proof that the bytes of one digest inflate to the tar of one DiffID.

A plain tar is only ever served for a digest through such a link, so a
configuration that lies about a DiffID cannot borrow another layer's content.
"""

from __future__ import annotations

import json

from msgspec import Struct

from conforma.errors import BadDigest, DigestMismatch
from conforma.oci.digest import DiffID, Digest


class Link(Struct, frozen=True):
    """What a blob inflates to: established by doing it, never by hearsay.

    ``size`` is in bytes. ``boot`` names the system's run in which content was
    written without being synced; in a later run it is checked before use.
    """

    diff_id: DiffID
    size: int
    boot: str

    def as_bytes(self, digest: Digest) -> bytes:
        """The content of the file named after ``digest``.

        Its checksum covers the name, so that a damaged file and one that
        belongs under another name count as absent.
        """
        body = json.dumps([str(self.diff_id), self.size, self.boot]).encode()
        return body + b"\n" + _checksum(digest, body)

    @classmethod
    def parse(cls, raw: bytes, digest: Digest) -> Link | None:
        """Read the link file of ``digest``; ``None`` if it is damaged or another's."""
        body, _, checksum = raw.partition(b"\n")
        if _checksum(digest, body) != checksum:
            return None
        try:
            diff_id, size, boot = json.loads(body)
            return cls(DiffID.parse(diff_id), size, boot)
        except (ValueError, TypeError, BadDigest):
            return None


def _checksum(digest: Digest, body: bytes) -> bytes:
    return Digest.of(f"{digest}\n".encode() + body).hex.encode()


def is_plain(digest: Digest, diff_id: DiffID) -> bool:
    """Whether the layer is stored as a plain tar: then the blob is the uncompressed view."""
    return (digest.algorithm, digest.hex) == (diff_id.algorithm, diff_id.hex)


def check_claim(digest: Digest, claimed: DiffID | None, found: DiffID) -> None:
    """Raise ``DigestMismatch`` if the image configuration claims another DiffID."""
    if claimed is not None and claimed != found:
        raise DigestMismatch(
            f"layer {digest}: the image configuration says it unpacks to {claimed}, "
            f"it unpacks to {found}",
            hint="the image is inconsistent; build and push it again",
        )
