"""LayerStore: content-addressed files, complete and verified under their final name.

Layout, below the cache directory::

    v1/blobs/sha256/ab/abcd…      bytes as a registry stores them, by digest
    v1/layers/sha256/ab/abcd…     plain tars, by DiffID
    v1/tocs/sha256/ab/abcd…       tables of contents, by DiffID
    v1/links/sha256/ab/abcd…      digest -> DiffID and size, proven by inflating
    v1/…/abcd….<random>.part      being written, by exactly one writer for life
    v1/locks/…  v1/quarantine/…  v1/index/

Raw and derived content live in different areas, so a digest that equals a
DiffID cannot make them collide.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from conforma.cache import fs
from conforma.cache.handles import SharedFile
from conforma.cache.recent import GrowingFile
from conforma.errors import CacheUnusable
from conforma.oci.digest import DiffID, Digest, Hasher

Area = Literal["blobs", "layers", "tocs", "links"]
AREAS: Final[tuple[Area, ...]] = ("blobs", "layers", "tocs", "links")
_log = logging.getLogger(__name__)
VERSION: Final = "v1"
PART: Final = ".part"
_PIECE: Final = 1 << 20


class Key(Struct, frozen=True):
    """What an entry is: its area and the digest that names it."""

    area: Area
    algorithm: str
    hex: str

    @classmethod
    def of(cls, area: Area, digest: Digest | DiffID) -> Key:
        """Raises ``BadDigest`` before any path is built from text that is no digest (LC-1)."""
        return _key(area, digest)

    @property
    def relative(self) -> str:
        """The path below the versioned directory."""
        return f"{self.area}/{self.algorithm}/{self.hex[:2]}/{self.hex}"

    def __str__(self) -> str:
        return f"{self.area}/{self.algorithm}:{self.hex}"


@lru_cache(maxsize=4096)
def _key(area: Area, digest: Digest | DiffID) -> Key:
    checked = type(digest).parse(str(digest))
    return Key(area, checked.algorithm, checked.hex)


class DiskTrouble(OSError):
    """The cache directory failed us while writing; the bytes themselves are fine."""


class Partial:
    """A file on its way to a final name. One writer for life; nobody else appends to it."""

    def __init__(self, store: LayerStore, key: Key) -> None:
        self._store = store
        self._files = store.files
        self.path = store.path(key).with_name(f"{key.hex}.{secrets.token_hex(8)}{PART}")
        self.size = 0
        self._process = os.getpid()
        with _trouble():
            try:
                self._descriptor = self._files.create(self.path)
            except FileNotFoundError:  # first of its directory, or somebody removed it
                self._files.make_directory(self.path.parent)
                self._descriptor = self._files.create(self.path)
        self._open = True

    def write(self, data: bytes | memoryview) -> None:
        """Append. Raises ``DiskTrouble`` when the directory is at fault."""
        if os.getpid() != self._process:
            raise CacheUnusable(f"{self.path.name}: a forked child must not write to it")
        with _trouble():
            self._files.write(self._descriptor, data, self.size, self.path)
        self.size += len(data)

    def publish(self, key: Key, *, durable: bool) -> SharedFile:
        """Give the file its final name; from now on it is complete for everybody.

        The returned handle was pinned before the name appeared, so no evictor
        gets between publication and the first reader (LC-30). If the name
        cannot be had because the directory vanished, the handle is all there
        is, and that is fine.
        """
        with _trouble():
            handle = self.reopen()
            self._give_name(key, durable=durable)
        self._close()
        return handle

    def store_as(self, key: Key, *, durable: bool) -> None:
        """As :meth:`publish`, for what is not read at once and may be evicted at once."""
        with _trouble():
            self._give_name(key, durable=durable)
        self._close()

    def _give_name(self, key: Key, *, durable: bool) -> None:
        final = self._store.path(key)
        if durable:
            self._files.sync(self._descriptor, self.path)
        try:
            if final.parent != self.path.parent:
                self._files.make_directory(final.parent)
            try:
                self._files.rename(self.path, final)
            except IsADirectoryError:  # the only thing that a rename does not replace
                self._store.set_aside(key)
                self._files.rename(self.path, final)
            if durable:
                self._files.sync_directory(final.parent)
        except FileNotFoundError:
            pass

    def reopen(self) -> SharedFile:
        """A read-only handle on what has been written so far."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            descriptor = os.dup(self._descriptor)  # removed under us; the content is still here
        return SharedFile(descriptor, self.size)

    def follow(self) -> GrowingFile:
        """A handle that sees what is written from now on as well."""
        with _trouble():
            return GrowingFile(os.dup(self._descriptor), self.size)

    def pieces(self) -> Iterator[bytes]:
        """What has been written so far, read back."""
        offset = 0
        while offset < self.size:
            piece = os.pread(self._descriptor, min(_PIECE, self.size - offset), offset)
            if not piece:
                return
            offset += len(piece)
            yield piece

    def keep(self) -> None:
        """Leave the file for a successor to resume from."""
        self._close()

    def discard(self) -> None:
        """Remove the file; safe to call at any time, in any state."""
        if self._open and os.getpid() == self._process:
            self._close()
            with contextlib.suppress(OSError):  # the janitor will find it
                self._files.unlink(self.path)

    def _close(self) -> None:
        if self._open:
            self._open = False
            os.close(self._descriptor)


