"""What this run already knows: a bounded store, least recently used out first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class Memory(Generic[V]):
    """Values with a size in bytes, together never over ``most``. Thread safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        self._size = 0

    def get(self, key: Hashable) -> V | None:
        """The value of ``key``, if it is still known."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: V, size: int) -> None:
        """Remember ``value``, forgetting what was used longest ago if room is needed."""
        with self._lock:
            self._drop(key)
            if size > self._most:
                return
            self._values[key] = (value, size)
            self._size += size
            while self._size > self._most:
                self._drop(next(iter(self._values)))

    def forget(self, key: Hashable) -> None:
        """Know nothing about ``key`` any more."""
        with self._lock:
            self._drop(key)

    def clear(self) -> None:
        """Know nothing any more."""
        with self._lock:
            self._values.clear()
            self._size = 0

    def _drop(self, key: Hashable) -> None:
        found = self._values.pop(key, None)
        if found is not None:
            self._size -= found[1]
