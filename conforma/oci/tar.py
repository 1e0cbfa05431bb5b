"""A tar archive as a stream of entries, read without trusting a byte of it.

The walker is pushed pieces of the archive and never holds more than one
header and one bounded extension record, so bodies of any size cost no memory.
It understands ustar, old GNU and pax archives (POSIX.1-2017 pax; GNU tar
manual, "Basic Tar Format"), and refuses what it cannot be sure about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from conforma.errors import BadArchive, TooLarge
from conforma.oci.inflate import gzip_module
from conforma.oci.tar_entry import BLOCK, FLAGS, Fragment, TarEntry
from conforma.oci.tar_fields import Fields, text
from conforma.oci.tar_map import MOST_FRAGMENTS, PaxMap
from conforma.oci.tar_ordinary import OrdinaryMembers

# Go's archive/tar draws the same line for long names and pax records.
LONGEST_EXTENSION: Final = 1 << 20
MOST_ENTRIES: Final = 1_000_000

_LONG_NAME, _LONG_LINK, _PAX, _SOLARIS_PAX, _GLOBAL, _SPARSE = b"LKxXgS"
_VOLUME, _MULTIVOLUME, _DUMPDIR = b"VMD"
_ZERO: Final = bytes(BLOCK)


class TarWalker:
    """Calls ``on_entry`` for each member of the archive that is fed to it.

    An entry is announced after its content has passed. ``feed`` and ``finish``
    raise ``BadArchive`` for a malformed or truncated archive and ``TooLarge``
    for one with more entries or longer names than any honest layer; both
    name ``what``.
    """

    def __init__(self, on_entry: Callable[[TarEntry], None], what: str = "layer") -> None:
        self._on_entry = on_entry
        self._what = what
        self._fields = Fields(what)
        self._position = 0  # of the next byte to be fed
        self._head = b""  # an incomplete header block
        self._body = 0  # bytes of content still to come
        self._padding = 0  # bytes to skip after it
        self._crc = 0
        self._entry: TarEntry | None = None
        self._collected: list[bytes] | None = None  # content of an extension record
        self._extension = 0
        self._name: bytes | None = None
        self._link: bytes | None = None
        self._pax: dict[str, bytes] = {}
        self._sparse_header: bytes | None = None
        self._fragments: list[Fragment] = []
        self._map: PaxMap | None = None
        self._zeros = 0
        self._count = 0
        self._crc32 = gzip_module().crc32
        self._ordinary = OrdinaryMembers(self._fields, self._emit)

    @property
    def ended(self) -> bool:
        """Whether the marker that ends an archive has been seen."""
        return self._zeros >= 2

    @property
    def _expects_any(self) -> bool:
        """Whether the next block begins a member about which nothing was said before."""
        return not (
            self._name or self._link or self._pax or self._zeros
            or self._sparse_header or self._map is not None
        )  # fmt: skip

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the archive."""
        at, end, base = 0, len(data), self._position
        self._position += end
        view = memoryview(data)
        while at < end and self._zeros < 2:
            if self._body:
                count = min(self._body, end - at)
                self._take(view[at : at + count])
                at += count
            elif self._padding:
                count = min(self._padding, end - at)
                self._padding -= count
                at += count
            elif self._head or end - at < BLOCK:
                count = min(BLOCK - len(self._head), end - at)
                self._head += data[at : at + count]
                at += count
                if len(self._head) == BLOCK:
                    block, self._head = self._head, b""
                    self._block(block, base + at)
            else:
                if self._expects_any:
                    at = self._ordinary.take(data, at, base)
                    self._padding = max(0, at - end)
                if end - at >= BLOCK:
                    at += BLOCK
                    self._block(data[at - BLOCK : at], base + at)

    def finish(self) -> None:
        """No more bytes will come. Raises ``BadArchive`` if the archive is cut short."""
        unfinished = (
            self._body or self._head or self._extension or self._sparse_header or self._map
            or self._name or self._link or self._pax or self._entry
        )  # fmt: skip
        if unfinished and not self.ended:
            raise BadArchive(f"{self._what}: tar archive ends in the middle of a member")

    def _take(self, part: memoryview) -> None:
        if self._collected is not None:
            self._collected.append(bytes(part))
        else:
            self._crc = self._crc32(part, self._crc)
        self._body -= len(part)
        if not self._body:
            self._end_of_body()

    def _end_of_body(self) -> None:
        collected, self._collected = self._collected, None
        if self._extension:
            kind, self._extension = self._extension, 0
            self._extend(kind, b"".join(collected or ()))
            return
        entry, self._entry = self._entry, None
        if entry is None:
            return
        if self._crc:
            entry = entry._replace(crc=self._crc)
        self._emit(entry)

    def _emit(self, entry: TarEntry) -> None:
        self._count += 1
        if self._count > MOST_ENTRIES:
            raise TooLarge(f"{self._what}: more than {MOST_ENTRIES} entries")
        self._on_entry(entry)

    def _block(self, block: bytes, after: int) -> None:
        if self._map is not None:
            self._map_block(block, after)
            return
        if self._sparse_header is not None:
            self._more_sparse(block, after)
            return
        if block == _ZERO:
            self._zeros += 1
            return
        self._zeros = 0
        self._fields.check_sum(block)
        flag = block[156]
        size = self._fields.number(block[124:136])
        if flag in (_LONG_NAME, _LONG_LINK, _PAX, _SOLARIS_PAX, _GLOBAL):
            if size > LONGEST_EXTENSION:
                raise TooLarge(f"{self._what}: a name or extension record of {size} bytes")
            self._extension, self._collected = flag, []
            self._expect(size)
            return
        if flag in (_MULTIVOLUME, _DUMPDIR):
            raise BadArchive(f"{self._what}: tar member type {chr(flag)!r} is not supported")
        if flag == _SPARSE:
            self._sparse_header = block
            self._fragments = list(self._old_gnu_map(block[386:482]))
            if not block[482]:
                self._start_member(block, size, after, tuple(self._fragments))
            return
        self._start_member(block, size, after, None)

    def _start_member(
        self, block: bytes, size: int, after: int, fragments: tuple[Fragment, ...] | None
    ) -> None:
        self._sparse_header = None
        pax, self._pax = self._pax, {}
        name, self._name = self._name, None
        link, self._link = self._link, None
        flag = block[156]
        if flag == _VOLUME:
            self._expect(size)
            return
        if name is None:
            name = pax.get("path") or self._header_name(block)
        if link is None:
            link = pax.get("linkpath") or text(block[157:257])
        if b"\0" in name or b"\0" in link:
            raise BadArchive(f"{self._what}: a member name contains a NUL byte")
        if "size" in pax:
            size = self._fields.decimal(pax["size"], "size")
        kind = FLAGS.get(flag, "file")
        if kind == "file" and flag in (0, ord("0")) and name.endswith(b"/"):
            kind = "directory"  # how tar marked directories before there was a type flag
        stored = size if kind == "file" else 0
        length = stored
        map_in_body = False
        if flag == _SPARSE:
            length = self._fields.number(block[483:495])
        elif pax and kind == "file":
            length, fragments, map_in_body, name = self._pax_sparse(pax, stored, name)
        self._entry = TarEntry(
            name.decode("utf-8", "surrogateescape"),
            kind,
            self._fields.number(block[100:108]) & 0o7777,
            self._owner(pax, "uid", block[108:116]),
            self._owner(pax, "gid", block[116:124]),
            length,
            after,
            link.decode("utf-8", "surrogateescape"),
            self._time(pax, block[136:148]),
            0,
            fragments,
        )
        self._crc = 0
        if map_in_body:
            self._map = PaxMap(self._fields, self._what, stored)
            return
        if fragments is not None:
            self._check_map(fragments, stored, length)
        self._expect(stored)

    def _map_block(self, block: bytes, after: int) -> None:
        """Take a block of the map that opens a pax 1.0 sparse member's content."""
        assert self._map is not None and self._entry is not None
        numbers = self._map.take(block)
        if numbers is None:
            return
        room, self._map = self._map.room, None
        fragments = self._pairs(numbers)
        self._check_map(fragments, room, self._entry.size)
        self._entry = self._entry._replace(offset=after, fragments=fragments)
        self._expect(room)

    def _expect(self, size: int) -> None:
        self._body = size
        self._padding = -size % BLOCK
        if not size:
            self._end_of_body()

    def _extend(self, kind: int, content: bytes) -> None:
        if kind == _LONG_NAME:
            self._name = content.rstrip(b"\0")
        elif kind == _LONG_LINK:
            self._link = content.rstrip(b"\0")
        elif kind in (_PAX, _SOLARIS_PAX):
            self._pax = self._records(content)
        # Global records change nothing a container runtime looks at.

    def _records(self, content: bytes) -> dict[str, bytes]:
        records: dict[str, bytes] = {}
        sparse: list[bytes] = []
        at = 0
        while at < len(content):
            space = content.find(b" ", at, at + 20)
            digits = content[at:space] if space > 0 else b""
            length = int(digits) if digits.isdigit() else 0
            record = content[space + 1 : at + length]
            if not length or not record.endswith(b"\n") or b"=" not in record:
                raise BadArchive(f"{self._what}: malformed pax record")
            key, _, value = record[:-1].partition(b"=")
            at += length
            if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                sparse.append(value)  # format 0.0 repeats them, so order matters
            else:
                records[key.decode("utf-8", "surrogateescape")] = value
        if sparse:
            records["GNU.sparse.map"] = b",".join(sparse)
        return records

    def _pax_sparse(
        self, pax: dict[str, bytes], stored: int, name: bytes
    ) -> tuple[int, tuple[Fragment, ...] | None, bool, bytes]:
        if pax.get("GNU.sparse.major") == b"1":
            length = self._fields.decimal(pax.get("GNU.sparse.realsize", b""), "sparse size")
            return length, None, True, pax.get("GNU.sparse.name", name)
        if "GNU.sparse.map" in pax:
            size = pax.get("GNU.sparse.size", pax.get("GNU.sparse.realsize", b""))
            numbers = [
                self._fields.decimal(n, "sparse map")
                for n in pax["GNU.sparse.map"].split(b",")
                if n
            ]
            return (
                self._fields.decimal(size, "sparse size"),
                self._pairs(numbers),
                False,
                pax.get("GNU.sparse.name", name),
            )
        return stored, None, False, name

    def _old_gnu_map(self, block: bytes) -> tuple[Fragment, ...]:
        fragments = []
        for at in range(0, len(block) - 23, 24):
            if not block[at]:
                break
            fragments.append(
                Fragment(
                    self._fields.number(block[at : at + 12]),
                    self._fields.number(block[at + 12 : at + 24]),
                )
            )
        return tuple(fragments)

    def _more_sparse(self, block: bytes, after: int) -> None:
        self._fragments.extend(self._old_gnu_map(block[:504]))
        if len(self._fragments) > MOST_FRAGMENTS:
            raise TooLarge(f"{self._what}: a sparse file in over {MOST_FRAGMENTS} pieces")
        if not block[504]:
            header = self._sparse_header
            assert header is not None
            size = self._fields.number(header[124:136])
            self._start_member(header, size, after, tuple(self._fragments))

    def _pairs(self, numbers: list[int]) -> tuple[Fragment, ...]:
        if len(numbers) % 2 or len(numbers) > 2 * MOST_FRAGMENTS:
            raise BadArchive(f"{self._what}: malformed sparse map")
        return tuple(map(Fragment, numbers[::2], numbers[1::2]))

    def _check_map(self, fragments: tuple[Fragment, ...], stored: int, length: int) -> None:
        end = total = 0
        for fragment in fragments:
            if fragment.start < end:
                raise BadArchive(f"{self._what}: malformed sparse map")
            end = fragment.start + fragment.length
            total += fragment.length
        if end > length or total != stored:
            raise BadArchive(f"{self._what}: malformed sparse map")

    def _header_name(self, block: bytes) -> bytes:
        name = text(block[:100])
        magic = block[257:265]
        if magic == b"ustar\x0000":
            # star keeps times in the tail of the prefix.
            prefix = block[345:476] if block[508:512] == b"tar\0" else block[345:500]
            if prefix := text(prefix):
                return prefix + b"/" + name
        return name

    def _owner(self, pax: dict[str, bytes], name: str, field: bytes) -> int:
        return self._fields.decimal(pax[name], name) if name in pax else self._fields.number(field)

    def _time(self, pax: dict[str, bytes], field: bytes) -> int:
        if "mtime" not in pax:
            return self._fields.time(field)
        try:
            return int(float(pax["mtime"]))
        except (ValueError, OverflowError):
            return 0  # as for an odd header field
