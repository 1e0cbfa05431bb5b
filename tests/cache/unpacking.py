"""An image unpacked on a real disk, member by member: what the overlay must agree with."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
from pathlib import Path

KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.SYMTYPE: "symlink",
    tarfile.DIRTYPE: "directory",
    tarfile.FIFOTYPE: "fifo",
}


def unpack(root: Path, layers: list[bytes]) -> None:
    """Apply plain tars, lowest first, as image-spec's layer.md says."""
    for layer in layers:
        with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
            members = archive.getmembers()
            for member in members:
                _hide(root, member.name)
            for member in members:
                if not Path(member.name).name.startswith(".wh."):
                    _apply(root, archive, member)


def listing(root: Path) -> dict[str, tuple[str, int, bytes]]:
    """Path to kind, mode and content (or link target) of everything below ``root``."""
    found = {}
    for directory, names, files in os.walk(root):
        for name in names + files:
            path = Path(directory, name)
            status = path.lstat()
            mode = stat.S_IMODE(status.st_mode)
            if path.is_symlink():
                entry = ("symlink", mode, os.readlink(path).encode())  # noqa: PTH115 - Path tidies it
            elif path.is_dir():
                entry = ("directory", mode, b"")
            elif stat.S_ISFIFO(status.st_mode):
                entry = ("fifo", mode, b"")
            else:
                entry = ("file", mode, path.read_bytes())
            found[str(path.relative_to(root))] = entry
    return found


def _inside(root: Path, name: str) -> Path:
    """Where ``name`` leads with all symlinks followed inside ``root``; it need not exist."""
    done: list[str] = []
    todo = name.split("/")[::-1]
    for _ in range(1000):
        if not todo:
            return root.joinpath(*done)
        part = todo.pop()
        if part == "..":
            done = done[:-1]
        elif part not in ("", "."):
            path = root.joinpath(*done, part)
            if path.is_symlink():
                target = os.readlink(path)  # noqa: PTH115 - Path tidies it
                if target.startswith("/"):
                    done = []
                todo += target.split("/")[::-1]
            else:
                done.append(part)
    raise AssertionError(f"loop at {name}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def _place(root: Path, name: str) -> Path:
    parent, _, base = name.strip("/").rpartition("/")
    return _inside(root, parent) / base


def _hide(root: Path, name: str) -> None:
    path = _place(root, name)
    if path.name == ".wh..wh..opq":
        if path.parent.is_dir():
            for child in path.parent.iterdir():
                _remove(child)
    elif path.name.startswith(".wh."):
        _remove(path.with_name(path.name[4:]))


def _apply(root: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    path = _place(root, member.name)
    for ancestor in reversed(path.relative_to(root).parents):
        directory = root / ancestor
        if os.path.lexists(directory) and not directory.is_dir():
            directory.unlink()
        directory.mkdir(exist_ok=True, mode=0o755)
    if not (member.isdir() and path.is_dir() and not path.is_symlink()):
        _remove(path)
    if member.isdir():
        path.mkdir(exist_ok=True)
    elif member.issym():
        path.symlink_to(member.linkname)
        return
    elif member.islnk():
        os.link(_place(root, member.linkname), path, follow_symlinks=False)
        return
    elif member.isfifo():
        os.mkfifo(path)
    else:
        source = archive.extractfile(member)
        assert source is not None
        path.write_bytes(source.read())
    path.chmod(member.mode)
