"""Signs and attests images in a registry's store, in every layout a verifier must read.

* ``tag``: cosign's ``sha256-….sig`` and ``.att`` tags, a layer for each signature
* ``bundle``: a Sigstore bundle v0.3 as an OCI referrer, as cosign 3 writes it
* ``referrer``: the bare payload or envelope as an OCI referrer

Sources: signatures.md 2 and 3, DSSE protocol v1.0.2.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from conforma import gojson
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.oci.manifest import Descriptor
from conforma.serve.images import Image, artifact_of, manifest_of
from conforma.serve.sboms import SPDX_MEDIA_TYPE
from conforma.serve.signing_key import SigningKey
from conforma.serve.statements import statement
from conforma.serve.store import Store
from conforma.serve.transparency import LogEntry, TransparencyLog
from conforma.trust.bundle import COSIGN_SIGN
from conforma.trust.envelope import IN_TOTO, STATEMENT_V1, pre_authentication_encoding
from conforma.trust.evidence import DSSE_ENVELOPE, REKOR_BUNDLE, SIGNATURE, SIMPLE_SIGNING
from conforma.trust.signature import Layout

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_NO_TIME = "0001-01-01T00:00:00Z"


def tag_of(digest: Digest, suffix: str) -> str:
    """The tag under which cosign keeps ``sig``, ``att`` or ``sbom`` of an image."""
    return f"{digest.algorithm}-{digest.hex}.{suffix}"


def simple_signing(repository: str, digest: Digest) -> bytes:
    """The payload that an image signature is over."""
    return gojson.encode(
        {
            "critical": {
                "identity": {"docker-reference": repository},
                "image": {"docker-manifest-digest": str(digest)},
                "type": "cosign container image signature",
            },
            "optional": None,
        }
    )


def envelope_of(payload: bytes, *keys: SigningKey, payload_type: str = IN_TOTO) -> bytes:
    """A DSSE envelope around ``payload``, signed with every key."""
    signed = pre_authentication_encoding(payload_type, payload)
    return gojson.encode(
        {
            "payloadType": payload_type,
            "payload": _b64(payload),
            "signatures": [{"keyid": "", "sig": _b64(key.sign(signed))} for key in keys],
        }
    )


class Signer(Struct, frozen=True):
    """Signs what is in one repository. With a ``log``, every signature gets an entry in it."""

    store: Store
    repository: str
    key: SigningKey
    log: TransparencyLog | None = None
    layout: Layout = "tag"

    def sign(self, digest: Digest, *, claimed: Digest | None = None) -> bytes:
        """Attach an image signature and return it; ``claimed`` is signed in place of ``digest``."""
        if self.layout == "bundle":
            document = statement(
                COSIGN_SIGN, {}, "", claimed or digest, statement_type=STATEMENT_V1
            )
            return self.attest(digest, document)
        payload = simple_signing(self.repository, claimed or digest)
        signature = self.key.sign(payload)
        entry = None
        if self.log is not None:
            entry = self.log.record_signature(payload, signature, self.key.public_pem)
        notes = {SIGNATURE: _b64(signature), **_log_note(entry)}
        if self.layout == "referrer":
            self._refer(digest, SIMPLE_SIGNING, payload, notes)
        else:
            add_tag_layer(
                self.store, self.repository, digest, "sig", payload, SIMPLE_SIGNING, notes
            )
        return signature

    def attest(self, digest: Digest, document: Mapping[str, Any] | bytes) -> bytes:
        """Attach a signed statement, a value or its very bytes; returns the envelope."""
        payload = document if isinstance(document, bytes) else gojson.encode(document)
        envelope = envelope_of(payload, self.key)
        entry = None
        if self.log is not None:
            entry = self.log.record_envelope(envelope, self.key.public_pem)
        kind = _predicate_type(payload)
        if self.layout == "bundle":
            notes = {
                "org.opencontainers.image.created": "2026-01-05T10:07:31Z",
                "dev.sigstore.bundle.content": "dsse-envelope",
                "dev.sigstore.bundle.predicateType": kind,
            }
            self._refer(digest, BUNDLE, bundle_of(envelope, self.key, entry), {}, notes)
        elif self.layout == "referrer":
            self._refer(
                digest, DSSE_ENVELOPE, envelope, {"predicateType": kind, **_log_note(entry)}
            )
        else:
            notes = {SIGNATURE: "", "predicateType": kind, **_log_note(entry)}
            add_tag_layer(
                self.store, self.repository, digest, "att", envelope, DSSE_ENVELOPE, notes
            )
        return envelope

    def _refer(
        self,
        digest: Digest,
        kind: str,
        blob: bytes,
        layer_notes: Mapping[str, str],
        notes: Mapping[str, str] | None = None,
    ) -> None:
        artifact = artifact_of(
            kind,
            [(blob, kind, layer_notes)],
            subject=subject_of(self.store, self.repository, digest),
            annotations=layer_notes if notes is None else notes,
        )
        artifact.put(self.store, self.repository)


def bundle_of(envelope: bytes, key: SigningKey, entry: LogEntry | None) -> bytes:
    """A Sigstore bundle v0.3 in key mode."""
    material: dict[str, Any] = {
        "publicKey": {"hint": _b64(hashlib.sha256(key.public_der).digest())},
        "tlogEntries": [] if entry is None else [entry.bundle_entry],
    }
    return gojson.encode(
        {
            "mediaType": BUNDLE,
            "verificationMaterial": material,
            "dsseEnvelope": json.loads(envelope),
        }
    )


def add_tag_layer(
    store: Store,
    repository: str,
    digest: Digest,
    suffix: str,
    blob: bytes,
    media_type: str,
    notes: Mapping[str, str],
) -> None:
    """Append a layer to the manifest under cosign's tag, making it if there is none."""
    tag = tag_of(digest, suffix)
    found = store.repository(repository).find(tag)
    layers = []
    if found is not None:
        layers = [Descriptor.parse(layer) for layer in found[1].document["layers"]]
    layers.append(Descriptor(media_type, Digest.of(blob), len(blob), notes))
    manifest, config = _cosign_manifest(layers)
    store.put_blob(repository, blob)
    store.put_blob(repository, config)
    store.repository(repository).put_manifest(manifest, media_types.OCI_MANIFEST, tag=tag)


