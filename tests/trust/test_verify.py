"""What is attached to an image in a registry, and what the Verifier makes of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from acceptance.private_sigstore import cosign
from acceptance.private_sigstore.fulcio import spki
from conforma.errors import (
    AccessDenied,
    BadEvidence,
    BadResponse,
    DigestMismatch,
    NoMatchingSignature,
    NoSignature,
    NotFound,
    RegistryUnreachable,
    TrustRootUnavailable,
)
from conforma.oci import media_types
from conforma.oci.digest import Digest
from conforma.serve.faults import Fault
from conforma.trust.evidence import (
    DSSE_ENVELOPE,
    MAX_LAYERS,
    REKOR_BUNDLE,
    SIGNATURE,
    SIMPLE_SIGNING,
    Attached,
)
from conforma.trust.root import TrustRoot
from conforma.trust.signature import reported
from conforma.trust.slsa import check_schema
from conforma.trust.trust_policy import TrustPolicy
from conforma.trust.verify import Verifier
from tests.trust.conftest import World
from tests.trust.lab import Lab, attached

OTHER = Digest.of(b"another image")


def signature(world: World, lab: Lab | None = None, **given: object) -> Attached:
    return (lab or world.lab).signature(world.digest, **given)  # type: ignore[arg-type]


def attestation(world: World, lab: Lab | None = None, **changes: object) -> Attached:
    return (lab or world.lab).attestation(cosign.provenance(str(world.digest), **changes))


def with_key(world: World, key: object) -> Lab:
    """The same log and authority, another key."""
    return Lab(key, world.lab.log, world.lab.fulcio)


@pytest.mark.parametrize("ignore_rekor", [False, True])
@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["p256", "p384", "p521", "rsa", "ed25519"],
)
def test_signatures_and_attestations_of_every_kind_of_key(
    world: World, key: object, ignore_rekor: bool
) -> None:
    lab = with_key(world, key)
    made = signature(world, lab)
    world.tag("sig", made)
    world.tag("att", attestation(world, lab))
    verifier = world.verifier(lab.by_key(ignore_rekor=ignore_rekor))
    assert reported(verifier.image_signatures(world.image)) == [
        {"keyid": "", "sig": made.annotations[SIGNATURE]}
    ]
    (found,) = verifier.attestations(world.image)
    assert found.verified
    assert found.as_dict() == {
        "type": "https://in-toto.io/Statement/v0.1",
        "predicateType": "https://slsa.dev/provenance/v0.2",
        "predicateBuildType": "tekton.dev/v1/PipelineRun",
        "signatures": [{"keyid": "", "sig": found.signatures[0].sig}],
    }
    voucher = found.signatures[0].voucher
    assert voucher is not None
    assert (voucher.log_index is None) == ignore_rekor
    assert voucher.key == str(Digest.of(spki(lab.key)))


def test_nothing_attached_is_told_from_nothing_matching(world: World) -> None:
    verifier = world.verifier(world.lab.by_key())
    with pytest.raises(NoSignature, match=r"^no signatures found$"):
        verifier.image_signatures(world.image)
    with pytest.raises(NoMatchingSignature) as none:
        verifier.attestations(world.image)
    assert none.value.message == "no matching attestations: "
    assert none.value.hint == "no attestation is attached to the image"


def test_another_key_with_log_entries_is_named(world: World) -> None:
    stranger = with_key(world, ec.generate_private_key(ec.SECP256R1()))
    world.tag("sig", signature(world, stranger))
    world.tag("att", attestation(world, stranger))
    verifier = world.verifier(world.lab.by_key())
    reason = (
        "error verifying bundle: comparing public key PEMs, "
        f"expected {world.lab.pem}, got {stranger.pem}"
    )
    with pytest.raises(NoMatchingSignature) as image:
        verifier.image_signatures(world.image)
    assert image.value.message == f"no matching signatures: {reason}"
    with pytest.raises(NoMatchingSignature) as claims:
        verifier.attestations(world.image)
    assert claims.value.message == f"no matching attestations: {reason}"


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (
            ec.generate_private_key(ec.SECP256R1()),
            "invalid signature when validating ASN.1 encoded signature",
        ),
        (
            rsa.generate_private_key(public_exponent=65537, key_size=2048),
            "crypto/rsa: verification error",
        ),
        (ed25519.Ed25519PrivateKey.generate(), "failed to verify signature"),
    ],
    ids=["ecdsa", "rsa", "ed25519"],
)
def test_another_key_without_the_log(world: World, key: object, reason: str) -> None:
    world.tag("sig", signature(world))
    world.tag("att", attestation(world))
    verifier = world.verifier(with_key(world, key).by_key(ignore_rekor=True))
    with pytest.raises(NoMatchingSignature) as image:
        verifier.image_signatures(world.image)
    assert image.value.message == f"no matching signatures: {reason}"
    with pytest.raises(NoMatchingSignature) as claims:
        verifier.attestations(world.image)
    assert claims.value.message == (
        "no matching attestations: accepted signatures do not match threshold, Found: 0, Expected 1"
    )


def test_evidence_of_another_image_does_not_count(world: World) -> None:
    world.tag("sig", world.lab.signature(OTHER))
    world.tag("att", world.lab.attestation(cosign.provenance(str(OTHER))))
    verifier = world.verifier(world.lab.by_key())
    with pytest.raises(NoMatchingSignature) as image:
        verifier.image_signatures(world.image)
    assert image.value.message == (
        f"no matching signatures: invalid or missing digest in claim: {OTHER}"
    )
    with pytest.raises(NoMatchingSignature) as claims:
        verifier.attestations(world.image)
    assert claims.value.message == "no matching attestations: no matching subject digest found"


def test_those_that_hold_are_kept_in_order_and_the_others_dropped(world: World) -> None:
    good, also_good = signature(world), signature(world)
    bad = world.lab.signature(OTHER)
    world.tag("sig", bad, good, bad, also_good)
    found = world.verifier(world.lab.by_key()).image_signatures(world.image)
    assert [s.sig for s in found] == [good.annotations[SIGNATURE], also_good.annotations[SIGNATURE]]


def test_reasons_are_listed_once_each_in_registry_order(world: World) -> None:
    unsigned = attached("signature", SIMPLE_SIGNING, b"{}", {})
    other = world.lab.signature(OTHER)
    world.tag("sig", unsigned, other, other)
    with pytest.raises(NoMatchingSignature) as refusal:
        world.verifier(world.lab.by_key()).image_signatures(world.image)
    assert refusal.value.message == (
        f'no matching signatures: signature layer {unsigned.digest} is missing "{SIGNATURE}" '
        f"annotation\n invalid or missing digest in claim: {OTHER}"
    )


@pytest.mark.parametrize("keyless", [False, True], ids=["key", "keyless"])
def test_bundles_sign_images_and_attest(world: World, keyless: bool) -> None:
    lab = world.lab
    leaf = lab.fulcio.issue() if keyless else None
    signed = lab.bundle(cosign.image_statement(str(world.digest)), leaf)
    claimed = lab.bundle(cosign.provenance(str(world.digest)), leaf)
    world.attach_bundle(signed)
    world.attach_bundle(claimed)
    verifier = world.verifier(lab.keyless() if keyless else lab.by_key())
    (found,) = verifier.image_signatures(world.image)
    assert found.sig == signed["dsseEnvelope"]["signatures"][0]["sig"]
    (about,) = verifier.attestations(world.image)
    assert about.predicate_type == cosign.SLSA_V02
    assert about.build_type is None
    assert about.signatures[0].sig == claimed["dsseEnvelope"]["signatures"][0]["sig"]
    if leaf is not None:
        assert found.certificate == leaf.pem
        assert "".join(found.chain) == leaf.chain_pem
        assert found.metadata["Fulcio Issuer (V2)"] == "https://issuer.test"


def test_an_attestation_never_counts_as_a_signature(world: World) -> None:
    world.attach_bundle(world.lab.bundle(cosign.provenance(str(world.digest))))
    world.tag("att", attestation(world))
    verifier = world.verifier(world.lab.by_key())
    assert len(verifier.attestations(world.image)) == 2
    with pytest.raises(NoSignature, match=r"^no signatures found$"):
        verifier.image_signatures(world.image)


def test_a_signature_never_counts_as_an_attestation(world: World) -> None:
    world.attach_bundle(world.lab.bundle(cosign.image_statement(str(world.digest))))
    with pytest.raises(NoMatchingSignature, match=r"^no matching attestations: $"):
        world.verifier(world.lab.by_key()).attestations(world.image)


@pytest.mark.parametrize("spoiled", ["garbage", "stranger", "manifest"])
def test_a_bundle_that_fails_does_not_hide_a_tag_that_holds(world: World, spoiled: str) -> None:
    if spoiled == "garbage":
        world.refer(b"no bundle at all", cosign.BUNDLE_TYPE)
    elif spoiled == "stranger":
        stranger = with_key(world, ec.generate_private_key(ec.SECP256R1()))
        world.attach_bundle(stranger.bundle(cosign.image_statement(str(world.digest))))
        world.attach_bundle(stranger.bundle(cosign.provenance(str(world.digest))))
    else:
        world.refer(b"", "application/vnd.dev.sigstore.bundle.v0.3+json")
    world.tag("sig", signature(world))
    world.tag("att", attestation(world))
    verifier = world.verifier(world.lab.by_key())
    assert len(verifier.image_signatures(world.image)) == 1
    assert len(verifier.attestations(world.image)) == 1


def test_a_tag_that_fails_does_not_hide_a_bundle_that_holds(world: World) -> None:
    world.tag("sig", world.lab.signature(OTHER))
    world.attach_bundle(world.lab.bundle(cosign.image_statement(str(world.digest))))
    (found,) = world.verifier(world.lab.by_key()).image_signatures(world.image)
    assert found.layout == "bundle"


def test_bundles_that_fail_say_why_in_both_checks(world: World) -> None:
    stranger = with_key(world, ec.generate_private_key(ec.SECP256R1()))
    world.attach_bundle(stranger.bundle(cosign.image_statement(str(world.digest))))
    world.attach_bundle(stranger.bundle(cosign.provenance(str(world.digest))))
    for ignore, reason in (
        (False, "failed to verify log inclusion: transparency log certificate does not match"),
        (
            True,
            "failed to verify signature: could not verify envelope: "
            "accepted signatures do not match threshold, Found: 0, Expected 1",
        ),
    ):
        verifier = world.verifier(world.lab.by_key(ignore_rekor=ignore))
        with pytest.raises(NoMatchingSignature) as image:
            verifier.image_signatures(world.image)
        assert image.value.message == f"no matching signatures: {reason}"
        with pytest.raises(NoMatchingSignature) as claims:
            verifier.attestations(world.image)
        assert claims.value.message == f"no matching attestations: {reason}"


def test_a_bare_referrer_satisfies_the_check_but_is_not_listed(world: World) -> None:
    """As the reference's scenario with bundle-format attestations has it."""
    made = signature(world)
    world.refer(made.content, SIMPLE_SIGNING, made.annotations)
    verifier = world.verifier(world.lab.by_key())
    found = verifier.image_signatures(world.image)
    assert [s.layout for s in found] == ["referrer"]
    assert reported(found) == []
    with pytest.raises(NoMatchingSignature, match="comparing public key PEMs"):
        stranger = with_key(world, ec.generate_private_key(ec.SECP256R1()))
        world.verifier(stranger.by_key()).image_signatures(world.image)


