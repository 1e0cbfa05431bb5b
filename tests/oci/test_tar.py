"""The walker against ``tarfile``, in all formats, however the archive is cut into pieces."""

import io
import random
import tarfile
import zlib
from typing import Final, Literal

import pytest

from conforma.errors import BadArchive, ConformaError, TooLarge
from conforma.oci.tar import TarWalker
from conforma.oci.tar_entry import BLOCK, TarEntry

Format = Literal[0, 1, 2]
FORMATS: Final[dict[str, Format]] = {
    "ustar": tarfile.USTAR_FORMAT,
    "gnu": tarfile.GNU_FORMAT,
    "pax": tarfile.PAX_FORMAT,
}
KINDS: Final = {
    tarfile.REGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
    tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "char",
}
DIRECTORIES: Final = ("", "./", "etc/", "usr/share/doc/", f"{'long/' * 30}", "grüße/")


def member(dice: random.Random, number: int) -> tuple[tarfile.TarInfo, bytes]:
    """A member of any kind, with an ordinary or a far-fetched header."""
    info = tarfile.TarInfo(f"{dice.choice(DIRECTORIES)}{number}{'x' * dice.choice((0, 0, 0, 60))}")
    info.type = dice.choice((tarfile.REGTYPE,) * 9 + tuple(KINDS))
    info.mode = dice.choice((0o644, 0o755, 0o4755))
    info.uid, info.gid = dice.choice(((0, 0), (1000, 1000), (65534, 12)))
    info.mtime = dice.choice((0, 1_700_000_000, 1_700_000_000 + number))
    content = b""
    if info.isreg():
        content = dice.randbytes(dice.choice((0, 1, 511, 512, 513, 5000)))
        info.size = len(content)
    if info.issym() or info.islnk():
        info.linkname = dice.choice(("../lib", "etc/0", "t" * 99))
    return info, content


def archive(dice: random.Random, form: Format, count: int = 60) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as tar:
        for number in range(count):
            info, content = member(dice, number)
            tar.addfile(info, io.BytesIO(content))
    return target.getvalue()


def walked(data: bytes, cuts: list[int]) -> list[TarEntry]:
    found: list[TarEntry] = []
    walker = TarWalker(found.append, "archive")
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        walker.feed(data[start:end])
    walker.finish()
    return found


