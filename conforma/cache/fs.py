"""The only functions that change the cache directory, one system call each.

``before`` is called ahead of each step with its name and path. Tests use it
to kill the process before step k, or to make step k fail; nothing else in the
package touches the directory, so those tests see every step there is.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

Step = Callable[[str, Path], None]

# What "there is no such entry" looks like: removed, replaced by a symlink,
# or gone on the server of a network file system (LC-25).
ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ELOOP})
# Faults of the directory that the caller need not suffer from (LC-22, LC-23).
TROUBLE: Final = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.EFBIG,
        errno.ENOMEM,
    }
)

# Those of them that removing something may cure.
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
# Each line: ids, major:minor, root, place, options, " - ", type, source (proc_pid_mountinfo(5)).
_MOUNTS: Final = Path("/proc/self/mountinfo")
_NETWORK: Final = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "ceph", "lustre", "gpfs", "beegfs", "afs",
    "glusterfs", "orangefs", "ocfs2", "gfs2", "9p", "virtiofs", "fuse",
})  # fmt: skip


def no_step(name: str, path: Path) -> None:
    """What happens before a step outside of tests: nothing."""


class FileSystem:
    """File operations with the modes and flags this cache wants.

    ``shared`` makes what is created usable by the directory's group.
    """

    def __init__(self, *, shared: bool = False, before: Step = no_step) -> None:
        self._before = before
        self.directory_mode = 0o2770 if shared else 0o700
        self.file_mode = 0o660 if shared else 0o600

    def make_directory(self, path: Path) -> None:
        """Create ``path`` and its missing parents; nothing happens if it exists."""
        for last in (False, False, True):
            if path.is_dir():
                return
            self.make_directory(path.parent)
            self._before("mkdir", path)
            try:
                path.mkdir(self.directory_mode)
                if self.directory_mode & stat.S_IWGRP:
                    path.chmod(self.directory_mode)  # the umask took the group's rights away
            except FileExistsError:
                return
            except FileNotFoundError:  # somebody removed it, or its parent, in between (LC-21)
                if last:
                    raise

    def create(self, path: Path) -> int:
        """A new file, open for reading and writing; fails if the name is taken."""
        self._before("create", path)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, self.file_mode)
        if self.file_mode & stat.S_IWGRP:
            os.fchmod(descriptor, self.file_mode)
        return descriptor

    def open(self, path: Path, within: int | None = None) -> int:
        """An existing file, open for reading; a symlink is refused (ELOOP).

        ``within`` is its directory's descriptor, where the way there is not to be trusted.
        """
        self._before("open", path)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        return os.open(path if within is None else path.name, flags, dir_fd=within)

    def write(self, descriptor: int, data: bytes | memoryview, offset: int, path: Path) -> None:
        """Write all of ``data`` at ``offset``; repeating it after a failure is harmless."""
        self._before("write", path)
        rest = memoryview(data)
        while rest:
            written = os.pwrite(descriptor, rest, offset)
            rest = rest[written:]
            offset += written

    def sync(self, descriptor: int, path: Path) -> None:
        """Force a file's content to the device."""
        self._before("sync", path)
        os.fsync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its final name, at once and for everybody.

        On NFS a repeated request may report failure although the first one
        worked, so an error is believed only if the target is not our file.
        """
        self._before("rename", target)
        inode = os.lstat(source).st_ino
        try:
            source.rename(target)
        except OSError:
            try:
                if os.lstat(target).st_ino == inode:
                    return
            except OSError:
                pass
            raise

    def sync_directory(self, path: Path) -> None:
        """Force the names in a directory to the device."""
        self._before("sync_directory", path)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)

    def unlink(self, path: Path, within: int | None = None) -> bool:
        """Remove a name; whether it was there. ``within`` as for :meth:`open`."""
        self._before("unlink", path)
        try:
            os.unlink(path if within is None else path.name, dir_fd=within)
        except IsADirectoryError:
            # Not ours. If it is empty nothing is lost with it, else it stays.
            os.rmdir(path if within is None else path.name, dir_fd=within)
        except OSError as error:
            if error.errno in ABSENT:
                return False
            raise
        return True

    @contextlib.contextmanager
    def directory(self, path: Path, root: Path) -> Iterator[int]:
        """A descriptor of ``path``, reached from ``root`` through no symlink.

        Who shares the directory may put one where a directory was, at any time, to have us
        remove files somewhere else (LC-26). Raises ``OSError`` (ENOTDIR) if somebody did.
        """
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(root, flags)
        try:
            for name in path.relative_to(root).parts:
                outer, descriptor = descriptor, os.open(name, flags, dir_fd=descriptor)
                os.close(outer)
            yield descriptor
        finally:
            os.close(descriptor)

    def names(self, path: Path) -> list[os.DirEntry[str]]:
        """The entries of a directory, none if it does not exist."""
        try:
            with os.scandir(path) as entries:
                return list(entries)
        except OSError as error:
            if error.errno in ABSENT:
                return []
            raise


def locks_work(path: Path) -> bool:
    """Whether the file system at least takes a lock on ``path``; true if there is no such file.

    Where it does not, entries may be fetched twice, and are right all the same (LC-24, LC-25).
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _NO_LOCKS
    finally:
        os.close(descriptor)
    return True


def is_network(path: Path) -> bool:
    """Whether other machines may change the file system of ``path``, as far as Linux tells.

    What runs in user space counts as such: nobody knows where it keeps its files.
    Where nothing is known of mounts, it is none.
    """
    try:
        device = path.stat().st_dev
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        mount, _, rest = line.partition(" - ")
        fields, kind = mount.split(), rest.partition(" ")[0]
        if len(fields) > 2 and fields[2] == number:
            return kind.partition(".")[0] in _NETWORK
    return False


def pin(descriptor: int) -> None:
    """Tell evictors, in every process, that this open file is being read.

    The kernel drops the pin when the descriptor is closed, however that
    happens. Where locks are not supported, an evicted file stays readable
    through its descriptor all the same, so failing here does no harm.
    """
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def is_unused(descriptor: int) -> bool:
    """Whether nobody has this file pinned; it cannot be pinned while the answer is used."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)
    return True
