"""Debian's docker-registry spoken to directly, with skopeo as the other client.

That it is asked for no more than our own registry is what the other tests here
say, which run against both: see ``debian.py``.
"""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.errors import NotFound, SizeMismatch
from conforma.oci import media_types
from conforma.oci.copying import ensure_copied
from conforma.oci.digest import Digest
from conforma.oci.manifest import Descriptor, Index, Manifest, Platform
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry
from conforma.serve.images import Member, image_of, index_of, layer_of
from conforma.serve.registry import RegistryServer
from tests.oci.scenery import ClientFactory

pytestmark = pytest.mark.slow

SKOPEO = shutil.which("skopeo")


@pytest.fixture
def skopeo() -> str:
    if SKOPEO is None:
        pytest.skip("skopeo is not installed (Debian: apt-get install skopeo)")
    return SKOPEO


def push(registry: Registry, reference: Reference, layer: bytes) -> Digest:
    """An image of one layer, through the client."""
    made = image_of([layer_of([Member("etc/content", layer)])])
    for blob in made.blobs:
        registry.push_blob(reference, blob)
    return registry.push_manifest(reference, made.manifest, made.media_type)


def test_what_we_push_is_what_we_read(docker_upstream: str, client: ClientFactory) -> None:
    reference = Reference.parse(f"{docker_upstream}/ours/app:v1")
    digest = push(client().registry, reference, b"pushed")
    registry = client().registry
    assert registry.head(reference).digest == digest
    manifest = registry.manifest(reference)
    assert isinstance(manifest, Manifest)
    assert registry.image_config(reference, manifest).diff_ids
    with registry.open_blob(reference, manifest.layers[0]) as chunks:
        assert sum(map(len, chunks)) == manifest.layers[0].size
    assert registry.tags(reference) == ("v1",)
    # Version 2.8 has no referrers API.
    assert registry.referrers(reference.pinned(digest)) == ()


def test_skopeo_pulls_what_we_push(
    docker_upstream: str, client: ClientFactory, skopeo: str, tmp_path: Path
) -> None:
    reference = Reference.parse(f"{docker_upstream}/ours/pulled:v1")
    digest = push(client().registry, reference, b"for skopeo")
    source = f"docker://{reference}"
    copy = [skopeo, "--insecure-policy", "copy", "--src-tls-verify=false", "-q"]
    subprocess.run([*copy, source, f"dir:{tmp_path}/copy"], check=True, timeout=60)
    assert Digest.of((tmp_path / "copy/manifest.json").read_bytes()) == digest


def test_we_read_what_skopeo_pushed(
    docker_upstream: str, client: ClientFactory, skopeo: str, tmp_path: Path
) -> None:
    with RegistryServer() as server:
        images = [
            image_of(
                [layer_of([Member("etc/arch", name.encode())])], platform=Platform("linux", name)
            )
            for name in ("amd64", "arm64")
        ]
        digest = index_of(images).put(server.store, "app", "v1")
        target = Reference.parse(f"{docker_upstream}/theirs/app:v1")
        copy = [skopeo, "--insecure-policy", "copy", "--all", "-q"]
        plain = ["--src-tls-verify=false", "--dest-tls-verify=false"]
        names = [f"docker://{server.host}/app:v1", f"docker://{target}"]
        subprocess.run([*copy, *plain, *names], check=True, timeout=60)
    registry = client().registry
    index = registry.manifest(target)
    assert isinstance(index, Index)
    assert Digest.of(index.raw) == digest
    for child in index.manifests:
        manifest = registry.manifest(target.pinned(child.digest))
        assert isinstance(manifest, Manifest)
        for layer in manifest.layers:
            with registry.open_blob(target, layer) as chunks:
                assert sum(map(len, chunks)) == layer.size


def test_missing_things_are_missing(docker_upstream: str, client: ClientFactory) -> None:
    registry = client().registry
    base = Reference.parse(f"{docker_upstream}/nobody/nothing:v1")
    nothing = Digest.of(b"nothing")
    for ask in (
        lambda: registry.head(base),
        lambda: registry.manifest(base),
        lambda: registry.manifest(base.pinned(nothing)),
        lambda: registry.tags(base),
        lambda: registry.read_blob(base, nothing),
    ):
        with pytest.raises(NotFound):
            ask()


def test_rc_8_a_blob_is_read_from_the_middle(docker_upstream: str, client: ClientFactory) -> None:
    registry = client().registry
    reference = Reference.parse(f"{docker_upstream}/ours/ranges")
    data = bytes(range(256)) * 2000
    blob = registry.push_blob(reference, data)
    with registry.open_blob(reference, blob, offset=300_000) as chunks:
        assert b"".join(chunks) == data[300_000:]


def test_rc_12_a_large_blob_is_not_sent_twice(docker_upstream: str, client: ClientFactory) -> None:
    reference = Reference.parse(f"{docker_upstream}/ours/twice")
    made = client()
    for _ in range(2):
        made.registry.push_blob(reference, bytes(200_000))
    assert [seen.method for seen in made.seen] == ["HEAD", "POST", "PUT", "HEAD"]


def test_rc_13_a_304_is_understood(
    docker_upstream: str, client: ClientFactory, tmp_path: Path
) -> None:
    reference = Reference.parse(f"{docker_upstream}/ours/unchanged:v1")
    push(client().registry, reference, b"unchanged")
    with SafeCache.open(CacheOptions(directory=tmp_path / "cache")) as cache:
        raw = client(content=cache.content).registry.manifest(reference).raw
        later = client(content=cache.content)
        assert later.registry.manifest(reference).raw == raw
        assert [seen.status for seen in later.seen] == [304]
        assert later.registry.stats.received_bytes == 0


def test_rc_14_chunks_mounts_and_children(docker_upstream: str, client: ClientFactory) -> None:
    registry = client().registry
    content = bytes(range(256)) * 40_000  # 10 MB: two pieces
    layers = [layer_of([Member("etc/large", content)], compression="none")]
    with RegistryServer() as server:
        digest = index_of([image_of(layers)]).put(server.store, "app", "v1")
        target = Reference.parse(f"{docker_upstream}/ours/copied:v1")
        assert ensure_copied(registry, Reference.parse(f"{server.host}/app:v1"), target) == digest
    second = Reference.parse(f"{docker_upstream}/ours/mounted:v1")
    made = client()
    assert ensure_copied(made.registry, target, second) == digest
    assert client().registry.head(second).digest == digest
    # Nothing but manifests was sent.
    assert sum(seen.sent for seen in made.seen) < 10_000


def test_rc_1_and_20_many_at_once_share_requests_and_connections(
    docker_upstream: str, client: ClientFactory
) -> None:
    reference = Reference.parse(f"{docker_upstream}/ours/many:v1")
    digest = push(client().registry, reference, b"many")
    made = client(small_requests=4)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: made.registry.head(reference).digest, range(200)))
    assert set(found) == {digest}
    assert made.registry._exchange.pool.opened <= 4


def test_a_descriptor_with_another_size_is_refused(
    docker_upstream: str, client: ClientFactory
) -> None:

    registry = client().registry
    reference = Reference.parse(f"{docker_upstream}/ours/sizes")
    blob = registry.push_blob(reference, b"five!")
    wrong = Descriptor(media_types.OCTETS, blob.digest, 4)
    with pytest.raises(SizeMismatch), registry.open_blob(reference, wrong) as chunks:
        list(chunks)