def test_a_bare_envelope_is_an_attestation(world: World) -> None:
    made = attestation(world)
    world.refer(made.content, DSSE_ENVELOPE, {REKOR_BUNDLE: made.annotations[REKOR_BUNDLE]})
    (found,) = world.verifier(world.lab.by_key()).attestations(world.image)
    assert found.statement.is_about(world.digest)


def test_other_referrers_are_not_fetched(world: World) -> None:
    world.refer(b"{}", "application/spdx+json")
    world.tag("sig", signature(world))
    world.verifier(world.lab.by_key()).image_signatures(world.image)
    fetched = {request.path for request in world.server.log}
    assert not any(str(Digest.of(b"{}")) in path for path in fetched)


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("path", [r"\.sig$", "/referrers/"])
def test_a_failing_registry_is_never_taken_for_unsigned(
    world: World, path: str, status: int
) -> None:
    world.server.faults.add(Fault(status=status), path=path, times=None)
    with pytest.raises(RegistryUnreachable):
        world.verifier(world.lab.by_key()).image_signatures(world.image)


def test_a_forbidden_signature_tag_is_no_missing_one(world: World) -> None:
    world.server.faults.add(Fault(status=401), path=r"\.att$", times=None)
    with pytest.raises(AccessDenied):
        world.verifier(world.lab.by_key()).attestations(world.image)