class _trouble:
    """Turns an ``OSError`` of our own file operations into :class:`DiskTrouble`."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise DiskTrouble(error.errno, error.strerror) from error


class LayerStore:
    """The files of one cache directory.

    ``on_quarantine`` is told about each bad entry that was taken out of service.
    """

    def __init__(
        self,
        root: Path,
        files: fs.FileSystem,
        *,
        writable: bool = True,
        on_quarantine: Callable[[Key], None] = lambda _key: None,
    ) -> None:
        self.root = root
        self.files = files
        self.writable = writable
        self._on_quarantine = on_quarantine
        self._bad: set[tuple[int, int]] = set()  # known bad inodes we may not move
        self._complained = False

    def complain(self, trouble: DiskTrouble) -> None:
        """Say once that the directory does not take what it is given."""
        if not self._complained:
            self._complained = True
            _log.warning(
                "the cache %s cannot keep everything: %s", self.root.parent, trouble.strerror
            )

    def path(self, key: Key) -> Path:
        """The entry's final name."""
        return self.root / key.relative

    def open(self, key: Key, size: int | None, *, pinned: bool = True) -> SharedFile | None:
        """The entry, if it is there and has the right size; ``pinned`` if it is used for long.

        Anything else under the name is quarantined and counts as absent: a
        short, long or empty file, a directory, a symlink (LC-5). ``size`` is
        in bytes; ``None`` if the caller checks the content itself.
        """
        try:
            descriptor = self.files.open(self.path(key))
        except OSError as error:
            if error.errno == errno.ELOOP:
                self.set_aside(key)
            if error.errno in fs.ABSENT or error.errno in fs.TROUBLE:
                return None  # what cannot be opened is fetched instead (LC-22)
            raise
        status = os.fstat(descriptor)
        handle = SharedFile(descriptor, status.st_size, pinned=pinned)
        if stat.S_ISREG(status.st_mode) and (size is None or status.st_size == size):
            return None if (status.st_dev, status.st_ino) in self._bad else handle
        self.quarantine(key, handle)
        return None

    def stored_at(self, key: Key) -> float:
        """When the entry was written, in seconds since the epoch; 0 if it is not here."""
        try:
            return self.path(key).lstat().st_mtime
        except OSError:
            return 0.0

    def quarantine(self, key: Key, handle: SharedFile) -> None:
        """Take a bad entry out of service, unless a good one has replaced it meanwhile."""
        self.set_aside(key, handle.inode)

    def content_matches(self, key: Key, handle: SharedFile) -> bool:
        """Whether the content hashes to its name. Reads the whole file."""
        kind = Digest if key.area in ("blobs", "links") else DiffID
        hasher = Hasher(kind(key.algorithm, key.hex))
        offset = 0
        buffer = memoryview(bytearray(min(handle.size + 1, _PIECE)))
        while count := handle.read_into(buffer, offset):
            hasher.update(buffer[:count])
            offset += count
        return hasher.matches()

    def sync(self, key: Key) -> bool:
        """Force a published entry to the device; whether that was possible."""
        if not self.writable:
            return False
        path = self.path(key)
        try:
            descriptor = self.files.open(path)
            try:
                self.files.sync(descriptor, path)
            finally:
                os.close(descriptor)
        except OSError:
            return False
        return True

    def begin(self, key: Key) -> Partial:
        """A new, exclusively created temporary file next to ``key``'s final name.

        Raises ``DiskTrouble``.
        """
        return Partial(self, key)

    def partials(self, key: Key) -> list[Path]:
        """Temporary files of ``key`` left by others, largest first."""
        found = []
        try:
            entries = self.files.names(self.path(key).parent)
        except OSError as error:
            if error.errno not in fs.TROUBLE:
                raise
            return []
        for entry in entries:
            if entry.name.startswith(key.hex + ".") and entry.name.endswith(PART):
                try:
                    found.append((entry.stat(follow_symlinks=False).st_size, Path(entry.path)))
                except OSError:
                    continue
        return [path for _, path in sorted(found, reverse=True)]

    def set_aside(self, key: Key, inode: tuple[int, int] | None = None) -> None:
        """Take whatever has the entry's name out of service; only ``inode`` if that is given."""
        self._on_quarantine(key)
        path = self.path(key)
        target = self.root / "quarantine" / f"{key.area}-{key.hex}.{secrets.token_hex(4)}"
        try:
            status = path.lstat()
            if inode is not None and (status.st_dev, status.st_ino) != inode:
                return
            if self.writable:
                self.files.make_directory(target.parent)
                self.files.rename(path, target)
                return
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            if error.errno not in fs.ABSENT and error.errno not in fs.TROUBLE:
                raise
        # Only while it keeps the name: when it has gone, its number may become another file's.
        if inode is not None:
            self._bad.add(inode)
