"""How often the content of an entry is looked at, beyond its size."""

from __future__ import annotations

from conforma.cache.disk import Key, LayerStore
from conforma.cache.handles import SharedFile
from conforma.cache.index import Index
from conforma.cache.options import Verify


class Integrity:
    """Checks entries of one store as ``policy`` wants it, and quarantines bad ones."""

    def __init__(self, store: LayerStore, index: Index, policy: Verify) -> None:
        self._store = store
        self._index = index
        self._policy = policy
        self._verified: set[tuple[Key, tuple[int, int]]] = set()

    def holds(self, key: Key, handle: SharedFile, *, doubtful: bool = False) -> bool:
        """Whether the content is right, as far as the policy wants to know.

        ``doubtful`` content is checked at least once.
        """
        if self._policy == "off" and not doubtful:
            return True
        mark = (key, handle.inode)
        if self._policy != "always" and mark in self._verified:
            return True
        return self.recheck(key, handle)

    def recheck(self, key: Key, handle: SharedFile) -> bool:
        """The same, hashed now, whatever the policy is and was known before."""
        good = self._store.content_matches(key, handle)
        if good:
            self._verified.add((key, handle.inode))
            self._index.checked(key)
        else:
            self._store.quarantine(key, handle)
        return good