def test_a_listed_blob_that_is_missing_is_an_inconsistent_registry(world: World) -> None:
    made = signature(world)
    world.tag("sig", made)
    world.server.faults.add(Fault(status=404), path=f"/blobs/{made.digest}", times=None)
    with pytest.raises(NotFound):
        world.verifier(world.lab.by_key()).image_signatures(world.image)


@pytest.mark.parametrize("signed", [False, True])
def test_a_listed_referrer_that_is_missing_is_an_inconsistent_registry(
    world: World, signed: bool
) -> None:
    """It may be what speaks against the image, whatever else there is."""
    bundle = world.lab.bundle(cosign.image_statement(str(world.digest)))
    world.refer(json.dumps(bundle).encode(), cosign.BUNDLE_TYPE)
    if signed:
        world.tag("sig", signature(world))
        world.tag("att", attestation(world))
    (listed,) = world.registry.referrers(world.image)
    world.server.faults.add(Fault(status=404), path=f"/manifests/{listed.digest}", times=None)
    verifier = world.verifier(world.lab.by_key())
    for ask in (verifier.image_signatures, verifier.attestations, verifier.unverified_attestations):
        with pytest.raises(BadResponse, match=f"{listed.digest}: the registry lists it among"):
            ask(world.image)


def test_a_changed_blob_is_no_verdict(world: World) -> None:
    made = signature(world)
    world.tag("sig", made)
    world.server.faults.add(Fault(flip_at=20), path=f"/blobs/{made.digest}", times=None)
    with pytest.raises(DigestMismatch):
        world.verifier(world.lab.by_key()).image_signatures(world.image)


