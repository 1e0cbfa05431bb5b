"""A file that is being written, whose readers share the blocks they read last.

Followers of one download are woken together and want the same bytes. The first
of them reads a block, the others get the same object: no system call, no copy.
Whoever is elsewhere in the file reads for itself, as if there were no sharing.
"""

from __future__ import annotations

import threading
from typing import Final

from conforma.cache.handles import BLOCK, SharedFile

SHARED: Final = 8 * BLOCK
"""At most so many bytes are kept for each file, however many read it."""
ALONE: Final = 2 * BLOCK
"""And so many while no block has been wanted twice: most downloads have one reader."""
_MOST: Final = 64  # blocks, as those of a slow download are small


class GrowingFile(SharedFile):
    """A file of which nothing changes but the length, until :meth:`settle`. Thread safe."""

    __slots__ = ("_blocks", "_kept", "_lock", "_room", "_settled")

    def __init__(self, descriptor: int, size: int) -> None:
        super().__init__(descriptor, size)
        self._lock = threading.Lock()
        self._blocks: dict[int, bytes] = {}  # by offset, the oldest first
        self._kept = 0
        self._room = ALONE
        self._settled = False

    @property
    def kept(self) -> int:
        """Bytes in memory that the next reader would share."""
        return self._kept

    def block_at(self, offset: int, upto: int) -> bytes:
        """The bytes from ``offset`` to the end of a block, or to ``upto`` if that is nearer.

        They must have been written. Nobody waits here for another reader: of two that
        want the same block at the same moment both read it.
        """
        block = self._blocks.get(offset)
        if block is None:
            block = super().block_at(offset, upto)
            if block:
                self._keep(offset, block)
            return block
        self._room = SHARED
        if len(block) > upto - offset:
            return block[: upto - offset]  # this reader may not see as much
        return block

    def share(self, offset: int, upto: int) -> None:
        """Have the blocks from ``offset`` to ``upto`` in memory, if blocks are shared and these fit.

        Whoever opens a round of followers reads them all before the next is woken: two that
        run at once would each read what the other lacks, and wait for the interpreter.
        """
        if self._room == ALONE or upto - offset > SHARED:
            return
        while offset < upto:
            block = self._blocks.get(offset) or self.block_at(offset, upto)
            if not block:
                return  # the file was cut off, as its reader will find
            offset += len(block)

    def settle(self) -> None:
        """Keep nothing from now on: the file is finished, or given up."""
        with self._lock:
            self._settled = True
            self._blocks.clear()
            self._kept = 0

    def _keep(self, offset: int, block: bytes) -> None:
        with self._lock:
            if self._settled or offset in self._blocks:
                return
            self._blocks[offset] = block
            self._kept += len(block)
            while self._kept > self._room or len(self._blocks) > _MOST:
                self._kept -= len(self._blocks.pop(next(iter(self._blocks))))