def attach_sbom(
    store: Store,
    repository: str,
    digest: Digest,
    document: Mapping[str, Any],
    *,
    media_type: str = SPDX_MEDIA_TYPE,
    referrer: bool = False,
) -> Digest:
    """Attach a bill of material, under the ``.sbom`` tag or as a referrer; returns its blob."""
    blob = gojson.encode(document)
    if referrer:
        subject = subject_of(store, repository, digest)
        artifact_of(media_type, [(blob, media_type, {})], subject=subject).put(store, repository)
    else:
        add_tag_layer(store, repository, digest, "sbom", blob, media_type, {})
    return Digest.of(blob)


def subject_of(store: Store, repository: str, digest: Digest) -> Descriptor:
    """What a referrer says about the image it refers to. Raises ``KeyError`` if it is unknown."""
    found = store.repository(repository).find(digest)
    if found is None:
        raise KeyError(f"{repository}@{digest}")
    return Descriptor(found[1].media_type, digest, len(found[1].raw))


def copy_evidence(
    store: Store, source: tuple[str, Digest], target: tuple[str, Digest], suffix: str
) -> None:
    """Put the signatures or attestations of one image under the tag of another."""
    found = store.repository(source[0]).find(tag_of(source[1], suffix))
    if found is None:
        raise KeyError(f"{source[0]}:{tag_of(source[1], suffix)}")
    document = found[1].document
    for entry in (document["config"], *document["layers"]):
        store.repository(target[0]).link_blob(Digest.parse(entry["digest"]))
    store.repository(target[0]).put_manifest(
        found[1].raw, found[1].media_type, tag=tag_of(target[1], suffix)
    )


def policy_bundle(files: Mapping[str, bytes]) -> Image:
    """An OCI artifact with policy files, a titled layer for each, as ``conftest push`` makes."""
    kind = "application/vnd.cncf.openpolicyagent.policy.layer.v1+rego"
    data = "application/vnd.cncf.openpolicyagent.data.layer.v1+json"
    layers = [
        (blob, kind if path.endswith(".rego") else data, {"org.opencontainers.image.title": path})
        for path, blob in files.items()
    ]
    return artifact_of("application/vnd.cncf.openpolicyagent.config.v1+json", layers)


def _cosign_manifest(layers: Sequence[Descriptor]) -> tuple[bytes, bytes]:
    config = gojson.encode(
        {
            "architecture": "",
            "created": _NO_TIME,
            "history": [{"created": _NO_TIME} for _ in layers],
            "os": "",
            "rootfs": {"type": "layers", "diff_ids": [str(layer.digest) for layer in layers]},
            "config": {},
        }
    )
    about = Descriptor(media_types.OCI_CONFIG, Digest.of(config), len(config))
    return manifest_of(about, layers), config


def _log_note(entry: LogEntry | None) -> dict[str, str]:
    return {} if entry is None else {REKOR_BUNDLE: entry.annotation}


def _predicate_type(payload: bytes) -> str:
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return ""
    kind = document.get("predicateType", "") if isinstance(document, dict) else ""
    return kind if isinstance(kind, str) else ""


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
