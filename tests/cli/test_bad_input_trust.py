"""Keys that are none, and attestations that say something else than they should."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from conforma.oci.digest import Digest
from conforma.serve.signing import Signer, add_tag_layer, envelope_of
from conforma.serve.signing_key import SigningKey
from conforma.serve.statements import Build, provenance_v02
from conforma.trust.evidence import SIGNATURE
from tests.cli.bad_release import BAD, BadRelease, assert_refused, assert_violated

pytestmark = pytest.mark.slow
DSSE = "application/vnd.dsse.envelope.v1+json"
CHECK = "builtin.attestation.signature_check"
KEY = SigningKey.generate()
STATEMENT = b'{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"x","subject":[]}'


def rsa_key(bits: int) -> bytes:
    """A public RSA key as PEM."""
    key = rsa.generate_private_key(65537, bits).public_key()
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"this is no key\n", ["PEM decoding failed", "-----BEGIN PUBLIC KEY-----"]),
        (b"", ["PEM decoding failed", "-----BEGIN PUBLIC KEY-----"]),
        (b"\xff\xfe\x00\x01", ["PEM decoding failed"]),
        (rsa_key(1024), ["RSA key of 1024 bits is too short", "at least 2048 bits"]),
    ],
    ids=["text", "empty", "binary", "weak"],
)
def test_a_file_that_is_no_key(release: BadRelease, content: bytes, words: list[str]) -> None:
    file = release.shop.directory / "some.pub"
    file.write_bytes(content)
    done = release.run(public_key=str(file))
    assert_refused(done, *words, f"hint: what was read from {file} is no usable public key")
    assert not list(release.shop.server.log), "nothing was asked of a registry"


def test_a_private_key_is_refused_and_not_shown(release: BadRelease) -> None:
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file = release.shop.directory / "cosign.key"
    file.write_bytes(key)
    done = release.run(public_key=str(file))
    assert_refused(done, "PRIVATE KEY")
    assert key.decode().splitlines()[1] not in done.err


def test_a_key_file_that_is_missing_or_a_directory(release: BadRelease) -> None:
    missing = release.shop.directory / "missing.pub"
    assert_refused(
        release.run(public_key=str(missing)),
        f"open {missing}: no such file or directory",
        "hint: --public-key takes a PEM file",
    )
    place = release.shop.directory
    assert_refused(release.run(public_key=str(place)), f"open {place}: is a directory")


ENVELOPES: dict[str, tuple[bytes, str]] = {
    "no-json": (b"this is no envelope", "malformed attestation data"),
    "list": (b"[]", "malformed attestation data"),
    "base64": (
        b'{"payloadType":"application/vnd.in-toto+json","payload":"!!","signatures":[{"sig":"x"}]}',
        "illegal base64 data",
    ),
    "unsigned": (
        b'{"payloadType":"application/vnd.in-toto+json","payload":"e30=","signatures":[]}',
        "no matching attestations",
    ),
    "payload-type": (envelope_of(STATEMENT, KEY, payload_type="text/plain"), "text/plain"),
    "statement": (envelope_of(b"[]", KEY), "malformed attestation data"),
    "deep": (envelope_of(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", KEY), "deep"),
    "tampered": (
        json.dumps(
            json.loads(envelope_of(STATEMENT, KEY)) | {"payload": base64.b64encode(b"{}").decode()}
        ).encode(),
        "no matching attestations",
    ),
}


@pytest.mark.parametrize("case", ENVELOPES)
def test_an_attestation_that_is_none(release: BadRelease, case: str) -> None:
    release.shop.key = KEY
    envelope, reason = ENVELOPES[case]
    release.shop.components.clear()
    release.shop.publish("web")
    digest = release.shop.publish(BAD, attested=False)
    add_tag_layer(
        release.shop.server.store, release.repository, digest, "att", envelope, DSSE,
        {SIGNATURE: ""},
    )  # fmt: skip
    assert_violated(release.run(), CHECK, reason)


def test_an_attestation_about_another_image(release: BadRelease) -> None:
    digest = release.shop.publish(BAD, attested=False)
    signer = Signer(release.shop.server.store, release.repository, release.shop.key)
    signer.attest(digest, provenance_v02(Build(release.repository, Digest.of(b"another"))))
    assert_violated(release.run(), CHECK, "no matching subject digest found")