def test_referrers_are_found_through_the_tag_where_there_is_no_api(world: World) -> None:
    world.server.referrers = False
    bundle = world.lab.bundle(cosign.image_statement(str(world.digest)))
    raw = json.dumps(bundle).encode()
    world.attach_bundle(bundle)
    repository = world.server.store.repository("app")
    layer = Attached("bundle", Digest.of(raw), cosign.BUNDLE_TYPE, raw, {})
    manifest = world._manifest([layer], artifactType=cosign.BUNDLE_TYPE, subject=world._subject())
    index = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": [
            {
                "mediaType": media_types.OCI_MANIFEST,
                "digest": str(Digest.of(manifest)),
                "size": len(manifest),
                "artifactType": cosign.BUNDLE_TYPE,
            }
        ],
    }
    repository.put_manifest(
        json.dumps(index).encode(), media_types.OCI_INDEX, tag=f"sha256-{world.digest.hex}"
    )
    assert len(world.verifier(world.lab.by_key()).image_signatures(world.image)) == 1


def test_limits_protect_against_floods(world: World) -> None:
    made = signature(world)
    world.tag("sig", *[made] * (MAX_LAYERS + 1))
    with pytest.raises(
        BadEvidence, match=r"^number of layers \(1001\) exceeded the limit \(1000\)$"
    ):
        world.verifier(world.lab.by_key()).image_signatures(world.image)
    small = Verifier(
        world.registry,
        world.lab.by_key(),
        world.lab.root(),
        environ={"COSIGN_MAX_ATTACHMENT_SIZE": "1kB"},
    )
    world.tag("att", attestation(world, predicate={"filler": "x" * 2000}))
    with pytest.raises(
        NoMatchingSignature, match=r"size of layer \(\d+\) exceeded the limit \(1000\)"
    ):
        small.attestations(world.image)


def test_an_index_in_place_of_signatures_is_malformed(world: World) -> None:
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": []}
    world.server.store.repository("app").put_manifest(
        json.dumps(index).encode(), media_types.OCI_INDEX, tag=f"sha256-{world.digest.hex}.sig"
    )
    with pytest.raises(BadEvidence, match="is an index, not a list of signatures"):
        world.verifier(world.lab.by_key()).image_signatures(world.image)


def test_unverified_attestations_come_from_both_layouts_and_only_about_the_image(
    world: World,
) -> None:
    stranger = Lab(ec.generate_private_key(ec.SECP256R1()))
    world.tag(
        "att",
        attestation(world, stranger),
        stranger.attestation(cosign.provenance(str(OTHER))),
    )
    world.attach_bundle(stranger.bundle(cosign.provenance(str(world.digest))))
    world.attach_bundle(stranger.bundle(cosign.image_statement(str(world.digest))))
    found = world.verifier(world.lab.by_key()).unverified_attestations(world.image)
    assert [(a.layout, a.verified, len(a.signatures)) for a in found] == [
        ("tag", False, 1),
        ("bundle", False, 1),
    ]


