"""What a run tells about trust: who vouched, which patterns are loose, who was asked for keys."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

import pytest

from conforma.oci.digest import Digest
from conforma.serve.signing_key import SigningKey
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
