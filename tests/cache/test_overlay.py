import io
import os
import random
from pathlib import Path

import pytest

from conforma.cache.filters import TreeFilter
from conforma.cache.overlay import Overlay
from conforma.cache.toc import Toc
from conforma.cache.toc_builder import TocBuilder
from conforma.errors import EvaluationFailed
from conforma.oci.digest import DiffID
from conforma.oci.layer import walk
from conforma.serve.images import Member, directory, hardlink, opaque, symlink, tar_of, whiteout
from tests.cache.unpacking import listing, unpack

EVERYTHING = TreeFilter()
LAYER = DiffID("sha256", "ab" * 32)


def toc_of(tar: bytes) -> Toc:
    builder = TocBuilder()
    for entry in walk(io.BytesIO(tar)):
        builder.add(entry)
    toc = builder.build()
    again = Toc.parse(toc.as_bytes(LAYER), LAYER)
    assert again is not None
    return again


def overlay_from(tars: list[bytes]) -> Overlay:
    return Overlay(map(toc_of, tars), lambda number: walk(io.BytesIO(tars[number])))


def overlay_of(*layers: list[Member]) -> Overlay:
    return overlay_from([tar_of(members) for members in layers])


def paths(overlay: Overlay, wanted: TreeFilter = EVERYTHING) -> list[str]:
    return sorted(overlay.path(place) for place in overlay.select(wanted))


def shown(layers: list[bytes]) -> dict[str, tuple[str, int, bytes]]:
    """What the overlay shows, in the form of ``unpacking.listing``."""
    overlay = overlay_from(layers)
    found = {}
    for place in overlay.select(EVERYTHING):
        row = overlay.row(place)
        content = b""
        if row.kind == "symlink":
            content = row.link.encode("utf-8", "surrogateescape")
        elif (source := overlay.content(place)) is not None:
            at = overlay.tocs[source.layer].row(source.index)
            content = layers[source.layer][at.offset : at.offset + at.size]
        mode = 0o777 if row.kind == "symlink" else row.mode
        found[overlay.path(place)] = (row.kind, mode, content)
    return found


def random_layer(rng: random.Random, names: list[str]) -> bytes:
    members: list[Member] = []
    for _ in range(rng.randrange(3)):
        path = rng.choice(names)
        members.append(opaque(path) if rng.random() < 0.4 else whiteout(path))
    files: list[str] = []
    for _ in range(rng.randrange(1, 9)):
        path = rng.choice(names)
        kind = rng.choice(["file"] * 4 + ["directory"] * 2 + ["symlink", "hardlink", "fifo"])
        if kind == "symlink":
            members.append(symlink(path, rng.choice(["a", "/b", "../c", "c/d", "./a"])))
        elif kind == "hardlink" and files:
            members.append(hardlink(path, rng.choice(files)))
        elif kind == "directory":
            members.append(directory(path, rng.choice([0o755, 0o700, 0o1777])))
        elif kind == "fifo":
            members.append(Member(path, kind="fifo", mode=0o600))
        else:
            members.append(Member(path, rng.randbytes(6), rng.choice([0o644, 0o4755])))
            files.append(path)
    return tar_of(members)


@pytest.mark.parametrize("block", range(8))
def test_random_images_look_as_if_they_were_unpacked(block: int, tmp_path: Path) -> None:
    names = [f"{a}{b}{c}" for a in "abc" for b in ("", "/a", "/d") for c in ("", "/a", "/e")]
    agreed = 0
    for seed in range(block * 30, block * 30 + 30):
        rng = random.Random(seed)
        layers = [random_layer(rng, names) for _ in range(rng.randrange(1, 5))]
        root = tmp_path / str(seed)
        root.mkdir()
        try:
            unpack(root, layers)
        except (AssertionError, OSError):
            continue  # a loop of symlinks, or a hard link to nothing: no unpacker gets past that
        on_disk, ours = listing(root), shown(layers)
        for path, entry in ours.items():
            assert entry == on_disk.get(path), (seed, path)
        missing = {p for p, (kind, _, _) in on_disk.items() if p not in ours}
        # Only directories that no layer mentions are not listed.
        assert all(on_disk[p][0] == "directory" for p in missing), (seed, missing)
        agreed += 1
    assert agreed >= 10


def test_a_whiteout_hides_a_file_and_a_tree_of_lower_layers_only() -> None:
    overlay = overlay_of(
        [Member("etc/old"), Member("opt/app/bin"), Member("opt/app/lib/x")],
        [whiteout("etc/old"), whiteout("opt/app"), Member("opt/app/new")],
    )
    assert paths(overlay) == ["opt/app/new"]


def test_an_opaque_directory_hides_what_lower_layers_have_in_it() -> None:
    overlay = overlay_of(
        [directory("d"), Member("d/low"), Member("d/e/deep"), Member("other")],
        [opaque("d"), Member("d/high")],
    )
    assert paths(overlay) == ["d", "d/high", "other"]


def test_an_opaque_root_hides_everything_below() -> None:
    overlay = overlay_of([Member("low"), Member("a/low")], [Member(".wh..wh..opq"), Member("high")])
    assert paths(overlay) == ["high"]


def test_the_notes_of_aufs_hide_nothing() -> None:
    overlay = overlay_of([Member("a"), Member("plnk")], [Member(".wh..wh.plnk"), Member("b")])
    assert paths(overlay) == ["a", "b", "plnk"]


def test_a_file_takes_the_place_of_a_directory_and_the_reverse() -> None:
    overlay = overlay_of(
        [Member("a/b/c"), Member("f")],
        [Member("a"), Member("f/inside")],
    )
    assert paths(overlay) == ["a", "f/inside"]


