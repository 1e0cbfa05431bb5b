"""Public keys: where they come from and what they verify.

Sources: signatures.md 4.2, validate-image.md 2.5. Always SHA-256, whatever
the curve, because that is what cosign signs with.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from conforma.errors import InputError, SignatureMismatch
from conforma.oci.digest import Digest
from conforma.trust import kms
from conforma.trust.strict_json import decode_base64

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    AnyKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

#: Downloads a URL; ``wiring`` passes the client of ``oci``.
FetchURL: TypeAlias = Callable[[str], bytes]
#: Reads ``(namespace, secret, field)``; ``None`` if the secret has no such field.
ReadSecret: TypeAlias = Callable[[str, str, str], bytes | None]

_MAX_KEY_TEXT: Final = 1 << 20
_SMALLEST_RSA: Final = 2048
_BLOCK: Final = re.compile(
    r"-----BEGIN (?P<kind>[A-Z0-9 ]+)-----\r?\n.*?-----END (?P=kind)-----", re.DOTALL
)
_SCHEME: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)


class PublicKey:
    """What a policy calls its public key: one key, or several any of which may have signed.

    ``pem`` is the key as re-encoded from what was read, one block a key.
    """

    __slots__ = ("_keys", "pem", "pems")

    def __init__(self, pem: str) -> None:
        """Raises ``InputError`` unless ``pem`` holds at least one acceptable key."""
        if not _BLOCK.search(pem):
            raise InputError(
                "pem to public key: PEM decoding failed",
                hint="give a PEM file that starts with -----BEGIN PUBLIC KEY-----",
            )
        self._keys = tuple(_load_block(block["kind"], block[0]) for block in _BLOCK.finditer(pem))
        self.pems = tuple(spki_pem(key) for key in self._keys)
        self.pem = "".join(self.pems)

    @classmethod
    def load(
        cls,
        text: str,
        *,
        fetch: FetchURL | None = None,
        secrets: ReadSecret | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> PublicKey:
        """The key that ``text`` is or refers to (all forms of signatures.md 4.2).

        Raises ``InputError`` for a reference that leads nowhere or to something
        that is no key, ``TrustRootUnavailable`` for a plugin that does not
        answer; what ``fetch`` and ``secrets`` raise passes through.
        """
        if _BLOCK.search(text):
            return cls(text)
        content = _text_of(_read(text, fetch, secrets, environ), text)
        try:
            return cls(content)
        except InputError as error:
            read = f"what was read from {_without_secrets(text)} is no usable public key"
            error.hint = f"{read}; {error.hint}" if error.hint else read
            raise

    @property
    def keys(self) -> tuple[AnyKey, ...]:
        """The keys themselves, as ``cryptography`` has them."""
        return self._keys

    def verify(self, signature: bytes, data: bytes) -> str:
        """The PEM of the key that made ``signature`` over ``data``.

        Raises ``SignatureMismatch``, worded as cosign's libraries do, if none did.
        """
        return self._first(lambda key: verify_with(key, signature, data))

    def verify_digest(self, signature: bytes, digest: Digest) -> str:
        """The PEM of the key that signed the content that hashes to ``digest``.

        Raises ``SignatureMismatch``; always for Ed25519, which signs no hashes.
        """
        return self._first(lambda key: _verify_digest(key, signature, digest))

    def _first(self, check: Callable[[object], None]) -> str:
        refusal: SignatureMismatch | None = None
        for pem, key in zip(self.pems, self._keys, strict=True):
            try:
                check(key)
            except SignatureMismatch as cause:
                refusal = cause
            else:
                return pem
        assert refusal is not None, "there is at least one key"
        raise refusal

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and self.pem == other.pem

    def __hash__(self) -> int:
        return hash(self.pem)


def verify_with(key: object, signature: bytes, data: bytes, digest: str = "sha256") -> None:
    """Check ``signature`` over ``data``, hashed with ``digest``. Raises ``SignatureMismatch``.

    Ed25519 hashes by itself, whatever ``digest`` says.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

    kinds: dict[str, Callable[[], hashes.HashAlgorithm]] = {
        "sha256": hashes.SHA256,
        "sha384": hashes.SHA384,
        "sha512": hashes.SHA512,
    }
    hashed = kinds[digest]()
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            reason = "invalid signature when validating ASN.1 encoded signature"
            key.verify(signature, data, ec.ECDSA(hashed))
        elif isinstance(key, rsa.RSAPublicKey):
            reason = "crypto/rsa: verification error"
            key.verify(signature, data, padding.PKCS1v15(), hashed)
        elif isinstance(key, ed25519.Ed25519PublicKey):
            reason = "failed to verify signature"
            key.verify(signature, data)
        else:
            raise SignatureMismatch("unsupported public key type")
    except InvalidSignature as cause:
        raise SignatureMismatch(reason) from cause


