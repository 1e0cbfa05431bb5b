"""Private keys: as cosign encrypts them, and as PKCS #8."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest

from conforma.errors import InputError
from conforma.serve.signing_key import Kind, SigningKey
from conforma.trust.keys import PublicKey
from conforma.trust.private_key import PrivateKey
from conforma.trust.secretbox import open_box

# The test vector of NaCl's crypto_secretbox (nacl-20110221, tests/secretbox.c).
KEY = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
NONCE = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
PLAIN = bytes.fromhex(
    "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a"
    "1ac728d45e6c61296cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057"
    "e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040"
    "e082f937763848645e0705"
)
BOX = bytes.fromhex(
    "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4"
    "476fb8c531a1186ac0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738"
    "b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de"
    "56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5"
)


def test_a_secret_box_opens_with_its_key_alone() -> None:
    assert open_box(KEY, NONCE, BOX) == PLAIN
    for wrong in (
        (KEY[::-1], NONCE, BOX),
        (KEY, NONCE[::-1], BOX),
        (KEY, NONCE, BOX[:-1] + b"\0"),
        (KEY, NONCE, b"\0" + BOX[1:]),
        (KEY, NONCE, BOX[:15]),
        (KEY[:31], NONCE, BOX),
    ):
        with pytest.raises(ValueError):
            open_box(*wrong)


def sealed(der: bytes, password: bytes, kind: str = "ENCRYPTED SIGSTORE PRIVATE KEY") -> bytes:
    """A key file of cosign's format; its cipher is its own inverse, so opening also seals."""
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    from conforma.trust.secretbox import _hsalsa20, _stream

    salt, nonce = b"s" * 32, b"n" * 24
    key = hashlib.scrypt(password, salt=salt, n=1024, r=8, p=1, dklen=32)
    stream = _stream(_hsalsa20(key, nonce[:16]), nonce[16:], 32 + len(der))
    body = bytes(a ^ b for a, b in zip(der, stream[32:], strict=True))
    document = {
        "kdf": {
            "name": "scrypt",
            "params": {"N": 1024, "r": 8, "p": 1},
            "salt": base64.b64encode(salt).decode(),
        },
        "cipher": {"name": "nacl/secretbox", "nonce": base64.b64encode(nonce).decode()},
        "ciphertext": base64.b64encode(Poly1305.generate_tag(stream[:32], body) + body).decode(),
    }
    text = base64.b64encode(json.dumps(document).encode()).decode()
    return f"-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n".encode()


def der_of(key: SigningKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    private = load_pem_private_key(key.private_pem.encode(), None)
    return private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("kind", ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"])
@pytest.mark.parametrize("password", [b"", b"secret"])
def test_a_key_as_cosign_encrypts_it(kind: str, password: bytes) -> None:
    key = SigningKey.generate()
    loaded = PrivateKey.parse(sealed(der_of(key), password, kind), "cosign.key", password)
    assert loaded.public_pem == key.public_pem
    PublicKey(key.public_pem).verify(loaded.sign(b"data"), b"data")
    with pytest.raises(
        InputError, match=r'load private key "cosign\.key": the secret box'
    ) as error:
        PrivateKey.parse(sealed(der_of(key), password, kind), "cosign.key", b"wrong")
    assert "COSIGN_PASSWORD" in str(error.value.hint)


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa", "ed25519"])
def test_a_plain_key_of_any_kind_signs_what_the_public_key_verifies(
    kind: Kind, tmp_path: Path
) -> None:
    key = SigningKey.generate(kind)
    (tmp_path / "k").write_text(key.private_pem)
    loaded = PrivateKey.load(str(tmp_path / "k"))
    PublicKey(loaded.public_pem).verify(loaded.sign(b"data"), b"data")


@pytest.mark.parametrize("content", [b"", b"text", b"-----BEGIN PRIVATE KEY-----\nAAAA"])
def test_what_is_no_key_is_said_to_be_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(content)
    with pytest.raises(InputError, match="load private key"):
        PrivateKey.load(str(tmp_path / "k"))
    with pytest.raises(InputError, match="resolve private key"):
        PrivateKey.load(str(tmp_path / "none"))