def test_unverified_attestations_must_be_readable(world: World) -> None:
    world.tag("att", attached("attestation", DSSE_ENVELOPE, b'{"payload": ""}', {SIGNATURE: ""}))
    with pytest.raises(BadEvidence, match=r"^no `payload` data found$"):
        world.verifier(world.lab.by_key()).unverified_attestations(world.image)


def test_provenance_that_breaks_its_schema_is_left_to_the_syntax_check(world: World) -> None:
    world.tag("att", attestation(world, predicate={"buildType": "x"}))
    (found,) = world.verifier(world.lab.by_key()).attestations(world.image)
    assert check_schema(found.statement) == [
        "jsonschema: '/predicate' does not validate with https://slsa.dev/provenance/v0.2"
        "#/properties/predicate/required: missing properties: 'builder'"
    ]


def test_provenance_in_the_wrong_statement_type_is_refused(world: World) -> None:
    world.tag("att", attestation(world, _type="https://in-toto.io/Statement/v1"))
    with pytest.raises(BadEvidence) as refusal:
        world.verifier(world.lab.by_key()).attestations(world.image)
    assert refusal.value.message == (
        "unable to parse as SLSA v0.2: unsupported attestation type: https://in-toto.io/Statement/v1"
    )


def test_keyless_signatures_carry_their_certificate(world: World) -> None:
    leaf = world.lab.fulcio.issue()
    world.tag("sig", signature(world, leaf=leaf))
    (found,) = world.verifier(world.lab.keyless()).image_signatures(world.image)
    assert found.certificate == leaf.pem
    assert list(found.chain) == [
        part + "-----END CERTIFICATE-----\n"
        for part in leaf.chain_pem.split("-----END CERTIFICATE-----\n")
        if part
    ]
    assert len(found.keyid) == 40
    assert found.metadata["Subject Alternative Name"] == "URIs:https://id.test/me"
    entry = world.lab.log.entries[-1]
    assert found.voucher is not None
    assert found.voucher.as_dict() == {
        "identity": "https://id.test/me",
        "issuer": "https://issuer.test",
        "logID": entry.log.log_id.hex(),
        "logIndex": entry.payload()["logIndex"],
        "signedAt": datetime.fromtimestamp(entry.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def test_a_bundle_tells_who_vouched_too(world: World) -> None:
    leaf = world.lab.fulcio.issue()
    world.attach_bundle(world.lab.bundle(cosign.image_statement(str(world.digest)), leaf))
    (found,) = world.verifier(world.lab.keyless()).image_signatures(world.image)
    entry = world.lab.log.entries[-1]
    shown = found.provenance()
    assert shown["layout"] == "bundle"
    assert shown["voucher"]["identity"] == "https://id.test/me"
    assert shown["voucher"]["logIndex"] == entry.payload()["logIndex"]
    assert "key" not in shown["voucher"]


def test_a_certificate_nobody_verified_is_not_reported(world: World) -> None:
    """In key mode anybody with write access could add one."""
    made = signature(world)
    forged = world.lab.fulcio.issue(key=world.lab.key)
    annotations = {
        **made.annotations,
        "dev.sigstore.cosign/certificate": forged.pem,
        "dev.sigstore.cosign/chain": forged.chain_pem,
    }
    world.tag("sig", attached("signature", SIMPLE_SIGNING, made.content, annotations))
    for ignore in (False, True):
        verifier = world.verifier(world.lab.by_key(ignore_rekor=ignore))
        (found,) = verifier.image_signatures(world.image)
        assert found.as_dict() == {"keyid": "", "sig": made.annotations[SIGNATURE]}


def test_the_trust_root_is_loaded_once_and_only_for_evidence(world: World) -> None:
    loaded = []

    def load(_: TrustPolicy) -> TrustRoot:
        loaded.append(1)
        return world.lab.root()

    def unreachable(_: TrustPolicy) -> TrustRoot:
        raise TrustRootUnavailable("no network")

    offline = Verifier(world.registry, world.lab.by_key(), unreachable, environ={})
    with pytest.raises(NoSignature):
        offline.image_signatures(world.image)
    world.tag("att", attestation(world), attestation(world))
    with pytest.raises(TrustRootUnavailable):
        offline.attestations(world.image)
    verifier = Verifier(world.registry, world.lab.by_key(), load, environ={})
    verifier.attestations(world.image)
    verifier.attestations(world.image)
    assert loaded == [1]
    without_log = Verifier(world.registry, world.lab.by_key(ignore_rekor=True), unreachable)
    assert len(without_log.attestations(world.image)) == 2
