"""Git sources as people write them, taken apart; nothing in one may become an option of git."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import parse_qsl, unquote

from msgspec import Struct

from conforma.errors import InputError
from conforma.policy.source_url import without_secrets

# The characters git-check-ref-format(1) allows, and no leading dash or dot.
_REF: Final = re.compile(r"(?![-./])(?!.*(?:\.\.|@\{|//))[^\x00-\x20\x7f~^:?*\[\\]+")


class Repository(Struct, frozen=True):
    """A git source taken apart (section 3.2). ``ref`` and ``subdirectory`` may be empty."""

    url: str
    ref: str = ""
    subdirectory: str = ""

    @classmethod
    def parse(cls, source: str) -> Repository:
        """Take a source URL apart. Raises ``InputError`` for one that cannot be used."""
        text = source
        if text.startswith("git@"):
            text = "https://" + text.removeprefix("git@").replace(":", "/", 1)
        for prefix in ("git://", "git::", "https://", "file://", "file::"):
            text = text.removeprefix(prefix)
        path, _, query = text.partition("?")
        scheme = ""
        if path.startswith("ssh://"):
            scheme, path = "ssh://", path.removeprefix("ssh://")
        local = not scheme and path.startswith(("/", "./", "../", "~/"))
        path, _, subdirectory = path.partition("//")
        values = dict(parse_qsl(query, keep_blank_values=True))
        ref, _, inner = values.get("ref", "").partition("//")
        depth, _, innermost = values.get("depth", "").partition("//")
        subdirectory = unquote(subdirectory or inner or innermost)
        if depth and not depth.isdecimal():
            raise InputError(f"{without_secrets(source)}: failed to parse depth: {depth!r}")
        if ref and not _REF.fullmatch(ref):
            raise InputError(
                f"error resolving ref: {ref!r} of {without_secrets(source)} is no branch, tag or commit"
            )
        if ".." in PurePosixPath(subdirectory).parts or "\0" in subdirectory:
            raise InputError(f"path {subdirectory} does not exist in the repository")
        if not path or "\0" in path or path.startswith("-"):
            raise InputError(f"{without_secrets(source)}: no repository is named")
        if local:
            try:
                url = f"file://{Path(path).expanduser().absolute()}"
            except RuntimeError as cause:
                raise InputError(f"{without_secrets(source)}: {cause}") from cause
        else:
            suffix = "" if path.endswith(".git") else ".git"
            url = f"{scheme or 'https://'}{path.rstrip('/')}{suffix}"
        return cls(url, ref, subdirectory)
