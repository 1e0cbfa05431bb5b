from collections.abc import Iterator
from pathlib import Path

import pytest

from conforma.cache.direct import DirectLayers
from conforma.cache.filters import InDirectories, TreeFilter
from conforma.cache.images import ImageReader
from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.cancellation import Cancellation
from conforma.errors import (
    BadArchive,
    BadManifest,
    BadReference,
    DigestMismatch,
    NotFound,
    TooLarge,
    UnsafeArchive,
)
from conforma.oci.digest import DiffID, Digest
from conforma.oci.manifest import Platform
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry, RegistryOptions
from conforma.serve.images import (
    Image,
    Layer,
    Member,
    hardlink,
    image_of,
    index_of,
    layer_of,
    symlink,
    whiteout,
)
from conforma.serve.registry import RegistryServer

MANIFESTS = InDirectories(("manifests",))


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as running:
        yield running


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    options = RegistryOptions(environment={"HOME": str(tmp_path), "PATH": ""})
    with Registry(options, Cancellation()) as made:
        yield made


@pytest.fixture(params=["cached", "direct"])
def reader(request: pytest.FixtureRequest, tmp_path: Path, registry: Registry) -> ImageReader:
    if request.param == "direct":
        return ImageReader(registry, DirectLayers())
    return ImageReader(registry, SafeCache.open(CacheOptions(tmp_path / "cache")))


def put(server: RegistryServer, image: Image, name: str = "app") -> Reference:
    return Reference.parse(f"{server.host}/{name}@{image.put(server.store, name)}")


def image(*layers: list[Member]) -> Image:
    return image_of([layer_of(members) for members in layers])


def test_files_are_those_of_the_unpacked_image(server: RegistryServer, reader: ImageReader) -> None:
    reference = put(
        server,
        image(
            [
                Member("manifests/a.yaml", b"low"),
                Member("manifests/gone.json", b"{}"),
                Member("manifests/deep/no.yaml", b"deep"),
                Member("manifests/readme.txt", b"text"),
            ],
            [
                whiteout("manifests/gone.json"),
                Member("./manifests/a.yaml", b"high"),
                Member("manifests/B.YML", b"b"),
                Member("Manifests/c.json", b"c"),
                symlink("manifests/link.yaml", "/manifests/a.yaml"),
                symlink("manifests/nowhere.yaml", "../../nothing"),
                hardlink("manifests/hard.yaml", "manifests/a.yaml"),
            ],
        ),
    )
    assert reader.files(reference, MANIFESTS) == {
        "Manifests/c.json": b"c",
        "manifests/B.YML": b"b",
        "manifests/a.yaml": b"high",
        "manifests/hard.yaml": b"high",
        "manifests/link.yaml": b"high",
    }


@pytest.mark.parametrize("spelling", ["manifests", "manifests/", "/manifests", "./MANIFESTS/."])
def test_directories_may_be_spelt_in_other_ways(
    server: RegistryServer, reader: ImageReader, spelling: str
) -> None:
    reference = put(server, image([Member("manifests/a.yaml", b"1")]))
    assert list(reader.files(reference, InDirectories((spelling,)))) == ["manifests/a.yaml"]


def test_no_directory_needs_no_request(server: RegistryServer, reader: ImageReader) -> None:
    reference = put(server, image([Member("a.yaml")]))
    assert reader.files(reference, InDirectories(())) == {}
    assert len(server.log) == 0


def test_the_tree_lists_what_a_filter_admits(server: RegistryServer, reader: ImageReader) -> None:
    built = image(
        [
            Member("bin/su", b"elf", mode=0o4755, uid=0, gid=7),
            Member("dev/null", kind="character"),
            symlink("sh", "bin/su"),
        ],
        [Member("etc/x", b"12", mode=0o600, uid=5)],
    )
    reference = put(server, built)
    everything = list(reader.tree(reference, TreeFilter()))
    assert [(e.path, e.kind, e.mode, e.uid, e.gid, e.size, e.link_target) for e in everything] == [
        ("bin/su", "file", 0o4755, 0, 7, 3, ""),
        ("dev/null", "char", 0o644, 0, 0, 0, ""),
        ("etc/x", "file", 0o600, 5, 0, 2, ""),
        ("sh", "symlink", 0o777, 0, 0, 0, "bin/su"),
    ]
    layers = [str(layer.digest) for layer in reader.layers(reference)]
    assert [e.layer for e in everything] == [layers[0], layers[0], layers[1], layers[0]]
    setuid = TreeFilter(kinds=frozenset({"file"}), mode=0o6000)
    assert [e.path for e in reader.tree(reference, setuid)] == ["bin/su"]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_layers_of_every_compression_are_read(
    server: RegistryServer, reader: ImageReader, compression: str
) -> None:
    layer = layer_of([Member("manifests/a.json", b"{}")], compression=compression)  # type: ignore[arg-type]
    reference = put(server, image_of([layer]))
    assert reader.files(reference, MANIFESTS) == {"manifests/a.json": b"{}"}


