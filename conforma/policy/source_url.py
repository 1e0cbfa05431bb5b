"""What kind of source a URL names, and how it is written once pinned (sections 3.1 and 3.3).

Nothing here touches the network; the file system only to see whether a path exists.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final, Literal
from urllib.parse import parse_qsl, urlsplit

from conforma.errors import InputError, PolicyError

Kind = Literal["file", "git", "http", "oci"]

_GIT_HOSTS: Final = ("github.com", "gitlab.com", "bitbucket.org")
_OCI_HOSTS: Final = re.compile(
    r"(?:.*\.)?(?:azurecr\.io|gcr\.io|pkg\.dev)|registry\.gitlab\.com|quay\.io"
    r"|[0-9]{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com|localhost|127\.0\.0\.1|::1"
)
_INSECURE: Final = re.compile(r"[a-z0-9]*::http:.*|http:(?!:).*", re.DOTALL)
_PASSWORD: Final = re.compile(
    r"(?<=//)[^/@?#]*@|(?<=::)[^/@?#:]+:[^/@?#]*@|^[^/@?#:]+:(?!:)[^/@?#]*@"
)


def looks_like_file(url: str) -> bool:
    """Whether ``url`` is written as a path or names something that exists."""
    if url.startswith(("file://", "file::", "/", "./", "../")):
        return True
    try:
        return bool(url) and Path(url).exists()
    except (OSError, ValueError):  # longer than any path, or with a NUL
        return False


def looks_like_git(url: str) -> bool:
    """Whether ``url`` is written as a git repository."""
    if url.startswith(("git@", "git://", "git::")):
        return True
    if "::" in url:
        return False
    return any(host in url for host in _GIT_HOSTS) or url.endswith(".git")


def looks_like_http(url: str) -> bool:
    """Whether ``url`` is an http(s) URL that does not lead to one of the large git hosts.

    ``http::host/path``, the pinned form, counts as one; it is fetched with TLS.
    """
    if url.startswith("http::"):
        return True
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not host:
        return False
    return not any(host == known or host.endswith(f".{known}") for known in _GIT_HOSTS)


def looks_like_oci(url: str) -> bool:
    """Whether ``url`` is written as an OCI artifact or lies on a well-known registry."""
    if url.startswith(("oci://", "oci::")):
        return True
    rest = url.partition("::")[2] if "::" in url and not url.startswith("[") else url
    try:
        host = urlsplit(rest if "://" in rest else f"oci://{rest}").hostname or ""
    except ValueError:
        return False
    return _OCI_HOSTS.fullmatch(host.lower()) is not None


def kind_of(url: str) -> Kind:
    """How to fetch ``url``. Raises ``InputError`` if no way is known."""
    if url.startswith(("oci://", "oci::")):
        return "oci"
    if url.startswith(("http://", "https://", "http::")) and looks_like_http(url):
        return "http"
    if looks_like_file(url):
        return "file"
    if looks_like_git(url):
        return "git"
    if looks_like_oci(url):
        return "oci"
    raise InputError(
        f"no gatherer found for URI: {without_secrets(url)}",
        hint="write git::…, oci::…, https://… or an existing path",
    )


def refuse_insecure(url: str) -> None:
    """Raise ``PolicyError`` for a URL that would be fetched without transport security."""
    if _INSECURE.fullmatch(url.lower()):
        raise PolicyError(
            f"attempting to download from insecure source: {without_secrets(url)}",
            hint="use https://",
        )


def without_secrets(url: str) -> str:
    """``url`` without user name and password, fit for messages and reports."""
    return url if url.startswith("git@") else _PASSWORD.sub("", url)


def directory_name(url: str) -> str:
    """The name of the directory a source is stored in (section 3.4)."""
    return hashlib.sha224(url.encode("utf-8", "surrogateescape")).hexdigest()[:9]


def pinned(kind: Kind, url: str, revision: str) -> str:
    """``url`` as the report prints it, naming the content that was fetched.

    ``revision`` is the commit or the manifest digest; files and http have none.
    """
    url = without_secrets(url)
    if kind == "git":
        return _pinned_git(url, revision)
    if kind == "oci":
        return f"oci::{_strip(url, 'oci::', 'oci://', 'https://').partition('@')[0]}@{revision}"
    if kind == "http":
        return f"http::{_strip(url, 'http://', 'https://', 'http::')}"
    return f"file::{_strip(url, 'file::', 'file://')}"


def _pinned_git(url: str, commit: str) -> str:
    if url.startswith("git@"):
        url = url.removeprefix("git@").replace(":", "/", 1)
    else:
        url = _strip(url, "git::", "git://", "https://")
        url = without_secrets(url)
    path, _, query = url.partition("?")
    values = parse_qsl(query, keep_blank_values=True)
    # A subdirectory may stand inside a parameter; it is part of what was
    # fetched, so it moves to the path, where it survives the new ref.
    subdirectory = next((v.partition("//")[2] for _, v in values if "//" in v), "")
    if subdirectory and "//" not in path.partition("://")[2 if "://" in path else 0]:
        path = f"{path}//{subdirectory}"
    # What precedes ref stays, as in the Go tool; what follows it goes.
    names = [name for name, _ in values]
    before = values[: names.index("ref")] if "ref" in names else values
    kept = "".join(f"{name}={value.partition('//')[0]}&" for name, value in before)
    return f"git::{path}?{kept}ref={commit}"


def _strip(text: str, *prefixes: str) -> str:
    for prefix in prefixes:
        text = text.removeprefix(prefix)
    return text
