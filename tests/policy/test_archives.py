"""Archives as sources: unpacked within their directory and their limits, or refused."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from conforma.cancellation import Cancellation
from conforma.errors import (
    ConformaError,
    PolicyError,
    TooLarge,
    UnsafeArchive,
)
from conforma.policy import archive, files
from conforma.policy.source import Sources
from tests.policy.fetching import sources_with, special, tar, tree


@pytest.mark.parametrize("name", ["r.tar", "r.tar.gz", "r.tgz", "r.tar.bz2", "r.tbz2", "r.zip"])
def test_archives_are_unpacked(sources: Sources, tmp_path: Path, name: str) -> None:
    if name.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as writer:
            writer.writestr("p/a.rego", "a")
            writer.writestr("p/b.rego", "b")
    else:
        mode = "w" if name.endswith(".tar") else "w:bz2" if "bz2" in name else "w:gz"
        members: dict[str, Any] = {
            "./p/a.rego": b"a",
            "p/b.rego": special(tarfile.SYMTYPE, "c.rego"),
        }
        (tmp_path / name).write_bytes(tar({**members, "p/c.rego": b"b"}, mode))
    found = tree(sources.fetch(str(tmp_path / name)).path)
    assert found.items() >= {"p/a.rego": "a", "p/b.rego": "b"}.items()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../x": b""}, "archive member '../x' would be written outside its directory"),
        ({"/etc/x": b""}, "archive member '/etc/x' would be written outside its directory"),
        ({"a/../../x": b""}, "archive member 'a/../../x' would be written outside its directory"),
        (
            {"l": special(tarfile.SYMTYPE, "/etc/passwd")},
            "archive member 'l' links out of the archive, to '/etc/passwd'",
        ),
        (
            {"l": special(tarfile.SYMTYPE, "../../../../../../etc/passwd")},
            "archive member 'l' links out of the archive, to '../../../../../../etc/passwd'",
        ),
        (
            {"l": special(tarfile.LNKTYPE, "/etc/passwd")},
            "archive member 'l' links out of the archive, to '/etc/passwd'",
        ),
        (
            {"l": special(tarfile.SYMTYPE, "none")},
            "archive member 'l' links to 'none', which is no file in it",
        ),
        (
            {"d": special(tarfile.CHRTYPE)},
            "archive member 'd' is neither file, directory nor link",
        ),
        ({"a": b"", "a/b": b""}, "archive member 'a/b' is a file and a directory"),
        ({"a/b": b"", "a": b""}, "archive member 'a' is a file and a directory"),
    ],
)
def test_members_that_could_do_harm_are_refused(
    sources: Sources, tmp_path: Path, members: Mapping[str, bytes], message: str
) -> None:
    (tmp_path / "r.tgz").write_bytes(tar(members))
    with pytest.raises(UnsafeArchive) as caught:
        sources.fetch(str(tmp_path / "r.tgz"))
    assert caught.value.message == message


def test_links_in_zip_files_are_refused(sources: Sources, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as writer:
        link = zipfile.ZipInfo("l")
        link.external_attr = 0o120777 << 16
        writer.writestr(link, "/etc/passwd")
    with pytest.raises(UnsafeArchive, match="'l' is no regular file"):
        sources.fetch(str(tmp_path / "r.zip"))


def extended(kind: bytes, size: int) -> tarfile.TarInfo:
    """The header of an extension record that claims to be ``size`` bytes long."""
    info = tarfile.TarInfo("extension")
    info.type, info.size = kind, size
    return info


@pytest.mark.parametrize(
    "kind",
    [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK],
)
def test_a_record_that_would_fill_memory_is_refused_before_it_is_read(
    cancellation: Cancellation, tmp_path: Path, kind: bytes
) -> None:
    content = tar({}, "w")
    records = [extended(kind, (1 << 20) + 1), tarfile.TarInfo("a.rego")]
    (tmp_path / "r.tar").write_bytes(b"".join(record.tobuf() for record in records) + content)
    with pytest.raises(TooLarge, match="extension record of 1048577 bytes"):
        sources_with(cancellation).fetch(str(tmp_path / "r.tar"))


def test_the_records_of_many_members_do_not_add_up_in_memory(
    cancellation: Cancellation, tmp_path: Path
) -> None:
    members = {}
    for n in range(20):
        members[f"m{n}"] = tarfile.TarInfo(f"m{n}")
        members[f"m{n}"].pax_headers = {"comment": "x" * 1_000_000}
    (tmp_path / "r.tgz").write_bytes(tar(members))
    sources = sources_with(cancellation)
    tracemalloc.start()
    try:
        sources.fetch(str(tmp_path / "r.tgz"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 << 20


def test_a_sparse_member_is_refused(cancellation: Cancellation, tmp_path: Path) -> None:
    (tmp_path / "r.tar").write_bytes(extended(tarfile.GNUTYPE_SPARSE, 0).tobuf() + bytes(1024))
    with pytest.raises(UnsafeArchive, match="is sparse"):
        sources_with(cancellation).fetch(str(tmp_path / "r.tar"))


def test_extensions_of_extensions_without_end_are_damage(
    cancellation: Cancellation, tmp_path: Path
) -> None:
    record = extended(tarfile.XHDTYPE, 0).tobuf()
    (tmp_path / "r.tar").write_bytes(record * 5000 + tar({}, "w"))
    with pytest.raises(PolicyError, match="damaged or no archive"):
        sources_with(cancellation).fetch(str(tmp_path / "r.tar"))


def test_links_are_counted_as_they_come(
    cancellation: Cancellation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MOST_FILES", 3)
    members = {f"l{n}": special(tarfile.SYMTYPE, "none") for n in range(4)}
    (tmp_path / "r.tar").write_bytes(tar(members, "w"))
    with pytest.raises(TooLarge, match="more than 3 links"):
        sources_with(cancellation).fetch(str(tmp_path / "r.tar"))


@pytest.mark.parametrize("name", ["r.tgz", "r.tar", "r.zip", "r.bz2", "r.tar.bz2"])
def test_damaged_archives_are_named(sources: Sources, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"this is no archive at all" * 100)
    with pytest.raises(PolicyError, match=f"{name}: damaged or no archive: ") as caught:
        sources.fetch(str(tmp_path / name))
    assert caught.value.exit_status == 1


def archive_with(name: str, damage: tuple[bytes, bytes]) -> bytes:
    """An archive of that kind in which some bytes are others, wherever they stand."""
    plain = io.BytesIO()
    if name == "r.zip":
        with zipfile.ZipFile(plain, "w") as writer:
            writer.writestr("é.rego", "package a")
    else:
        sparse = tarfile.TarInfo("a.rego")
        sparse.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "1"}
        plain.write(tar({"a.rego": sparse}, "w"))
    return plain.getvalue().replace(*damage)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        pytest.param("r.zip", ("é".encode(), b"\xff\xff"), id="a name that is not UTF-8"),
        pytest.param("r.zip", (b"PK\x05\x06", b"PK\x05\x06" * 2), id="a place before the file"),
        pytest.param("r.tar", (b"map=0,1", b"map=0,x"), id="a number that is none"),
    ],
)
def test_headers_that_make_no_sense_are_damage(
    sources: Sources, tmp_path: Path, name: str, damage: tuple[bytes, bytes]
) -> None:
    (tmp_path / name).write_bytes(archive_with(name, damage))
    with pytest.raises(PolicyError, match=f"{name}: damaged or no archive: ") as caught:
        sources.fetch(str(tmp_path / name))
    assert caught.value.exit_status == 1


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, 97])
def test_zip_members_that_cannot_be_unpacked_are_named(
    sources: Sources, tmp_path: Path, method: int
) -> None:
    file = tmp_path / "r.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("main.rego", "package main\n" * 100)
    raw = bytearray(file.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        raw[raw.find(mark) + offset] = method
    body = raw.find(b"main.rego") + len("main.rego")
    raw[body + 4 : body + 9] = b"\xff" * 5  # the properties of LZMA
    file.write_bytes(raw)
    with pytest.raises(PolicyError, match=r"r\.zip: damaged or no archive"):
        sources.fetch(str(file))


def test_an_archive_that_grows_without_measure_is_refused(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", 3 << 20)
    (tmp_path / "bomb.tgz").write_bytes(tar({"zeros": bytes(4 << 20)}))
    with pytest.raises(ConformaError, match="archive has files of more than 3 MiB"):
        sources.fetch(str(tmp_path / "bomb.tgz"))
