"""Public keys kept by a key management service, asked for through its command-line plugin.

Source: Sigstore's plugin protocol v1. The key reference ``NAME://KEY`` is
answered by the program ``sigstore-kms-NAME`` on the PATH: its arguments are
the version of the protocol and a JSON document, its answer is a JSON document
on standard output. What it says on standard error is the user's to read.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any, Final

from conforma.errors import InputError, TrustRootUnavailable

_SECONDS: Final = 30.0
_SHA256: Final = 5  # as Go numbers hash functions
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_SERVICES: Final = ("awskms", "gcpkms", "azurekms", "hashivault")


def plugin_for(name: str, environ: Mapping[str, str]) -> str | None:
    """The program that answers for keys of ``name``, if there is one."""
    if not _NAME.fullmatch(name):
        return None
    return shutil.which(f"sigstore-kms-{name}", path=environ.get("PATH", ""))


def is_service(name: str) -> bool:
    """Whether ``name`` is the scheme of a well-known key management service."""
    return name in _SERVICES


def public_key(plugin: str, reference: str, environ: Mapping[str, str] = os.environ) -> bytes:
    """The PEM that ``plugin`` answers for the key named by ``reference``.

    Raises ``InputError`` for what the plugin refuses, ``TrustRootUnavailable`` if it
    could not be run or did not answer.
    """
    options = {"keyVersion": "", "remoteVerification": False}
    arguments = {
        "initOptions": {
            "protocolVersion": "v1",
            "keyResourceID": reference.partition("://")[2],
            "hashFunc": _SHA256,
            "rpcOptions": options,
        },
        "methodName": "publicKey",
        "publicKey": {"publicKeyOptions": {"rpcOptions": options}},
    }
    try:
        done = subprocess.run(  # noqa: S603 - the user names the key, the PATH is theirs
            [plugin, "v1", json.dumps(arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=dict(environ),
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as cause:
        raise TrustRootUnavailable(
            f"{reference}: {plugin} did not answer within {_SECONDS:.0f} s"
        ) from cause
    except OSError as cause:
        raise TrustRootUnavailable(
            f"{reference}: error executing plugin program: {plugin}: {cause.strerror}"
        ) from cause
    # The exit status means nothing in this protocol.
    return _pem(reference, done.stdout, done.returncode)


def _pem(reference: str, answer: bytes, status: int) -> bytes:
    try:
        document: Any = json.loads(answer)
        if not isinstance(document, dict):
            raise TypeError("not an object")
        if refused := document.get("errorMessage"):
            raise InputError(f"{reference}: plugin returned error: {refused}")
        return base64.b64decode(document["publicKey"]["publicKeyPEM"], validate=True)
    except (KeyError, TypeError, ValueError, RecursionError) as cause:
        raise TrustRootUnavailable(
            f"{reference}: parsing plugin response: {cause} (exit status {status})",
            hint="run the plugin by hand; what it says on standard error is shown above",
        ) from cause
