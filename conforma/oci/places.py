"""One Registry over several places: registries, image layouts, and mirrors that stand in for them.

What a reference names decides where it is read: ``oci:…`` in that layout;
anything else in the first mirror that has it, and then, unless the run is
offline, in its registry. A mirror that has an image has all that was attached
to it when it was mirrored, so there a missing attachment is an answer; of
everything else a mirror lacks nothing is known.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from conforma.cancellation import Cancellation
from conforma.errors import InputError, NotFound, TooLarge
from conforma.oci.digest import Digest
from conforma.oci.layout_names import is_attachment_of
from conforma.oci.manifest import Descriptor, Index, Manifest
from conforma.oci.options import MEBIBYTE, Delivery, RegistryOptions
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry

if TYPE_CHECKING:
    from conforma.oci.layout import Layout

_READ_ONLY: Final = "an image layout is written by conforma mirror only"


class Places(Registry):
    """A registry client that also reads layouts. ``mirrors`` are layouts that are asked first.

    Raises ``InputError`` for a mirror that is no layout.
    """

    def __init__(
        self, options: RegistryOptions, cancellation: Cancellation, mirrors: Sequence[str] = ()
    ) -> None:
        super().__init__(options, cancellation)
        self._lock = threading.Lock()
        self._layouts: dict[str, Layout] = {}
        self._mirrors = tuple(self._layout(place) for place in mirrors)

    def head(self, reference: Reference) -> Descriptor:
        """As the registry's."""
        layout = self._place(reference)
        _refuse_impossible(reference, layout)
        return super().head(reference) if layout is None else layout.head(reference)

    def manifest(self, reference: Reference) -> Manifest | Index:
        """As the registry's."""
        layout = self._place(reference)
        _refuse_impossible(reference, layout)
        if layout is None:
            return super().manifest(reference)
        found = layout.manifest(reference)
        self._given(layout, reference, reference.digest or Digest.of(found.raw), len(found.raw))
        return found

    @contextmanager
    def open_blob(
        self,
        reference: Reference,
        descriptor: Descriptor,
        *,
        offset: int = 0,
        verify: bool = True,
    ) -> Iterator[Iterator[bytes]]:
        """As the registry's."""
        layout = self._place(reference.pinned(descriptor.digest))
        if layout is None:
            with super().open_blob(reference, descriptor, offset=offset, verify=verify) as chunks:
                yield chunks
        else:
            with layout.open_blob(descriptor, offset=offset, verify=verify) as chunks:
                yield self._told(chunks, layout, reference, descriptor.digest)

    def read_blob(
        self, reference: Reference, blob: Descriptor | Digest, *, limit: int = 16 * MEBIBYTE
    ) -> bytes:
        """As the registry's."""
        digest = blob if isinstance(blob, Digest) else blob.digest
        layout = self._place(reference.pinned(digest))
        if layout is None:
            return super().read_blob(reference, blob, limit=limit)
        if isinstance(blob, Descriptor) and blob.size > limit:
            raise TooLarge(f"{reference}: {blob.size} bytes, over the limit of {limit}")
        data = layout.read_blob(blob, limit=limit)
        self._given(layout, reference, digest, len(data))
        return data

    def blob_size(self, reference: Reference, digest: Digest) -> int:
        """As the registry's."""
        layout = self._place(reference.pinned(digest))
        if layout is None:
            return super().blob_size(reference, digest)
        return layout.blob_size(digest)

    def tags(self, reference: Reference) -> tuple[str, ...]:
        """As the registry's; a mirror does not claim to know all tags of a repository."""
        if reference.is_layout:
            return self._layout(reference.registry).tags(reference)
        return super().tags(reference)

    def referrers(
        self, reference: Reference, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        """As the registry's."""
        layout = self._place(reference)
        if layout is None:
            return super().referrers(reference, artifact_type)
        found = layout.referrers(reference)
        return tuple(d for d in found if artifact_type in (None, d.artifact_type))

    def push_blob(self, reference: Reference, data: bytes) -> Descriptor:
        """As the registry's. Raises ``InputError`` for a layout."""
        _refuse_layout(reference)
        return super().push_blob(reference, data)

    def push_manifest(self, reference: Reference, raw: bytes, media_type: str) -> Digest:
        """As the registry's. Raises ``InputError`` for a layout."""
        _refuse_layout(reference)
        return super().push_manifest(reference, raw, media_type)

    def _told(
        self, chunks: Iterator[bytes], layout: Layout, reference: Reference, digest: Digest
    ) -> Iterator[bytes]:
        yield from chunks
        self._given(layout, reference, digest, layout.blob_size(digest))

    def _given(self, layout: Layout, reference: Reference, digest: Digest, size: int) -> None:
        self._exchange.delivered(Delivery(digest, size, layout.place, not reference.is_layout))

    def _place(self, reference: Reference) -> Layout | None:
        """The layout that answers for ``reference``; ``None`` for its registry."""
        if reference.is_layout:
            return self._layout(reference.registry)
        if not self._mirrors:
            return None
        about = reference.digest or is_attachment_of(reference.tag)
        for mirror in self._mirrors:
            if about is not None and mirror.has(about):
                return mirror
            if reference.digest is None and mirror.find(reference) is not None:
                return mirror
        return None

    def _layout(self, place: str) -> Layout:
        from conforma.oci.layout import Layout

        with self._lock:
            if place not in self._layouts:
                self._layouts[place] = Layout.open(place)
            return self._layouts[place]


def _refuse_layout(reference: Reference) -> None:
    if reference.is_layout:
        raise InputError(f"{reference}: {_READ_ONLY}")


def _refuse_impossible(reference: Reference, layout: Layout | None) -> None:
    # RFC 6761, 6.4: nothing below this domain ever exists; only mirrors use such names.
    if layout is None and reference.registry.endswith(".invalid"):
        raise NotFound(f"{reference}: in no mirror, and no registry can have this name")