def test_of_an_index_the_linux_amd64_child_is_read(
    server: RegistryServer, reader: ImageReader
) -> None:
    arm = image_of([layer_of([Member("m/arm.json")])], platform=Platform("linux", "arm64"))
    amd = image_of([layer_of([Member("m/amd.json")])])
    digest = index_of([arm, amd]).put(server.store, "app")
    reference = Reference.parse(f"{server.host}/app@{digest}")
    assert list(reader.files(reference, InDirectories(("m",)))) == ["m/amd.json"]


def test_an_index_without_that_child_is_a_clear_error(
    server: RegistryServer, reader: ImageReader
) -> None:
    arm = image_of([layer_of([Member("x")])], platform=Platform("linux", "arm64"))
    digest = index_of([arm]).put(server.store, "app")
    with pytest.raises(NotFound, match="linux/amd64"):
        reader.layers(Reference.parse(f"{server.host}/app@{digest}"))


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/../../b"])
def test_a_member_outside_the_image_is_a_clear_error(
    server: RegistryServer, reader: ImageReader, name: str
) -> None:
    reference = put(server, image([Member("manifests/a.yaml", b"1"), Member(name, b"evil")]))
    with pytest.raises(UnsafeArchive, match=r"outside the image.*\.\."):
        reader.files(reference, MANIFESTS)
    with pytest.raises(UnsafeArchive):
        reader.tree(reference, TreeFilter())


def test_a_layer_that_is_no_tar_is_a_clear_error(
    server: RegistryServer, reader: ImageReader
) -> None:
    reference = put(server, image_of([layer_of(b"this is not a tar" * 100)]))
    with pytest.raises(BadArchive, match="not a tar archive"):
        reader.files(reference, MANIFESTS)


def test_a_layer_that_is_not_gzip_is_a_clear_error(
    server: RegistryServer, reader: ImageReader
) -> None:
    junk = b"not gzip at all" * 100
    layer = Layer(junk, Digest.of(junk), DiffID.of(junk))
    with pytest.raises(BadArchive, match="not gzip"):
        reader.files(put(server, image_of([layer])), MANIFESTS)


def test_a_configuration_that_lies_about_a_layer_is_found_out_cold_and_warm(
    server: RegistryServer, reader: ImageReader
) -> None:
    good, bad = layer_of([Member("m/good.json")]), layer_of([Member("m/bad.json")])
    honest = put(server, image_of([good]))
    liar = put(server, image_of([Layer(bad.blob, bad.digest, good.diff_id)]), "liar")
    wanted = InDirectories(("m",))
    with pytest.raises(DigestMismatch, match=str(good.diff_id)):
        reader.files(liar, wanted)
    assert list(reader.files(honest, wanted)) == ["m/good.json"]
    with pytest.raises(DigestMismatch, match=str(good.diff_id)):
        reader.files(liar, wanted)  # the good layer's content is at hand now


def test_a_configuration_with_another_number_of_layers_is_a_clear_error(
    server: RegistryServer, reader: ImageReader
) -> None:
    layer = layer_of([Member("x")])
    built = image_of([layer, layer])
    one = image_of([layer])
    document = built.manifest.replace(
        str(Digest.of(built.blobs[0])).encode(), str(Digest.of(one.blobs[0])).encode()
    ).replace(f'"size":{len(built.blobs[0])}'.encode(), f'"size":{len(one.blobs[0])}'.encode())
    reference = put(server, Image(document, one.blobs))
    with pytest.raises(BadManifest, match="lists 1 layers, the manifest 2"):
        reader.layers(reference)


def test_a_file_over_the_limit_is_an_error_and_not_an_empty_answer(
    server: RegistryServer, registry: Registry, tmp_path: Path
) -> None:
    reference = put(server, image([Member("manifests/a.json", b"x" * 100)]))
    reader = ImageReader(registry, DirectLayers(), largest_file=99)
    with pytest.raises(TooLarge, match=r"manifests/a.json has 100 bytes, over the limit of 99"):
        reader.files(reference, MANIFESTS)


def test_blob_bytes_are_those_that_the_digest_names(
    server: RegistryServer, reader: ImageReader
) -> None:
    digest = server.store.put_blob("app", b'{"sbom": 1}')
    reference = Reference.parse(f"{server.host}/app@{digest}")
    assert reader.blob_bytes(reference) == b'{"sbom": 1}'
    with pytest.raises(NotFound):
        reader.blob_bytes(reference.pinned(Digest.of(b"other")))
    with pytest.raises(BadReference):
        reader.blob_bytes(Reference.parse(f"{server.host}/app:tag"))


