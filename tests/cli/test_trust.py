"""What a run tells about trust: who vouched, which patterns are loose, who was asked for keys."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import pytest

from conforma.oci.digest import Digest
from conforma.serve.signing import Signer, add_tag_layer
from conforma.serve.signing_key import SigningKey
from conforma.serve.statements import Build, provenance_v02
from conforma.trust.keys import fingerprint
from tests.cli.shop import Shop

pytestmark = pytest.mark.slow


def provenance(shop: Shop, *args: str, **flags: str) -> dict[str, Any]:
    done = shop.validate(*args, output="provenance", **flags)
    (found,) = json.loads(done.out)["components"]
    return dict(found)


def test_provenance_names_the_key_that_vouched(shop: Shop) -> None:
    digest = shop.publish("web")
    other = SigningKey.generate()
    keys = other.public_pem + shop.key.public_pem
    found = provenance(shop, public_key=keys)
    (signature,), (attestation,) = found["signatures"], found["attestations"]
    voucher = {"key": fingerprint(shop.key.public_pem)}
    assert found["containerImage"] == f"{shop.server.host}/shop/web@{digest}"
    assert found["success"] is True
    assert signature["voucher"] == voucher
    assert signature["layout"] == "tag"
    assert b64decode(signature["sig"])
    assert attestation["verified"] is True
    assert attestation["predicateType"] == "https://slsa.dev/provenance/v0.2"
    assert [one["voucher"] for one in attestation["signatures"]] == [voucher]
    (statement,) = shop.validate(output="attestation").out.splitlines()
    assert attestation["statement"] == str(Digest.of(statement.encode()))


def test_nobody_vouches_for_what_was_not_checked(shop: Shop) -> None:
    shop.publish("web")
    found = provenance(shop, "--skip-image-sig-check", "--skip-att-sig-check")
    assert found["signatures"] == []
    (attestation,) = found["attestations"]
    assert attestation["verified"] is False
    assert [one["voucher"] for one in attestation["signatures"]] == [None]


def test_an_image_nobody_vouches_for(shop: Shop) -> None:
    shop.publish("web", signed=False, attested=False)
    found = provenance(shop)
    assert found["success"] is False
    assert (found["signatures"], found["attestations"]) == ([], [])


@pytest.mark.parametrize(
    ("pattern", "warned"),
    [("^https://id[.]test/me$", False), ("https://id[.]test", True), ("^https://id[.]test", True)],
)
def test_a_pattern_that_matches_in_the_middle_is_warned_of(
    shop: Shop, pattern: str, warned: bool
) -> None:
    shop.publish("web", signed=False, attested=False)
    done = shop.validate(
        public_key="",
        certificate_identity_regexp=pattern,
        certificate_oidc_issuer="https://issuer.test",
    )
    assert ("also matches in the middle of longer names" in done.err) is warned
    assert (pattern in done.err) is warned


# The words of the checks


def titles(findings: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    shown = [finding["metadata"] for finding in findings]
    return {one["code"]: (one["title"], one.get("description", "")) for one in shown}


CHECKS = {
    "builtin.image.signature_check": (
        "Image signature check passed",
        "The image signature matches available signing materials.",
    ),
    "builtin.attestation.signature_check": (
        "Attestation signature check passed",
        "The attestation signature matches available signing materials.",
    ),
    "builtin.attestation.syntax_check": (
        "Attestation syntax check passed",
        "The attestation has correct syntax.",
    ),
}


def test_the_titles_of_the_checks(shop: Shop) -> None:
    shop.publish("web")
    shop.components.append({"name": "gone", "containerImage": f"{shop.server.host}/shop/gone:1"})
    done = shop.validate("--info", "--show-successes")
    passed = titles(done.component("web")["successes"])
    assert {code: passed[code] for code in CHECKS} == CHECKS
    assert titles(done.component("gone")["violations"]) == {
        "builtin.image.accessible": (
            "Image URL is accessible",
            "The image URL is available and accessible.",
        )
    }


def test_skipped_checks_are_warned_of(shop: Shop) -> None:
    shop.publish("web")
    done = shop.validate("--skip-image-sig-check", "--skip-att-sig-check", "--verbose")
    for text in (
        "Image signature check skipped",
        "Attestation signature check skipped, fetching attestations without verification",
        "Both --skip-image-sig-check and --skip-att-sig-check are active, "
        "all cryptographic verification is disabled",
    ):
        assert text in done.err


def messages(shop: Shop, *args: str, **flags: str) -> dict[str, str]:
    (found,) = shop.validate(*args, **flags).report["components"]
    return {one["metadata"]["code"]: one["msg"] for one in found["violations"]}


def test_unverified_attestations_that_cannot_be_read(shop: Shop) -> None:
    digest = shop.publish("web", attested=False)
    add_tag_layer(shop.server.store, "shop/web", digest, "att", b"{}", "text/plain", {})
    told = messages(shop, "--skip-att-sig-check")
    assert told["builtin.attestation.signature_check"] == (
        "Image attestation check failed: failed to fetch attestations (signature check skipped): "
        "malformed attestation data: expecting media type of "
        "`application/vnd.dsse.envelope.v1+json`, received: `text/plain`"
    )


def test_a_provenance_that_contradicts_its_schema(shop: Shop) -> None:
    digest = shop.publish("web", attested=False)
    document = provenance_v02(Build(f"{shop.server.host}/shop/web", digest))
    del document["predicate"]["buildType"]
    Signer(shop.server.store, "shop/web", shop.key).attest(digest, document)
    told = messages(shop)
    assert told["builtin.attestation.syntax_check"] == (
        "Attestation syntax check failed: attestation syntax validation failed: "
        "jsonschema: '/predicate' does not validate with "
        "https://slsa.dev/provenance/v0.2#/properties/predicate/required: "
        "missing properties: 'buildType'"
    )


def test_keyless_without_evidence(shop: Shop) -> None:
    shop.publish("web", signed=False, attested=False)
    keyless = {
        "public_key": "",
        "certificate_identity": "https://id.test/me",
        "certificate_oidc_issuer": "https://issuer.test",
    }
    assert messages(shop, **keyless) == {
        "builtin.image.signature_check": "Image signature check failed: no signatures found",
        "builtin.attestation.signature_check": (
            "Image attestation check failed: no matching attestations: "
        ),
    }
