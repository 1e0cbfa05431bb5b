"""What is learnt once in a run, and what must never be mistaken for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec.structs
import pytest

from acceptance.private_sigstore.rekor import b64
from acceptance.private_sigstore.trusted_root import trusted_root
from acceptance.private_sigstore.tuf_repository import TufRepository
from conforma.cancellation import Cancellation
from conforma.errors import IdentityMismatch, NoMatchingSignature, TrustRootUnavailable
from conforma.oci import media_types
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry, RegistryOptions
from conforma.policy.rego.sigstore import Signatures
from conforma.trust.bundle import Bundle
from conforma.trust.bundle_verify import verify_bundle
from conforma.trust.evidence import SIGNATURE, Attached, EvidenceReader
from conforma.trust.identity import Identity
from conforma.trust.keys import PublicKey
from conforma.trust.legacy_verify import verify_layer
from conforma.trust.root_sources import RootSources
from conforma.trust.trust_policy import TrustPolicy
from conforma.trust.verify import Verifier
from tests.trust.conftest import World
from tests.trust.lab import DIGEST, ME, Lab


@pytest.fixture
def tuf(world: World, tmp_path: Path) -> Iterator[TufRepository]:
    lab = world.lab
    with TufRepository(tmp_path / "served", trusted_root(lab.fulcio, lab.log)) as served:
        yield served


def environment(tuf: TufRepository, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "root.json").write_bytes(tuf.first_root)
    return {
        "TUF_ROOT": str(tmp_path / "cache"),
        "TUF_MIRROR": tuf.url,
        "TUF_ROOT_JSON": str(tmp_path / "root.json"),
    }


def test_policies_of_a_run_share_one_refresh(
    world: World, tuf: TufRepository, tmp_path: Path
) -> None:
    roots = RootSources(environment(tuf, tmp_path))
    first = roots(world.lab.keyless())
    asked = len(tuf.requests)
    assert roots(world.lab.by_key()) is first
    assert roots(world.lab.keyless(ignore_rekor=True)) is first
    assert len(tuf.requests) == asked


def test_a_repository_that_failed_is_not_asked_again_in_the_run(
    world: World, tuf: TufRepository, tmp_path: Path
) -> None:
    (tuf.directory / "timestamp.json").unlink()
    roots = RootSources(environment(tuf, tmp_path))
    with pytest.raises(TrustRootUnavailable) as first:
        roots(world.lab.keyless())
    asked = len(tuf.requests)
    with pytest.raises(TrustRootUnavailable) as second:
        roots(world.lab.by_key())
    assert second.value is first.value
    assert len(tuf.requests) == asked


def test_rules_use_the_trust_root_of_the_run(
    world: World, tuf: TufRepository, tmp_path: Path
) -> None:
    leaf = world.lab.fulcio.issue()
    world.tag("sig", world.lab.signature(world.digest, leaf))
    cancellation = Cancellation()
    roots = RootSources(environment(tuf, tmp_path))
    own = Verifier(world.registry, TrustPolicy(identity=ME), roots, environ={})
    assert own.image_signatures(world.image)
    asked, read = len(tuf.requests), len(list(world.server.log))
    rules = Signatures(own, PublicKey.load, cancellation)
    options = {"certificate_oidc_issuer": ME.issuer, "certificate_identity_regexp": "^https://id"}
    assert rules.verify_image(str(world.image), options)["success"] is True
    refused = rules.verify_image(
        str(world.image), {**options, "certificate_identity_regexp": "^https://other"}
    )
    assert refused["success"] is False
    assert len(tuf.requests) == asked
    assert len(list(world.server.log)) == read
    cancellation.close()


def test_a_certificate_is_followed_to_its_root_once() -> None:
    lab = Lab()
    leaf, root = lab.fulcio.issue(), lab.root()
    first = verify_layer(lab.signature(leaf=leaf), DIGEST, lab.keyless(), root)
    second = verify_layer(lab.attestation(leaf=leaf), DIGEST, lab.keyless(), root)
    third = Bundle.parse(json.dumps(lab.bundle(leaf=leaf)).encode())
    assert first.chain is second.chain
    assert first.chain is verify_bundle(third, DIGEST, lab.keyless(), root).chain
    # Another root has vouched for nothing yet, and this one never will.
    stranger = replace(root, authorities=Lab().root().authorities)
    with pytest.raises(IdentityMismatch, match="leaf certificate verification failed"):
        verify_layer(lab.signature(leaf=leaf), DIGEST, lab.keyless(), stranger)


def other_image(world: World) -> Reference:
    raw = world._manifest([], annotations={"other": "image"})
    digest = world.server.store.repository("app").put_manifest(raw, media_types.OCI_MANIFEST)
    return Reference.parse(f"{world.server.host}/app@{digest}")


def sign(world: World, image: Reference, layer: Attached) -> None:
    here, world.image = world.image, image
    world.tag("sig", layer)
    world.image = here


@pytest.mark.parametrize("keyless", [False, True])
def test_a_verdict_about_one_image_is_none_about_another(world: World, keyless: bool) -> None:
    leaf = world.lab.fulcio.issue() if keyless else None
    good = world.lab.signature(world.digest, leaf)
    world.tag("sig", good)
    verifier = world.verifier(world.lab.keyless() if keyless else world.lab.by_key())
    assert verifier.image_signatures(world.image)
    other = other_image(world)
    sign(world, other, good)
    with pytest.raises(NoMatchingSignature, match="invalid or missing digest in claim"):
        verifier.image_signatures(other)


def test_equal_bytes_with_another_signature_are_judged_by_themselves(world: World) -> None:
    good = world.lab.signature(world.digest, world.lab.fulcio.issue())
    bad = msgspec.structs.replace(
        good, annotations={**good.annotations, SIGNATURE: b64(b"no signature")}
    )
    verifier = world.verifier(world.lab.keyless())
    world.tag("sig", good, bad)
    assert len(verifier.image_signatures(world.image)) == 1
    world.tag("sig", bad)
    with Registry(RegistryOptions(), Cancellation()) as later:
        # What is attached has changed, as seen by a client that asks again.
        verifier.evidence = EvidenceReader(later, {})
        with pytest.raises(NoMatchingSignature):
            verifier.image_signatures(world.image)


def test_a_verdict_of_one_policy_is_none_of_another(world: World) -> None:
    world.tag("sig", world.lab.signature(world.digest, world.lab.fulcio.issue()))
    verifier = world.verifier(world.lab.keyless())
    assert verifier.image_signatures(world.image)
    stranger = TrustPolicy(identity=Identity(ME.issuer, "https://id.test/you"))
    with pytest.raises(NoMatchingSignature, match="none of the expected identities"):
        verifier.for_policy(stranger).image_signatures(world.image)