def test_of_duplicate_entries_the_last_one_counts() -> None:
    overlay = overlay_of([Member("f", b"1", mode=0o4755), Member("f", b"22", mode=0o600)])
    place = overlay.lookup("f")
    assert place is not None
    assert (overlay.row(place).size, overlay.row(place).mode) == (2, 0o600)


def test_a_layer_writes_through_the_symlinks_of_lower_layers() -> None:
    # As on distributions where /lib is a link to usr/lib.
    overlay = overlay_of(
        [directory("usr/lib"), symlink("lib", "usr/lib")],
        [Member("lib/evil.so", mode=0o4755)],
    )
    assert paths(overlay) == ["lib", "usr/lib", "usr/lib/evil.so"]


def test_a_whiteout_through_a_symlink_hides_what_it_leads_to() -> None:
    overlay = overlay_of(
        [Member("usr/lib/x"), symlink("lib", "usr/lib")],
        [whiteout("lib/x")],
    )
    assert paths(overlay) == ["lib"]


def test_a_symlink_cannot_lead_out_of_the_image() -> None:
    overlay = overlay_of([symlink("up", "../../../etc"), Member("etc/passwd", b"inside")])
    place = overlay.resolve("up/passwd")
    assert place is not None
    assert overlay.path(place) == "etc/passwd"


def test_a_loop_of_symlinks_leads_nowhere() -> None:
    overlay = overlay_of([symlink("a", "b"), symlink("b", "a")])
    assert overlay.resolve("a/x") is None


def test_a_hard_link_to_a_lower_layer_shows_the_mode_and_content_of_its_target() -> None:
    overlay = overlay_of([Member("bin/su", b"elf", mode=0o4755)], [hardlink("tmp/x", "bin/su")])
    place = overlay.lookup("tmp/x")
    assert place is not None
    row = overlay.row(place)
    assert (row.kind, row.mode, row.size, row.link) == ("file", 0o4755, 3, "bin/su")
    assert paths(overlay, TreeFilter(kinds=frozenset({"file"}), mode=0o6000)) == ["bin/su", "tmp/x"]


def test_a_hard_link_keeps_its_content_when_the_target_is_removed_above() -> None:
    overlay = overlay_of(
        [Member("bin/su", b"elf", mode=0o4755)],
        [hardlink("tmp/x", "bin/su")],
        [whiteout("bin/su")],
    )
    place = overlay.lookup("tmp/x")
    assert place is not None
    assert overlay.content(place) == type(place)(0, 0)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/../x", "a/.wh...", "a/.wh."])
def test_a_name_that_leads_out_of_the_image_is_noted_and_not_listed(name: str) -> None:
    toc = toc_of(tar_of([Member("ok"), Member(name)]))
    assert toc.unsafe
    assert [toc.path(i) for i in range(len(toc))] == ["ok"]


def test_a_hard_link_out_of_the_image_is_noted() -> None:
    assert toc_of(tar_of([hardlink("x", "../../etc/shadow")])).unsafe == "x"


@pytest.mark.parametrize("name", ["/etc/x", "./etc/x", "etc//x", "etc/./x", "b/../etc/x"])
def test_other_spellings_of_a_path_are_the_same_path(name: str) -> None:
    assert paths(overlay_of([Member(name)])) == ["etc/x"]


def test_names_are_bytes_not_text() -> None:
    names = [os.fsdecode(b"caf\xe9"), "new\nline", "bidi\u202e", "a\\b", "C:x"]
    builder = TocBuilder()
    for entry in walk(io.BytesIO(tar_of([Member("x")]))):
        for name in names:
            builder.add(entry._replace(path=name))
    toc = Toc.parse(builder.build().as_bytes(LAYER), LAYER)
    assert toc is not None
    assert sorted(toc.path(i) for i in range(len(toc))) == sorted(names)


@pytest.mark.parametrize(
    ("glob", "fits"),
    [
        ("etc/*", ["etc/a", "etc/b.conf", "etc/d"]),
        ("/etc/?", ["etc/a", "etc/d"]),
        ("**/*.conf", ["etc/b.conf", "etc/d/c.conf", "top.conf"]),
        ("etc/**", ["etc/a", "etc/b.conf", "etc/d", "etc/d/c.conf"]),
        ("etc/[!b]*", ["etc/a", "etc/d"]),
        ("etc/[a-b]*", ["etc/a", "etc/b.conf"]),
        ("t+p.conf", []),
    ],
)
def test_globs_stay_within_a_directory_unless_doubled(glob: str, fits: list[str]) -> None:
    overlay = overlay_of(
        [Member("etc/a"), Member("etc/b.conf"), directory("etc/d")],
        [Member("etc/d/c.conf"), Member("top.conf")],
    )
    assert paths(overlay, TreeFilter(paths=(glob,))) == fits


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"path": ["x"]},
        {"paths": "x"},
        {"paths": [1]},
        {"kinds": ["files"]},
        {"mode": "setuid"},
        {"mode": -1},
        {"mode": True},
        {"mode": 0o10000},
    ],
)
def test_a_mistaken_filter_is_an_error_and_not_an_empty_answer(document: object) -> None:
    with pytest.raises(EvaluationFailed, match="image_tree"):
        TreeFilter.parse(document)


def test_a_filter_is_read_as_policies_write_it() -> None:
    wanted = TreeFilter.parse({"paths": ["usr/**"], "kinds": ["file"], "mode": "6000"})
    assert wanted == TreeFilter(("usr/**",), frozenset({"file"}), 0o6000)
