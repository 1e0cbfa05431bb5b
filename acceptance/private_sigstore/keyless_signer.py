"""Signs images in a store with certificates of a private Sigstore, in either layout."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from acceptance.private_sigstore import cosign, rekor
from acceptance.private_sigstore.fulcio import Leaf
from acceptance.private_sigstore.rekor import Rekor, b64
from conforma.oci.digest import Digest
from conforma.serve.images import artifact_of
from conforma.serve.signing import (
    BUNDLE,
    add_tag_layer,
    subject_of,
)
from conforma.serve.store import Store
from conforma.trust.evidence import DSSE_ENVELOPE, SIGNATURE, SIMPLE_SIGNING


@dataclass(frozen=True)
class KeylessSigner:
    """One signer of images in one repository; every signature gets its log entry."""

    store: Store
    repository: str
    log: Rekor
    leaf: Leaf
    layout: Literal["tag", "bundle"] = "tag"

    def sign(self, digest: Digest) -> None:
        """Attach an image signature."""
        if self.layout == "bundle":
            return self._bundle(digest, cosign.image_statement(str(digest)))
        payload = cosign.simple_signing(str(digest))
        value = cosign.sign(self.leaf.key, payload)
        entry = self.log.add(rekor.hashedrekord(payload, value, self.leaf.pem))
        return self._tag(digest, "sig", payload, SIMPLE_SIGNING, b64(value), entry.annotation())

    def attest(self, digest: Digest, statement: Mapping[str, Any]) -> None:
        """Attach a signed statement."""
        if self.layout == "bundle":
            return self._bundle(digest, statement)
        envelope = cosign.envelope(self.leaf.key, dict(statement))
        content = json.dumps(envelope).encode()
        entry = self.log.add(self._logged(envelope, content))
        return self._tag(digest, "att", content, DSSE_ENVELOPE, "", entry.annotation())

    def _bundle(self, digest: Digest, statement: Mapping[str, Any]) -> None:
        envelope = cosign.envelope(self.leaf.key, dict(statement))
        entry = self.log.add(self._logged(envelope, json.dumps(envelope).encode()))
        material = {
            "certificate": {"rawBytes": b64(self.leaf.der)},
            "tlogEntries": [entry.bundled()],
        }
        content = json.dumps(cosign.bundle(material, envelope)).encode()
        subject = subject_of(self.store, self.repository, digest)
        artifact = artifact_of(BUNDLE, [(content, BUNDLE, {})], subject=subject)
        artifact.put(self.store, self.repository)

    def _logged(self, envelope: Mapping[str, Any], content: bytes) -> dict[str, Any]:
        payload = b64decode(envelope["payload"])
        value = b64decode(envelope["signatures"][0]["sig"])
        return rekor.dsse(content, payload, value, self.leaf.pem)

    def _tag(
        self,
        digest: Digest,
        suffix: str,
        content: bytes,
        media_type: str,
        value: str,
        entry: Mapping[str, Any],
    ) -> None:
        notes = {
            SIGNATURE: value,
            "dev.sigstore.cosign/bundle": json.dumps(entry),
            "dev.sigstore.cosign/certificate": self.leaf.pem,
            "dev.sigstore.cosign/chain": self.leaf.chain_pem,
        }
        add_tag_layer(self.store, self.repository, digest, suffix, content, media_type, notes)
