from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa, utils, x25519

from acceptance.private_sigstore.cosign import sign
from acceptance.private_sigstore.fulcio import Fulcio, public_pem
from conforma.errors import InputError, RegistryUnreachable, SignatureMismatch
from conforma.oci.digest import Digest
from conforma.trust.keys import PublicKey

P256 = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ED = ed25519.Ed25519PrivateKey.generate()
PEM = public_pem(P256)


def pkcs1(key: Any) -> str:
    encoded: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.PKCS1
    )
    return encoded.decode()


@pytest.mark.parametrize("key", [P256, RSA, ED, ec.generate_private_key(ec.SECP384R1())])
def test_only_the_very_signature_over_the_very_data(key: Any) -> None:
    public = PublicKey(public_pem(key))
    signature = sign(key, b"data")
    public.verify(signature, b"data")
    for other, data in ((signature, b"data "), (signature[:-1], b"data"), (b"", b"data")):
        with pytest.raises(SignatureMismatch):
            public.verify(other, data)


def test_rsa_takes_pkcs1_and_no_other_padding() -> None:
    salted = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
    with pytest.raises(SignatureMismatch, match="crypto/rsa: verification error"):
        PublicKey(public_pem(RSA)).verify(RSA.sign(b"data", salted, hashes.SHA256()), b"data")


def test_a_digest_may_stand_for_its_content() -> None:
    digest = Digest.of(b"data")
    for key in (P256, RSA):
        PublicKey(public_pem(key)).verify_digest(sign(key, b"data"), digest)
        with pytest.raises(SignatureMismatch, match="invalid signature"):
            PublicKey(public_pem(key)).verify_digest(sign(key, b"other"), digest)
    with pytest.raises(SignatureMismatch, match="unsupported public key type"):
        PublicKey(public_pem(ED)).verify_digest(sign(ED, b"data"), digest)
    with pytest.raises(SignatureMismatch, match="sha512 digest"):
        PublicKey(PEM).verify_digest(b"", Digest.of(b"data", "sha512"))
    hashed = utils.Prehashed(hashes.SHA256())
    signature = P256.sign(bytes.fromhex(digest.hex), ec.ECDSA(hashed))
    PublicKey(PEM).verify(signature, b"data")


def test_several_keys_are_alternatives_and_reported_in_order() -> None:
    both = PublicKey(PEM + public_pem(RSA))
    assert both.pem == PEM + public_pem(RSA)
    for key in (P256, RSA):
        both.verify(sign(key, b"data"), b"data")
    with pytest.raises(SignatureMismatch):
        both.verify(sign(ED, b"data"), b"data")


def test_the_pem_is_re_encoded() -> None:
    assert PublicKey(f"text before\n{PEM.strip()}\ntext after").pem == PEM
    assert PublicKey(pkcs1(RSA)).pem == public_pem(RSA)
    leaf = Fulcio().issue(key=P256)
    assert PublicKey(leaf.pem).pem == PEM


def test_every_form_of_reference(tmp_path: Path) -> None:
    file = tmp_path / "cosign.pub"
    file.write_text(PEM)
    environ = {"COSIGN_PUBLIC_KEY": PEM}
    secrets = {("ns", "name", "cosign.pub"): PEM.encode()}
    for text in (
        PEM,
        str(file),
        "env://COSIGN_PUBLIC_KEY",
        "https://keys.test/cosign.pub",
        "k8s://ns/name",
    ):
        key = PublicKey.load(
            text,
            fetch=lambda url: PEM.encode() if url == "https://keys.test/cosign.pub" else b"",
            secrets=lambda *where: secrets.get(where),
            environ=environ,
        )
        assert key.pem == PEM


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("missing.pub", "open missing.pub: no such file or directory"),
        ("", "open : no such file or directory"),
        ("nul\0.pub", "open nul\0.pub: embedded null byte"),
        ("env://NOWHERE", "loading URL: env var $NOWHERE not found"),
        ("spam://x", "loading URL: unrecognized scheme: spam://"),
        ("awskms://alias/x", "loading URL: unrecognized scheme: awskms://"),
        ("gitlab://group/project", "loading URL: unrecognized scheme: gitlab://"),
        ("pkcs11:token=x", "loading URL: PKCS #11 tokens are not supported"),
        (
            "k8s://name",
            "kubernetes specification should be in the format k8s://<namespace>/<secret>",
        ),
        (
            "k8s://a/b/c",
            "kubernetes specification should be in the format k8s://<namespace>/<secret>",
        ),
        ("k8s://a/", "kubernetes specification should be in the format k8s://<namespace>/<secret>"),
        ("k8s://a/b", "checking if secret exists: no Kubernetes client"),
        (
            "https://user:secret@keys.test/k?token=x",
            "loading URL: https://keys.test/k: nothing to download it with",
        ),
    ],
)
def test_references_that_lead_nowhere(text: str, reason: str) -> None:
    with pytest.raises(InputError) as refusal:
        PublicKey.load(text, environ={})
    assert refusal.value.message == reason
    assert "secret" not in refusal.value.message or "kubernetes" in reason or "k8s" in text


def test_the_hint_about_what_is_no_key_shows_no_password() -> None:
    with pytest.raises(InputError) as refusal:
        PublicKey.load("https://me:c4nary@keys.test/k?token=c4nary", fetch=lambda _: b"<html>")
    assert "https://keys.test/k" in str(refusal.value.hint)
    assert "c4nary" not in f"{refusal.value.message}{refusal.value.hint}"


def test_what_a_loader_raises_passes_through() -> None:
    def down(_: str) -> bytes:
        raise RegistryUnreachable("keys.test is down")

    with pytest.raises(RegistryUnreachable):
        PublicKey.load("https://keys.test/k", fetch=down)
    with pytest.raises(InputError, match=r"secret a/b has no field cosign\.pub"):
        PublicKey.load("k8s://a/b", secrets=lambda *_: None)


def test_a_directory_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory"):
        PublicKey.load(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "pem to public key: PEM decoding failed"),
        ("just text", "pem to public key: PEM decoding failed"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA", "pem to public key: PEM decoding failed"),
        (
            P256.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ).decode(),
            "unknown Public key PEM file type: PRIVATE KEY. Are you passing the correct public key?",
        ),
        (
            public_pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)),
            "RSA key of 1024 bits is too short to trust",
        ),
        (
            public_pem(ec.generate_private_key(ec.SECP256K1())),
            "unsupported public key type: curve secp256k1",
        ),
        (public_pem(dsa.generate_private_key(key_size=2048)), "unsupported public key type"),
        (public_pem(x25519.X25519PrivateKey.generate()), "unsupported public key type"),
    ],
    ids=["empty", "text", "cut", "private", "short", "curve", "dsa", "x25519"],
)
def test_what_is_no_key_or_no_good_one(tmp_path: Path, content: str, reason: str) -> None:
    file = tmp_path / "key.pub"
    file.write_text(content)
    with pytest.raises(InputError) as refusal:
        PublicKey.load(str(file))
    assert refusal.value.message == reason


def test_damaged_pem_is_refused() -> None:
    lines = PEM.splitlines()
    damaged = "\n".join([lines[0], "AAAA" + lines[1][4:], *lines[2:]])
    with pytest.raises(InputError, match=r"^pem to public key: "):
        PublicKey(damaged)
