"""Writes OCI image layouts by hand, as other tools do, for tests that read them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.layout import INDEX_FILE, MARKER, MARKER_FILE
from conforma.oci.layout_names import REF_NAME
from conforma.oci.manifest import Descriptor
from conforma.serve.images import Image, ImageIndex


class HandMade:
    """A layout in a directory that grows as a test needs it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.entries: list[dict[str, object]] = []
        root.mkdir(parents=True, exist_ok=True)
        (root / MARKER_FILE).write_bytes(MARKER)
        self._save()

    @property
    def place(self) -> str:
        return f"oci:{self.root}"

    def blob(self, data: bytes) -> Digest:
        digest = Digest.of(data)
        file = self.root / "blobs" / digest.algorithm / digest.hex
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return digest

    def put(self, image: Image | ImageIndex, name: str = "") -> Digest:
        children = image.images if isinstance(image, ImageIndex) else (image,)
        for child in children:
            for blob in child.blobs:
                self.blob(blob)
            self.blob(child.manifest)
        raw = image.raw if isinstance(image, ImageIndex) else image.manifest
        digest = self.blob(raw)
        entry = Descriptor(image.media_type, digest, len(raw), {REF_NAME: name} if name else {})
        self.entries.append(entry.as_dict())
        self._save()
        return digest

    def archived(self, path: Path) -> str:
        with tarfile.open(path, "w") as archive:
            archive.add(self.root, ".")
        return f"oci-archive:{path}"

    def _save(self) -> None:
        document = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_INDEX,
            "manifests": self.entries,
        }
        (self.root / INDEX_FILE).write_text(json.dumps(document))