def _verify_digest(key: object, signature: bytes, digest: Digest) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

    if digest.algorithm != "sha256":
        raise SignatureMismatch(f"cannot check a signature over a {digest.algorithm} digest")
    hashed = utils.Prehashed(hashes.SHA256())
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, bytes.fromhex(digest.hex), ec.ECDSA(hashed))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, bytes.fromhex(digest.hex), padding.PKCS1v15(), hashed)
        else:
            raise SignatureMismatch("unsupported public key type for a message signature")
    except InvalidSignature as cause:
        raise SignatureMismatch("could not verify message: invalid signature") from cause


def spki_pem(key: object) -> str:
    """A key as PEM SubjectPublicKeyInfo, ending with a newline."""
    from cryptography.hazmat.primitives import serialization

    encoded: bytes = key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded.decode("ascii")


def fingerprint(pem: str) -> str:
    """The digest by which a key is known: of its DER SubjectPublicKeyInfo."""
    return str(Digest.of(decode_base64("".join(pem.strip().splitlines()[1:-1]))))


def _load_block(kind: str, block: str) -> AnyKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        if kind == "CERTIFICATE":
            from cryptography.x509 import load_pem_x509_certificate

            key: object = load_pem_x509_certificate(block.encode()).public_key()
        elif kind in ("PUBLIC KEY", "RSA PUBLIC KEY"):
            key = load_pem_public_key(block.encode())
        else:
            raise InputError(
                f"unknown Public key PEM file type: {kind}. Are you passing the correct public key?"
            )
    except (ValueError, UnsupportedAlgorithm) as cause:
        raise InputError(f"pem to public key: {cause}") from cause
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _SMALLEST_RSA:
        raise InputError(
            f"RSA key of {key.key_size} bits is too short to trust",
            hint=f"use a key of at least {_SMALLEST_RSA} bits",
        )
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name not in (
        "secp256r1",
        "secp384r1",
        "secp521r1",
    ):
        raise InputError(f"unsupported public key type: curve {key.curve.name}")
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        raise InputError("unsupported public key type")
    return key


def _read(
    text: str, fetch: FetchURL | None, secrets: ReadSecret | None, environ: Mapping[str, str]
) -> bytes:
    if text.startswith("pkcs11:"):
        raise InputError(
            "loading URL: PKCS #11 tokens are not supported",
            hint="export the public key from the token and give its PEM file",
        )
    if not (url := _SCHEME.fullmatch(text)):
        return _read_file(text)
    scheme = url["scheme"].lower()
    if scheme == "k8s":
        return _read_secret(url["rest"], secrets)
    if scheme == "env":
        if (value := environ.get(url["rest"])) is None:
            raise InputError(f"loading URL: env var ${url['rest']} not found")
        return value.encode("utf-8", "surrogateescape")
    if scheme in ("http", "https"):
        if fetch is None:
            raise InputError(f"loading URL: {_without_secrets(text)}: nothing to download it with")
        return fetch(text)
    if plugin := kms.plugin_for(scheme, environ):
        return kms.public_key(plugin, text, environ)
    hint = "known are k8s://, env:// and https://"
    if scheme == "gitlab":
        hint = "gitlab keys are not supported; give the exported public key as a PEM file"
    elif kms.is_service(scheme):
        hint = f"put the plugin sigstore-kms-{scheme} on the PATH, or give the key as a PEM file"
    raise InputError(f"loading URL: unrecognized scheme: {scheme}://", hint=hint)


def _read_file(name: str) -> bytes:
    if not name:
        raise InputError("open : no such file or directory")
    try:
        with Path(name).open("rb") as file:
            return file.read(_MAX_KEY_TEXT + 1)
    except (OSError, ValueError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
        raise InputError(
            f"open {name}: {reason.lower()}",
            hint="--public-key takes a PEM file, the PEM text itself, or a k8s://, env:// or https:// reference",
        ) from cause


def _read_secret(rest: str, secrets: ReadSecret | None) -> bytes:
    parts = rest.split("/")
    if len(parts) != 2 or not all(parts):
        raise InputError(
            "kubernetes specification should be in the format k8s://<namespace>/<secret>"
        )
    if secrets is None:
        raise InputError(
            "checking if secret exists: no Kubernetes client",
            hint="install conforma with the extra k8s",
        )
    if (value := secrets(parts[0], parts[1], "cosign.pub")) is None:
        raise InputError(f"secret {rest} has no field cosign.pub")
    return value


def _text_of(content: bytes, source: str) -> str:
    if len(content) > _MAX_KEY_TEXT:
        raise InputError(f"{_without_secrets(source)}: too large for a public key")
    return content.decode("utf-8", "replace")


def _without_secrets(url: str) -> str:
    return re.sub(r"(://)[^/@]*@|\?.*", r"\1", url)