def expected(data: bytes) -> list[tuple[object, ...]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [
            (
                info.name, KINDS[info.type], info.mode, info.uid, info.gid,
                info.size if info.isreg() else 0, info.offset_data, info.linkname, info.mtime,
                zlib.crc32(data[info.offset_data : info.offset_data + info.size]),
            )
            for info in tar
        ]  # fmt: skip


def shown(entries: list[TarEntry]) -> list[tuple[object, ...]]:
    return [
        (e.path.rstrip("/"), e.kind, e.mode, e.uid, e.gid, e.size, e.offset, e.link_target, e.mtime,
         e.crc)
        for e in entries
    ]  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
def test_members_are_those_that_tarfile_sees_wherever_the_pieces_end(form: str) -> None:
    dice = random.Random(form)
    for _ in range(20):
        data = archive(dice, FORMATS[form])
        wanted = expected(data)
        for pieces in (1, 2, 7, 100):
            cuts = sorted(dice.randrange(len(data)) for _ in range(pieces - 1))
            assert shown(walked(data, cuts)) == wanted


def test_sums_of_members_of_any_size_are_those_of_their_content() -> None:
    dice = random.Random(2)
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for bound in (512, 5 * 1024, 10 * 1024, 128 * 1024):
            for size in (bound - 1, bound, bound + 1, bound + 700):
                info = tarfile.TarInfo(f"f{size}")
                info.size = size
                tar.addfile(info, io.BytesIO(dice.randbytes(size)))
    data = target.getvalue()
    assert shown(walked(data, [])) == expected(data)


def test_one_byte_at_a_time() -> None:
    data = archive(random.Random(1), tarfile.PAX_FORMAT, count=5)
    assert shown(walked(data, list(range(1, len(data))))) == expected(data)


def header(**fields: bytes) -> bytes:
    """A header of an empty file with some fields overwritten, and a checksum that fits."""
    places = {"name": 0, "mode": 100, "uid": 108, "size": 124, "mtime": 136, "flag": 156,
              "link": 157, "magic": 257}  # fmt: skip
    raw = bytearray(tarfile.TarInfo("file").tobuf(tarfile.USTAR_FORMAT)[:BLOCK])
    for name, value in fields.items():
        raw[places[name] : places[name] + len(value)] = value
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


END: Final = bytes(2 * BLOCK)


@pytest.mark.parametrize("field", ["size", "mode", "uid"])
@pytest.mark.parametrize("value", [b"-0000001\0", b"+0000001\0", b"1_0\0\0\0\0\0", b"00000018\0"])
def test_a_number_that_is_none_is_refused(field: str, value: bytes) -> None:
    value = value.rjust(12, b"0") if field == "size" else value[:8]
    if field == "size":
        value = value.lstrip(b"0").ljust(12, b"\0")
    with pytest.raises(BadArchive, match="number in a tar header is malformed"):
        walked(header(**{field: value}) + END, [])


def test_a_time_that_is_none_does_not_matter() -> None:
    (entry,) = walked(header(mtime=b"-0000000001\0") + END, [])
    assert entry.mtime == 0


def test_a_damaged_header_after_ordinary_ones_is_noticed() -> None:
    data = bytearray(header() * 3 + END)
    data[2 * BLOCK + 1] ^= 1
    with pytest.raises(BadArchive, match="bad checksum"):
        walked(bytes(data), [])


def test_checksums_of_signed_bytes_are_accepted_as_old_archives_have_them() -> None:
    raw = bytearray(header(name="größe".encode()))
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(byte - 256 if byte > 127 else byte for byte in raw)
    (entry,) = walked(bytes(raw) + END, [])
    assert entry.path == "größe"


def test_headers_from_before_ustar_are_read() -> None:
    (entry,) = walked(header(flag=b"\0", magic=bytes(8)) + END, [])
    assert (entry.path, entry.kind) == ("file", "file")


def test_a_file_whose_name_ends_with_a_slash_is_a_directory() -> None:
    (entry,) = walked(header(name=b"old/", flag=b"0") + END, [])
    assert entry.kind == "directory"


@pytest.mark.parametrize("size", [b"\xff" * 12, b"\x80" + b"\xff" * 11])
def test_a_size_out_of_range_is_refused(size: bytes) -> None:
    with pytest.raises(BadArchive, match="out of range"):
        walked(header(size=size) + END, [])


def test_an_archive_that_is_cut_short_is_refused() -> None:
    data = archive(random.Random(3), tarfile.GNU_FORMAT, count=20)
    whole = expected(data)
    body = next(e for e in whole if e[5] == 5000)
    assert isinstance(body[6], int)
    with pytest.raises(BadArchive, match="middle of a member"):
        walked(data[: body[6] + 10], [])


def test_damaged_archives_end_in_our_own_errors_or_in_other_members() -> None:
    dice = random.Random(4)
    for _ in range(300):
        data = bytearray(archive(dice, dice.choice((0, 1, 2)), count=6))
        for _ in range(dice.randrange(1, 6)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        try:
            walked(bytes(data), [dice.randrange(len(data))])
        except ConformaError as error:
            assert "archive" in error.message


def sparse_member(map_text: bytes, pieces: bytes, size: int) -> bytes:
    """A file in pax's sparse format 1.0, whose content begins with its map."""
    padded = map_text + bytes(-len(map_text) % BLOCK)
    info = tarfile.TarInfo("holes")
    info.size = len(padded) + len(pieces)
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "holes",
        "GNU.sparse.realsize": str(size),
    }
    return info.tobuf(tarfile.PAX_FORMAT) + padded + pieces + bytes(-len(pieces) % BLOCK)


def test_a_sparse_file_is_read_by_the_map_before_its_content() -> None:
    count = 3_000
    lines = [count, *(n for piece in range(count) for n in (piece * 10, 2))]
    text = "".join(f"{line}\n" for line in lines).encode()
    raw = sparse_member(text, b"ab" * count, count * 10) + bytes(2 * BLOCK)
    (entry,) = walked(raw, [])
    assert (entry.path, entry.kind, entry.size) == ("holes", "file", count * 10)
    assert entry.fragments is not None
    assert [(piece.start, piece.length) for piece in entry.fragments] == [
        (piece * 10, 2) for piece in range(count)
    ]
    assert raw[entry.offset : entry.offset + 2 * count] == b"ab" * count


@pytest.mark.parametrize(
    ("start", "block", "error"),
    [
        (b"", bytes(BLOCK), BadArchive),
        (b"", b"1" * BLOCK, BadArchive),
        (b"2\n", b"1" * BLOCK, BadArchive),
        (b"20001\n", bytes(BLOCK), TooLarge),
        (b"-1\n", bytes(BLOCK), BadArchive),
    ],
)
def test_a_map_without_end_is_refused_and_not_collected(
    start: bytes, block: bytes, error: type[ConformaError]
) -> None:
    info = tarfile.TarInfo("holes")
    info.size = 1 << 32
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": "5"}
    walker = TarWalker(lambda _: None)
    with pytest.raises(error):
        walker.feed(info.tobuf(tarfile.PAX_FORMAT) + start + block[len(start) :] + block * 4)
