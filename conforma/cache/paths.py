"""Names inside a layer: cleaned, confined to the root, and in an order that keeps trees together.

A key is a path with NUL between its parts. Sorted by key, everything below a
directory follows it without a gap, which plain path order does not give
(``a-b`` would stand between ``a`` and ``a/b``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

WHITEOUT: Final = ".wh."
OPAQUE: Final = ".wh..wh..opq"
METADATA: Final = ".wh..wh."
_MOST_LINKS: Final = 40  # as Linux: ELOOP


def clean(path: str) -> str | None:
    """The path below the root, ``""`` for the root itself, ``None`` if it leads out of it."""
    if path.startswith("./"):
        path = path[2:]
    path = path.strip("/")
    if "/." not in path and "//" not in path and not path.startswith("."):
        return path
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def key_of(path: str) -> bytes:
    """The key of a clean path."""
    return path.replace("/", "\0").encode("utf-8", "surrogateescape")


def path_of(key: bytes) -> str:
    """The path of a key."""
    return key.decode("utf-8", "surrogateescape").replace("\0", "/")


def parent_of(key: bytes) -> bytes:
    """The key of the directory that holds it."""
    return key.rpartition(b"\0")[0]


def lies_within(key: bytes, roots: frozenset[bytes]) -> bool:
    """Whether ``key`` is one of ``roots`` or below one."""
    while key:
        if key in roots:
            return True
        key = parent_of(key)
    return False


def follow(path: str, link_at: Callable[[str], str | None]) -> str | None:
    """Where ``path`` leads when every symlink on it is followed, never out of the root.

    ``link_at`` gives the target of the symlink at a path, or ``None`` if there
    is none. Returns ``None`` for a loop.
    """
    done: list[str] = []
    todo = path.split("/")[::-1]
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            if done:
                done.pop()
        elif part not in ("", "."):
            done.append(part)
            target = link_at("/".join(done))
            if target is not None:
                links += 1
                if links > _MOST_LINKS:
                    return None
                done = [] if target.startswith("/") else done[:-1]
                todo.extend(target.split("/")[::-1])
    return "/".join(done)
