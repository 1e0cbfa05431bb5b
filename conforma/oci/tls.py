"""Which certificate authorities we believe: the machine's, or the ones the user names.

``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` replace the system's store, as they do
for OpenSSL and Go.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from conforma.errors import InputError

if TYPE_CHECKING:
    import ssl


def client_context(environment: Mapping[str, str]) -> ssl.SSLContext:
    """A context that verifies servers. Raises ``InputError`` for unusable CA settings."""
    import ssl

    file, directory = environment.get("SSL_CERT_FILE"), environment.get("SSL_CERT_DIR")
    if file and not Path(file).is_file():
        raise InputError(f"SSL_CERT_FILE names {file}, which is not a file")
    directories = [d for d in (directory or "").split(":") if d]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if file:
            context.load_verify_locations(cafile=file)
        for place in directories:
            context.load_verify_locations(capath=place)
    except OSError as cause:
        raise InputError(f"SSL_CERT_FILE={file}: {cause}") from cause
    if not file and not directories:
        _load_system_store(context)
    return context


def _load_system_store(context: ssl.SSLContext) -> None:
    import ssl

    context.set_default_verify_paths()
    paths = ssl.get_default_verify_paths()
    if context.cert_store_stats()["x509_ca"] == 0 and not (
        paths.capath and any(Path(paths.capath).iterdir())
    ):
        # An interpreter built elsewhere may look for the store in the wrong
        # place; httpx brings Mozilla's list.
        import certifi

        context.load_verify_locations(cafile=certifi.where())
