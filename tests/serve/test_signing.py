"""What is signed here verifies with the code that verifies for real, and only then."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest
import rfc8785

from conforma.errors import SignatureMismatch
from conforma.oci.digest import Digest
from conforma.serve.images import Member, image_of, layer_of
from conforma.serve.sboms import Package, cyclonedx, spdx
from conforma.serve.signing import (
    Signer,
    attach_sbom,
    copy_evidence,
    envelope_of,
    policy_bundle,
    tag_of,
)
from conforma.serve.signing_key import Kind, SigningKey
from conforma.serve.statements import Build, provenance_v02, provenance_v1
from conforma.serve.store import Store
from conforma.serve.transparency import TransparencyLog
from conforma.trust.envelope import Envelope, Statement
from conforma.trust.evidence import REKOR_BUNDLE, SIGNATURE
from conforma.trust.keys import PublicKey
from conforma.trust.simple_signing import check_claim
from conforma.trust.slsa import check_schema

IMAGE = image_of([layer_of([Member("a")])])


@pytest.fixture
def store() -> Store:
    store = Store()
    IMAGE.put(store, "app", "1")
    return store


def layers(store: Store, suffix: str) -> list[tuple[bytes, dict[str, str]]]:
    found = store.repository("app").find(tag_of(IMAGE.digest, suffix))
    assert found is not None
    result = []
    for layer in found[1].document["layers"]:
        body = store.blob(Digest.parse(layer["digest"]))
        assert body is not None
        result.append((body.read(0, body.size), layer.get("annotations", {})))
    return result


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa", "ed25519"])
def test_every_kind_of_key_signs_what_its_public_half_verifies(kind: Kind) -> None:
    key = SigningKey.generate(kind)
    public = PublicKey.load(key.public_pem)
    public.verify(key.sign(b"data"), b"data")
    with pytest.raises(SignatureMismatch):
        public.verify(key.sign(b"data"), b"other")
    assert "PRIVATE KEY" in key.private_pem


def test_signatures_are_layers_under_cosigns_tag(store: Store) -> None:
    one, two = SigningKey.generate(), SigningKey.generate()
    for key in (one, two):
        Signer(store, "app", key).sign(IMAGE.digest)
    found = layers(store, "sig")
    assert len(found) == 2
    for key, (payload, notes) in zip((one, two), found, strict=True):
        PublicKey.load(key.public_pem).verify(base64.b64decode(notes[SIGNATURE]), payload)
        check_claim(payload, IMAGE.digest)


@pytest.mark.parametrize("make", [provenance_v02, provenance_v1])
def test_attestations_are_envelopes_about_the_image(store: Store, make: object) -> None:
    key = SigningKey.generate()
    document = make(Build("reg/app", IMAGE.digest, sbom="reg/app@sha256:01"))  # type: ignore[operator]
    Signer(store, "app", key).attest(IMAGE.digest, document)
    [(raw, notes)] = layers(store, "att")
    envelope = Envelope.parse(raw)
    PublicKey.load(key.public_pem).verify(envelope.signatures[0].value, envelope.signed_bytes)
    statement = Statement.parse(envelope.payload)
    assert statement.is_about(IMAGE.digest)
    assert check_schema(statement) == []
    assert notes[SIGNATURE] == ""
    assert notes["predicateType"] == statement.predicate_type


def test_provenance_tells_the_same_in_both_formats() -> None:
    build = Build("reg/app", IMAGE.digest, sbom="reg/app@sha256:01")
    old, new = provenance_v02(build)["predicate"], provenance_v1(build)["predicate"]
    tasks = [
        json.loads(base64.b64decode(dependency["content"]))
        for dependency in new["buildDefinition"]["resolvedDependencies"]
        if dependency["name"] == "pipelineTask"
    ]
    assert [t["results"] for t in old["buildConfig"]["tasks"]] == [
        t["status"]["results"] for t in tasks
    ]
    assert old["builder"] == new["runDetails"]["builder"]


def test_a_signature_may_claim_another_image(store: Store) -> None:
    other = Digest.of(b"other")
    Signer(store, "app", SigningKey.generate()).sign(IMAGE.digest, claimed=other)
    [(payload, _)] = layers(store, "sig")
    check_claim(payload, other)


def test_log_entries_are_promised_by_the_logs_key(store: Store) -> None:
    log, key = TransparencyLog(), SigningKey.generate()
    signer = Signer(store, "app", key, log)
    signer.sign(IMAGE.digest)
    signer.attest(IMAGE.digest, provenance_v1(Build("reg/app", IMAGE.digest)))
    hashes = []
    for suffix in ("sig", "att"):
        [(blob, notes)] = layers(store, suffix)
        bundle = json.loads(notes[REKOR_BUNDLE])
        promise = base64.b64decode(bundle["SignedEntryTimestamp"])
        PublicKey.load(log.key.public_pem).verify(promise, rfc8785.dumps(bundle["Payload"]))
        assert bundle["Payload"]["logID"] == hashlib.sha256(log.key.public_der).hexdigest()
        spec = json.loads(base64.b64decode(bundle["Payload"]["body"]))["spec"]
        recorded = spec["data"]["hash"] if suffix == "sig" else spec["envelopeHash"]
        hashes.append(recorded["value"] == hashlib.sha256(blob).hexdigest())
    assert hashes == [True, True]


@pytest.mark.parametrize(
    ("layout", "kinds"),
    [
        ("bundle", ["application/vnd.dev.sigstore.bundle.v0.3+json"] * 2),
        (
            "referrer",
            [
                "application/vnd.dev.cosign.simplesigning.v1+json",
                "application/vnd.dsse.envelope.v1+json",
            ],
        ),
    ],
)
def test_evidence_as_referrers(store: Store, layout: str, kinds: list[str]) -> None:
    signer = Signer(store, "app", SigningKey.generate(), TransparencyLog(), layout)  # type: ignore[arg-type]
    signer.sign(IMAGE.digest)
    signer.attest(IMAGE.digest, provenance_v1(Build("reg/app", IMAGE.digest)))
    documents = [m.document for m in store.repository("app").manifests.values()]
    referring = [d for d in documents if d.get("subject", {}).get("digest") == str(IMAGE.digest)]
    assert sorted(d["artifactType"] for d in referring) == kinds
    assert store.repository("app").tags == ("1",)


def test_an_envelope_may_carry_several_signatures() -> None:
    keys = [SigningKey.generate() for _ in range(3)]
    envelope = Envelope.parse(envelope_of(b"{}", *keys))
    for key, signature in zip(keys, envelope.signatures, strict=True):
        PublicKey.load(key.public_pem).verify(signature.value, envelope.signed_bytes)


def test_evidence_can_be_copied_to_another_image(store: Store) -> None:
    Signer(store, "app", SigningKey.generate()).sign(IMAGE.digest)
    other = image_of([]).put(store, "other")
    copy_evidence(store, ("app", IMAGE.digest), ("other", other), "sig")
    found = store.repository("other").find(tag_of(other, "sig"))
    original = store.repository("app").find(tag_of(IMAGE.digest, "sig"))
    assert found == original


@pytest.mark.parametrize("referrer", [False, True])
def test_bills_of_material_are_attached_as_blobs(store: Store, referrer: bool) -> None:
    document = spdx("reg/app", IMAGE.digest, [Package("bash", "5.2")])
    digest = attach_sbom(store, "app", IMAGE.digest, document, referrer=referrer)
    body = store.blob(digest)
    assert body is not None and json.loads(body.read(0, body.size)) == document
    assert (tag_of(IMAGE.digest, "sbom") in store.repository("app").tags) != referrer


def test_bills_of_material_list_packages_by_purl() -> None:
    packages = [Package("bash", "5.2"), Package("requests", "2.32", kind="pypi")]
    purls = {"pkg:generic/bash@5.2", "pkg:pypi/requests@2.32"}
    document = spdx("reg/app", IMAGE.digest, packages)
    references = [ref for package in document["packages"] for ref in package["externalRefs"]]
    assert {reference["referenceLocator"] for reference in references} == purls
    assert {c["purl"] for c in cyclonedx("reg/app", IMAGE.digest, packages)["components"]} == purls


def test_policy_bundles_title_their_files() -> None:
    bundle = json.loads(policy_bundle({"a.rego": b"package a", "b.json": b"{}"}).manifest)
    titles = [layer["annotations"]["org.opencontainers.image.title"] for layer in bundle["layers"]]
    assert titles == ["a.rego", "b.json"]
