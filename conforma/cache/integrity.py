"""How often the content of an entry is looked at, beyond its size."""

from __future__ import annotations

from typing import Final

from conforma.cache.disk import Key, LayerStore
from conforma.cache.handles import SharedFile
from conforma.cache.index import Index
from conforma.cache.options import Verify

SMALL: Final = 64 * 1024
"""Content of so many bytes is hashed at any policy: that costs about what opening it costs, and
an image's configuration, which is judged as it is, is that small. So it need not be synced."""


class Integrity:
    """Checks entries of one store as ``policy`` wants it, and quarantines bad ones."""

    def __init__(self, store: LayerStore, index: Index, policy: Verify) -> None:
        self._store = store
        self._index = index
        self._policy = policy
        self._verified: set[tuple[Key, tuple[int, int]]] = set()

    def holds(self, key: Key, handle: SharedFile, *, doubtful: bool = False) -> bool:
        """Whether the content is right, as far as the policy wants to know.

        ``doubtful`` content is checked at least once, and so is what is small.
        """
        wanted = doubtful or self._policy != "off"
        if not wanted and handle.size > SMALL:
            return True
        if self._policy != "always" and (key, handle.inode) in self._verified:
            return True
        return self.recheck(key, handle, noted=wanted)

    def recheck(self, key: Key, handle: SharedFile, *, noted: bool = True) -> bool:
        """The same, hashed now, whatever the policy is and was known before.

        Unless ``noted`` the index is not told: what nobody asked for is not worth a write.
        """
        good = self._store.content_matches(key, handle)
        if good:
            self._verified.add((key, handle.inode))
            if noted:
                self._index.checked(key)
        else:
            self._store.quarantine(key, handle)
        return good
