"""From what people write after ``--policy`` to a configuration (sections 2.1 and 2.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from conforma.errors import BadPolicyConfig, InputError
from conforma.gotext import quoted
from conforma.policy.config import PolicyConfig
from conforma.policy.kube import Kubernetes
from conforma.policy.source import Sources
from conforma.policy.source_url import looks_like_file, looks_like_git, looks_like_http

_SUFFIXES: Final = (".json", ".yaml", ".yml")
_NONCONFORMING: Final = "policy configuration does not conform to the EnterpriseContractPolicy spec"
_IN_REPOSITORY: Final = tuple(
    f"{directory}policy{suffix}" for directory in (".ec/", "") for suffix in _SUFFIXES
)


def load_policy(text: str, sources: Sources, kubernetes: Kubernetes) -> PolicyConfig:
    """The configuration that ``text`` is or names.

    An inline document, a file, a git repository or https URL, or the name of a
    resource in a cluster; nothing at all is the empty configuration. Raises
    ``BadPolicyConfig``, ``InputError`` and what fetching raises.
    """
    content = read_content(text, sources)
    if not content or ":" in content:
        return PolicyConfig.parse(content)
    try:
        return PolicyConfig.from_spec(kubernetes.policy(content), from_cluster=True)
    except InputError as cause:
        if meant := _probably_meant(content):
            cause.hint = f"{meant}, so it was taken for the name of a policy in a cluster"
        raise


def check_policy(text: str, sources: Sources) -> None:
    """Raise ``BadPolicyConfig`` unless ``text`` is or names a configuration that conforms.

    Unlike :func:`load_policy` it asks no cluster, which checks what is put into
    it. Also raises what fetching raises.
    """
    content = read_content(text, sources)
    if not content:
        raise BadPolicyConfig("there is no policy configuration to check")
    if ":" not in content and content.strip() != "{}":
        raise BadPolicyConfig(
            f"{_NONCONFORMING}: {quoted(content)} is no document",
            hint=_probably_meant(content) or "a policy in a cluster is not looked up by name",
        )
    try:
        PolicyConfig.parse(content)
    except BadPolicyConfig as cause:
        raise BadPolicyConfig(f"{_NONCONFORMING}: {cause.message}", hint=cause.hint) from cause


def _probably_meant(name: str) -> str | None:
    """Why ``name`` was not read from disk, if that was probably wanted."""
    if Path(name).is_dir():
        return f"{name} is a directory and not a configuration"
    if name.endswith(_SUFFIXES):
        return f"there is no file {name}"
    if Path(name).is_file():
        return f"the file {name} does not end in {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}"
    return None


def read_content(text: str, sources: Sources) -> str:
    """What a file or URL in ``text`` holds, or ``text`` itself if it names neither.

    Raises ``BadPolicyConfig`` for an empty or unreadable file and for a
    download without a configuration in it, and what fetching raises.
    """
    if text.startswith("{"):
        return text
    # The Go tool takes any text that mentions a git host for a URL; no URL has
    # white space in it, and nearly every inline document has.
    is_url = not any(char.isspace() for char in text)
    local = looks_like_file(text)
    if is_url and ((looks_like_git(text) and not local) or looks_like_http(text)):
        fetched = sources.fetch(text)
        for name in _IN_REPOSITORY:
            if (fetched.path / name).is_file():
                shown = f"{name} of {fetched.pinned}"
                return _not_empty(_read(fetched.path / name, shown), shown)
        raise BadPolicyConfig(
            f"no suitable config file found at {fetched.pinned}",
            hint=f"expected one of {', '.join(_IN_REPOSITORY)}",
        )
    if local and text.endswith(_SUFFIXES):
        path = text.removeprefix("file://").removeprefix("file::")
        return _not_empty(_read(Path(path), path), text)
    return text


def _not_empty(content: str, shown: str) -> str:
    """What a file holds: nothing would be the empty configuration, which nobody keeps in a file."""
    if not content:
        raise BadPolicyConfig(f"file {shown} is empty")
    return content


def _read(path: Path, shown: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as cause:
        reason = (cause.strerror or str(cause)).lower()
        raise BadPolicyConfig(f"open {shown}: {reason}") from cause
    except UnicodeDecodeError as cause:
        raise BadPolicyConfig(f"{shown} is not UTF-8 text: {cause.reason}") from cause
