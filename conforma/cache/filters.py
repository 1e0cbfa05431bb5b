"""Which entries of an image somebody wants: values, so that answers can be remembered."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from typing import Any, Final, get_args

from msgspec import Struct, field

from conforma.cache.paths import clean, key_of
from conforma.cache.toc import Toc
from conforma.errors import EvaluationFailed
from conforma.oci.tar_entry import Kind

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
_MEMBERS: Final = frozenset({"paths", "kinds", "mode"})


class InDirectories(Struct, frozen=True, dict=True):
    """Entries that lie directly in one of ``directories`` and end in one of ``extensions``.

    Both are compared without regard to case; directories are cleaned, so
    ``manifests/`` and ``/manifests`` are the same (rego-builtins, image_files).
    """

    directories: tuple[str, ...]
    extensions: tuple[str, ...] = (".yaml", ".yml", ".json")

    def candidates(self, toc: Toc) -> Iterable[int]:
        """Indexes of the entries of one layer that fit."""
        for index, key in enumerate(toc.keys):
            lowered = key.lower()
            if lowered.endswith(self._endings) and self._directory(lowered) in self._wanted:
                yield index

    @staticmethod
    def _directory(key: bytes) -> str:
        return key.rpartition(b"\0")[0].decode("utf-8", "surrogateescape").lower()

    @cached_property
    def _endings(self) -> tuple[bytes, ...]:
        return tuple(extension.lower().encode() for extension in self.extensions)

    @cached_property
    def _wanted(self) -> frozenset[str]:
        cleaned = (clean(directory) for directory in self.directories)
        return frozenset(d.replace("/", "\0").lower() for d in cleaned if d is not None)


class TreeFilter(Struct, frozen=True, dict=True):
    """Entries whose path fits one of ``paths``, of one of ``kinds``, with any bit of ``mode``.

    An empty ``paths`` or ``kinds`` and a ``mode`` of 0 admit everything. Globs:
    ``*`` and ``?`` stay within a name, ``**`` crosses directories, ``[…]`` is
    a set of characters.
    """

    paths: tuple[str, ...] = ()
    kinds: frozenset[Kind] = field(default_factory=frozenset)
    mode: int = 0

    @classmethod
    def parse(cls, document: object) -> TreeFilter:
        """Read what a policy passed. Raises ``EvaluationFailed`` for what it must have mistaken."""
        if not isinstance(document, Mapping):
            raise _mistake("expected an object")
        unknown = sorted(str(name) for name in document.keys() - _MEMBERS)
        if unknown:
            raise _mistake(f"unknown member {unknown[0]!r}, known are {sorted(_MEMBERS)}")
        mode = document.get("mode", 0)
        if isinstance(mode, str):
            try:
                mode = int(mode, 8)
            except ValueError:
                raise _mistake("mode is not octal") from None
        if not isinstance(mode, int) or isinstance(mode, bool) or not 0 <= mode <= 0o7777:
            raise _mistake('mode is a number, or octal text such as "6000"')
        kinds = _strings(document, "kinds")
        for kind in kinds:
            if kind not in KINDS:
                raise _mistake(f"unknown kind {kind!r}, known are {', '.join(KINDS)}")
        return cls(tuple(_strings(document, "paths")), frozenset(kinds), mode)  # type: ignore[arg-type]

    def candidates(self, toc: Toc) -> Iterable[int]:
        """Indexes of the entries of one layer that may fit.

        Hard links to lower layers get kind and mode from there, so they are
        looked at again when that is known.
        """
        pattern = self._pattern
        for index, key in enumerate(toc.keys):
            kind = toc.kind(index)
            if kind != "hardlink":
                if self.kinds and kind not in self.kinds:
                    continue
                if self.mode and not toc.mode(index) & self.mode:
                    continue
            if pattern is None or pattern.fullmatch(key):
                yield index

    def admits(self, kind: Kind, mode: int) -> bool:
        """Whether kind and mode fit."""
        return (not self.kinds or kind in self.kinds) and (not self.mode or bool(mode & self.mode))

    @cached_property
    def _pattern(self) -> re.Pattern[bytes] | None:
        if not self.paths:
            return None
        return re.compile(b"|".join(_translated(path) for path in self.paths), re.DOTALL)


def _strings(document: Mapping[str, Any], name: str) -> Collection[str]:
    value = document.get(name, ())
    if not isinstance(value, list | tuple | set | frozenset) or not all(
        isinstance(item, str) for item in value
    ):
        raise _mistake(f"{name} is not a list of strings")
    return sorted(value) if isinstance(value, set | frozenset) else value


def _mistake(reason: str) -> EvaluationFailed:
    return EvaluationFailed(
        f"conforma.oci.image_tree: bad filter: {reason}",
        hint='for example {"paths": ["usr/bin/**"], "kinds": ["file"], "mode": "6000"}',
    )


def _translated(glob: str) -> bytes:
    """A glob as a regular expression over keys."""
    text = key_of(glob.removeprefix("/"))
    out = []
    at = 0
    while at < len(text):
        if text.startswith(b"**\0", at):
            out.append(b"(?:[^\0]+\0)*")
            at += 3
        elif text.startswith(b"**", at):
            out.append(b".*")
            at += 2
        elif text[at] == ord("*"):
            out.append(b"[^\0]*")
            at += 1
        elif text[at] == ord("?"):
            out.append(b"[^\0]")
            at += 1
        elif text[at] == ord("[") and (end := text.find(b"]", at + 2)) > 0:
            inside = text[at + 1 : end]
            negated = inside[:1] in (b"!", b"^")
            body = re.sub(rb"([\\\]\[^])", rb"\\\1", inside[1:] if negated else inside)
            out.append(b"[" + (b"^\0" if negated else b"") + body + b"]")
            at = end + 1
        else:
            out.append(re.escape(text[at : at + 1]))
            at += 1
    return b"".join(out)
