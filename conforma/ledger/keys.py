"""The keys of a ledger: root and targets offline, one online key for all that changes.

An online key is anything that can sign: securesystemslib's ``Signer`` is the
interface, so key management services and tokens it knows work by their URI.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey
from tuf.api.metadata import Root

from conforma.errors import InputError, LedgerError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.serialization import KeySerializationEncryption

KEY: Final = "CONFORMA_LEDGER_KEY"
PASSPHRASE: Final = "CONFORMA_LEDGER_PASSPHRASE"  # noqa: S105 - the name of a variable
OFFLINE: Final = ("root", "targets")
ONLINE: Final = "online"
_LONGEST_NAME: Final = 500
_SERVICES: Final = ("awskms", "azurekms", "gcpkms", "hv", "hsm", "tkey")


def generate(directory: Path, name: str, environ: Mapping[str, str] = os.environ) -> CryptoSigner:
    """A new key in ``directory/name.pem``: PKCS #8, encrypted if a passphrase is set.

    Raises ``InputError`` rather than overwrite a key.
    """
    signer = CryptoSigner.generate_ed25519()
    pem = _pem(signer, environ.get(PASSPHRASE))
    path = directory / f"{name}.pem"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
            file.write(pem)
    except FileExistsError as cause:
        raise InputError(
            f"{path}: there is a key already", hint="name a new directory with --keys"
        ) from cause
    except OSError as cause:
        raise InputError(f"{path}: {cause.strerror}") from cause
    return signer


def check_outside(keys: Path, ledger: Path) -> None:
    """Raise ``InputError`` if a directory for keys is one that the readers of a ledger see."""
    if keys.resolve().is_relative_to(ledger.resolve()):
        raise InputError(
            f"{keys}: is within the ledger, which others read",
            hint="keep the keys elsewhere, those of root and targets offline",
        )


def load(spec: str, environ: Mapping[str, str] = os.environ) -> Signer:
    """The signer that ``spec`` names: a file, ``file:PATH`` or ``env:NAME``.

    The key is PEM, best PKCS #8; its passphrase is in ``CONFORMA_LEDGER_PASSPHRASE``.
    Raises ``InputError``.
    """
    scheme, _, rest = spec.partition(":")
    if scheme == "env":
        name = rest.removeprefix("//")
        if name not in environ:
            raise InputError(f"environment variable {name} is not set")
        return _from_pem(environ[name].encode(), f"environment variable {name}", environ)
    path = Path(rest.removeprefix("//") if scheme == "file" else spec).expanduser()
    try:
        return _from_pem(path.read_bytes(), str(path), environ)
    except OSError as cause:
        raise InputError(
            f"{_shown(spec)}: {cause.strerror}",
            hint="name the private key in a PEM file, as conforma ledger init made it",
        ) from None if _holds_a_key(spec) else cause


def public(path: str) -> Key:
    """The public key in a PEM file, which may also hold the private one. Raises ``InputError``."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        pem = Path(path).read_bytes()
        if b"PRIVATE KEY" in pem:
            return load(path).public_key
        return SSlibKey.from_crypto(load_pem_public_key(pem))
    except OSError as cause:
        raise InputError(f"{path}: {cause.strerror}") from cause
    except (ValueError, UnsupportedAlgorithm) as cause:
        raise InputError(f"{path}: no usable public key: {cause}") from cause


def online(spec: str, root: Root, environ: Mapping[str, str] = os.environ) -> Signer:
    """The signer for bins, snapshot and timestamp, after checking that ``root`` trusts it.

    ``spec`` may also be the URI of a key management service, as
    ``awskms:alias/ledger``. Raises ``InputError`` or ``LedgerError``.
    """
    if not spec:
        raise InputError("no online key was given", hint=f"give one with --key or set {KEY}")
    trusted = [root.keys[keyid] for keyid in root.roles["timestamp"].keyids]
    if spec.partition(":")[0] in _SERVICES:
        return _from_service(spec, trusted[0])
    signer = load(spec, environ)
    if signer.public_key.keyid not in {key.keyid for key in trusted}:
        raise LedgerError(
            f"{_shown(spec)}: this is not the online key of the ledger, which is "
            f"{', '.join(key.keyid[:16] for key in trusted)}",
            hint="nothing was changed; give the key that the root metadata names",
        )
    return signer


def _from_service(spec: str, public_key: object) -> Signer:
    try:
        return Signer.from_priv_key_uri(spec, public_key)  # type: ignore[arg-type]
    except Exception as cause:  # every service has its own family of errors
        raise LedgerError(f"{spec}: {type(cause).__name__}: {cause}") from cause


def _from_pem(pem: bytes, where: str, environ: Mapping[str, str]) -> CryptoSigner:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    passphrase = environ.get(PASSPHRASE)
    encrypted = b"ENCRYPTED" in pem
    if encrypted and not passphrase:
        raise InputError(f"{where}: the key is encrypted", hint=f"set {PASSPHRASE}")
    try:
        private = load_pem_private_key(
            pem, passphrase.encode() if encrypted and passphrase else None
        )
        return CryptoSigner(private, SSlibKey.from_crypto(private.public_key()))
    except (ValueError, TypeError, UnsupportedAlgorithm) as cause:
        reason = "the passphrase is wrong or the key is damaged" if encrypted else str(cause)
        raise InputError(f"{where}: no usable private key: {reason}") from cause


def _pem(signer: CryptoSigner, passphrase: str | None) -> bytes:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    protection: KeySerializationEncryption = (
        BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    )
    private = load_pem_private_key(signer.private_bytes, None)
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)


def _holds_a_key(spec: str) -> bool:
    """Whether somebody gave the key itself where its name belongs."""
    return "PRIVATE KEY" in spec or "\n" in spec or len(spec) > _LONGEST_NAME


def _shown(spec: str) -> str:
    """The name of a key for messages, which must not hold the key."""
    return "the key given" if _holds_a_key(spec) else spec