def test_a_manifest_is_no_blob_whether_or_not_it_is_in_the_cache(
    server: RegistryServer, reader: ImageReader
) -> None:
    image = image_of([layer_of([Member("task", b"1")])])
    digest = image.put(server.store, "app")
    server.store.put_blob("odd", image.manifest)
    stored_as_blob = Reference.parse(f"{server.host}/odd@{digest}")
    for _ in range(2):
        assert reader.blob_bytes(stored_as_blob) == image.manifest
        with pytest.raises(NotFound):
            reader.blob_bytes(Reference.parse(f"{server.host}/app@{digest}"))


def test_blob_files_are_named_exactly_and_the_last_one_wins(
    server: RegistryServer, reader: ImageReader
) -> None:
    layer = layer_of(
        [
            Member("task", b"1"),
            Member("task", b"22"),
            Member("./dotted", b"3"),
            Member("../up", b"4"),
            Member("Task", b"5"),
        ]
    )
    server.store.put_blob("app", layer.blob)
    reference = Reference.parse(f"{server.host}/app@{layer.digest}")
    assert reader.blob_files(reference, ["task", "dotted", "../up", "none"]) == {
        "task": b"22",
        "../up": b"4",
    }
    assert reader.blob_files(reference, []) == {}


def test_a_second_question_needs_no_blob_request(
    server: RegistryServer, registry: Registry, tmp_path: Path
) -> None:
    reference = put(server, image([Member("manifests/a.json", b"{}")], [Member("b", mode=0o4755)]))
    options = CacheOptions(tmp_path / "cache")
    for expected in (3, 0):  # two layers and the configuration, then nothing
        server.log.clear()
        reader = ImageReader(registry, SafeCache.open(options))
        assert reader.files(reference, MANIFESTS) == {"manifests/a.json": b"{}"}
        assert [e.path for e in reader.tree(reference, TreeFilter(mode=0o4000))] == ["b"]
        assert sum(server.log.settled().blob_downloads().values()) == expected


def test_the_layers_of_an_image_are_put_together_once_for_all_questions(
    server: RegistryServer, registry: Registry, tmp_path: Path
) -> None:
    reference = put(server, image([Member("manifests/a.json", b"{}")], [Member("b", mode=0o4755)]))
    cache = SafeCache.open(CacheOptions(tmp_path / "cache"))
    ImageReader(registry, cache).prefetch(reference)
    reader = ImageReader(registry, cache)
    assert reader.files(reference, MANIFESTS) == {"manifests/a.json": b"{}"}
    asked, hits = registry.stats.remembered, cache.stats.hits
    assert [e.path for e in reader.tree(reference, TreeFilter(mode=0o4000))] == ["b"]
    assert registry.stats.remembered == asked  # neither for the manifest nor for anything in it
    assert cache.stats.hits == hits + 2  # both layers were read without a download all the same


def test_rotten_bytes_in_the_plain_tar_are_noticed_and_replaced(
    server: RegistryServer, registry: Registry, tmp_path: Path
) -> None:
    reference = put(server, image([Member("manifests/a.json", b"x" * 5000)]))
    cache = SafeCache.open(CacheOptions(tmp_path / "cache"))
    reader = ImageReader(registry, cache)
    reader.files(reference, MANIFESTS)
    (plain,) = (tmp_path / "cache").glob("v1/layers/*/*/*")
    raw = bytearray(plain.read_bytes())
    raw[raw.index(b"x" * 5000) + 100] ^= 1
    plain.write_bytes(raw)
    later = ImageReader(registry, cache)
    assert later.files(reference, MANIFESTS) == {"manifests/a.json": b"x" * 5000}
    assert cache.stats.quarantines == 1


def test_images_with_the_same_layers_are_looked_at_once(
    server: RegistryServer, registry: Registry, tmp_path: Path
) -> None:
    layers = [layer_of([Member("manifests/a.json", b"{}")]), layer_of([Member("b", mode=0o4755)])]
    first, second = (put(server, image_of(layers, labels={"n": name})) for name in ("1", "2"))
    cache = SafeCache.open(CacheOptions(tmp_path / "cache"))
    reader = ImageReader(registry, cache)
    found = reader.files(first, MANIFESTS)
    found.clear()  # what a reader does to its answer is its own affair
    for plain in (tmp_path / "cache").glob("v1/layers/*/*/*"):
        plain.unlink()
    derived = cache.stats.derived
    assert reader.files(second, MANIFESTS) == {"manifests/a.json": b"{}"}
    assert cache.stats.derived == derived
    assert reader.files(second, InDirectories(("manifests",), (".yaml",))) == {}
    assert [e.path for e in reader.tree(second, TreeFilter(mode=0o4000))] == ["b"]
    assert [e.path for e in reader.tree(second, TreeFilter(mode=0o2000))] == []
