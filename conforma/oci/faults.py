"""What went wrong, in words: statuses and broken connections as errors of ours.

Every message names what was asked of whom, and no message holds a query
string or a credential. Refusals are worded as go-containerregistry words them,
because the report of the reference shows that text (validate-image.md 5.2).
"""

from __future__ import annotations

import json
import socket
from typing import Final

from conforma.errors import (
    AccessDenied,
    BadResponse,
    NotFound,
    RateLimited,
    RegistryError,
    RegistryUnreachable,
)
from conforma.oci.broken import (
    ConnectError,
    ConnectTimeout,
    ProxyError,
    Timeout,
    TransportError,
    UnsupportedProtocol,
)
from conforma.oci.reference import Reference
from conforma.oci.target import Target

LONGEST_ERROR_BODY: Final = 16 * 1024
_SHOWN: Final = 500
_CA_HINT: Final = (
    "if the registry's certificate comes from a private authority, name it in SSL_CERT_FILE"
)


def is_throttled(status: int, body: bytes) -> bool:
    """Whether a refusal means "too many requests", whatever its status."""
    if status == 429:
        return True
    return (
        status in (200, 400, 403)
        and len(body) <= LONGEST_ERROR_BODY
        and b"TOOMANYREQUESTS" in body
        and any(code == "TOOMANYREQUESTS" for code, _ in diagnostics(body))
    )


def refused(
    method: str, target: Target, status: int, body: bytes, *, hint: str | None = None
) -> RegistryError:
    """The error for a status nobody wanted."""
    message = f"{method} {target}: {_reason(method, status, body)}"
    if is_throttled(status, body):
        return RateLimited(message, hint="the registry limits requests; log in, or try later")
    if status == 404:
        return NotFound(message, hint=hint or "check registry, repository and tag for misspellings")
    if status in (401, 403):
        return AccessDenied(message, hint=hint)
    if status == 407:
        return RegistryUnreachable(message, hint="the proxy refused: check HTTPS_PROXY")
    if status == 408 or status >= 500:
        return RegistryUnreachable(message, hint="the registry is in trouble; try again later")
    return BadResponse(message, hint=hint)


def _reason(method: str, status: int, body: bytes) -> str:
    found = [f"{code}: {message}" if message else code for code, message in diagnostics(body)]
    if len(found) > 1:
        return f"multiple errors returned: {'; '.join(found)}"
    if found:
        return found[0]
    # Deferred: a run that is refused nothing does not need the table.
    from http import HTTPStatus

    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    reason = f"unexpected status code {status} {phrase}".rstrip()
    if method == "HEAD":
        return f"{reason} (HEAD responses have no body, use GET for details)"
    text = _printable(body.decode("utf-8", "replace").strip())
    return f"{reason}: {text}" if text else reason


def diagnostics(body: bytes) -> list[tuple[str, str]]:
    """Code and message of each error in a body (distribution specification, "Error Codes")."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return []
    errors = document.get("errors") if isinstance(document, dict) else None
    return [
        (_printable(str(e["code"])), _printable(str(e.get("message") or "")))
        for e in (errors if isinstance(errors, list) else [])
        if isinstance(e, dict) and e.get("code")
    ]


def _printable(text: str) -> str:
    cleaned = "".join(c if c.isprintable() else " " for c in text)
    return cleaned if len(cleaned) <= _SHOWN else f"{cleaned[:_SHOWN]}…"


def broken(
    reference: Reference, method: str, target: Target, cause: TransportError
) -> RegistryUnreachable:
    """The error for a request that got no complete answer."""
    import ssl

    where = f"{reference}: {method} {target}"
    host = target.origin.host
    root = _root(cause)
    if isinstance(root, ssl.SSLCertVerificationError):
        detail = root.verify_message or str(root)
        return RegistryUnreachable(
            f"{where}: TLS: certificate of {host} not accepted: {detail}", hint=_CA_HINT
        )
    if isinstance(root, ssl.SSLError):
        return RegistryUnreachable(
            f"{where}: TLS: {root.reason or root}",
            hint="does the registry speak TLS on this port? If not, name it with --insecure-registry",
        )
    if isinstance(root, socket.gaierror):
        return RegistryUnreachable(
            f"{where}: cannot find host {host}: {root.strerror}",
            hint="check the registry's name and the network",
        )
    if isinstance(cause, ProxyError):
        return RegistryUnreachable(f"{where}: the proxy refused: {cause}", hint="check HTTPS_PROXY")
    if isinstance(cause, ConnectTimeout):
        return RegistryUnreachable(f"{where}: no connection in time", hint="is it reachable?")
    if isinstance(cause, Timeout):
        return RegistryUnreachable(f"{where}: timed out: {cause}", hint="the registry hangs")
    if isinstance(cause, ConnectError):
        return RegistryUnreachable(
            f"{where}: cannot connect: {cause}", hint="is the registry running and reachable?"
        )
    return RegistryUnreachable(
        f"{where}: connection broke: {cause or type(cause).__name__}", hint="try again"
    )


def may_pass(cause: TransportError) -> bool:
    """Whether the same request may succeed a little later."""
    import ssl

    root = _root(cause)
    if isinstance(root, socket.gaierror):
        return root.errno == socket.EAI_AGAIN
    if isinstance(root, ssl.SSLError):
        return isinstance(root, ssl.SSLEOFError | ssl.SSLZeroReturnError)
    return not isinstance(cause, ProxyError | UnsupportedProtocol)


def _root(cause: BaseException) -> BaseException:
    """The first error of ssl or socket behind a broken connection."""
    current: BaseException | None = cause
    for _ in range(10):
        if current is None:
            break
        if isinstance(current, OSError):
            return current
        current = current.__cause__ or current.__context__
    return cause


def offline(reference: Reference, method: str, target: Target) -> RegistryUnreachable:
    """The error for a request that a run without network must not make."""
    return RegistryUnreachable(
        f"{reference}: needed, but this run is offline: {method} {target}",
        hint="mirror it first with conforma mirror (--related takes along what an image was built "
        "from), and name the mirror with --mirror-from",
    )
