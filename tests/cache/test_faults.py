"""Faults of the directory: the cache loses an entry, the caller loses nothing."""

import errno
import os
import resource
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from conforma.cache import fs
from conforma.cache.direct import DirectLayers
from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.errors import CacheUnusable, DigestMismatch, SizeMismatch, TooLarge
from conforma.oci.inflate import Limits
from tests.cache.upstream import Gate, Sample, Upstream, sample, together

ERRORS = [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE]
STEPS = ["mkdir", "create", "write", "sync", "rename", "sync_directory"]


def failing(step: str, number: int, *, only: str = "") -> Callable[[str, Path], None]:
    def before(name: str, path: Path) -> None:
        if name == step and only in str(path):
            raise OSError(number, os.strerror(number))

    return before


@pytest.mark.parametrize("number", ERRORS)
@pytest.mark.parametrize("step", STEPS)
def test_lc_22_a_step_that_fails_costs_the_cache_an_entry_and_the_caller_nothing(
    tmp_path: Path, step: str, number: int
) -> None:
    SafeCache.open(CacheOptions(tmp_path / "c")).close()
    cache = SafeCache.open(CacheOptions(tmp_path / "c"), before_step=failing(step, number))
    upstream = Upstream(sample())
    what = upstream.sample
    layer = cache.layer(what.descriptor, what.diff_id, upstream.fetch)
    assert layer.compressed().read() == what.blob
    assert layer.uncompressed().read() == what.plain
    cache.close()
    # A name that was given but perhaps not synced is there for the next caller.
    assert cache.stats.pass_through == (1 if step == "sync_directory" else 2)
    assert set(upstream.offsets) == {0}
    assert list((tmp_path / "c").rglob("*.part")) == []


def test_lc_20_small_content_is_not_synced_as_it_is_hashed_whenever_it_is_opened(
    tmp_path: Path,
) -> None:
    """Beside layers on their way to the disk each sync of a configuration took half a second."""
    config = sample("small", 1000)
    upstream = Upstream(config)
    options = CacheOptions(tmp_path / "c", verify="off")
    with SafeCache.open(options, before_step=failing("sync", errno.EIO)) as cache:
        cache.put(config.descriptor, upstream.fetch)
        assert (cache.stats.leaders, cache.stats.pass_through) == (1, 0)
    (entry,) = (tmp_path / "c" / "v1" / "blobs").rglob(config.descriptor.digest.hex)
    entry.chmod(0o600)
    entry.write_bytes(bytes(len(config.blob)))  # what a loss of power can leave
    with SafeCache.open(options) as cache:
        layer = cache.put(config.descriptor, upstream.fetch)
        assert layer.compressed().read() == config.blob
        assert cache.stats.quarantines == 1


def test_lc_22_the_download_goes_on_where_the_disk_filled_up(tmp_path: Path) -> None:
    written = 0

    def before(name: str, path: Path) -> None:
        nonlocal written
        written += name == "write"
        if written > 5:
            raise OSError(errno.ENOSPC, "full")

    cache = SafeCache.open(CacheOptions(tmp_path / "c"), before_step=before)
    upstream = Upstream(sample())
    what = upstream.sample
    layer = cache.layer(what.descriptor, what.diff_id, upstream.fetch)
    results = together(6, lambda _: layer.compressed().read()).results
    assert results == [what.blob] * 6
    # Whoever comes after that cannot even look, and fetches it beside the cache.
    assert layer.compressed().read() == what.blob
    assert upstream.offsets[0] == 0
    assert cache.stats.network_bytes == upstream.sent


def test_lc_22_one_attempt_to_make_room_is_enough_when_it_helps(tmp_path: Path) -> None:
    full = True
    options = CacheOptions(tmp_path / "c", max_bytes=0)
    first = SafeCache.open(options)
    old = Upstream(sample("old"))
    first.put(old.sample.descriptor, old.fetch)

    def before(name: str, path: Path) -> None:
        nonlocal full
        if name == "unlink":
            full = False
        if name == "write" and full:
            raise OSError(errno.ENOSPC, "full")

    cache = SafeCache.open(options, before_step=before)
    upstream = Upstream(sample("new"))
    layer = cache.put(upstream.sample.descriptor, upstream.fetch)
    assert layer.compressed().read() == upstream.content
    assert (cache.stats.leaders, cache.stats.hits, cache.stats.evictions) == (1, 1, 1)


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.EROFS, errno.EFBIG])
def test_lc_22_nothing_is_evicted_for_a_fault_that_room_does_not_cure(
    tmp_path: Path, number: int
) -> None:
    """A process out of descriptors emptied the cache of all others, 64 MiB for each layer."""
    options = CacheOptions(tmp_path / "c", max_bytes=0)
    old, new = Upstream(sample("old")), Upstream(sample("new"))
    with SafeCache.open(options) as cache:
        cache.put(old.sample.descriptor, old.fetch)
    with SafeCache.open(options, before_step=failing("write", number)) as cache:
        layer = cache.put(new.sample.descriptor, new.fetch)
        assert layer.compressed().read() == new.content
        assert cache.stats.evictions == 0
        assert cache.get(old.sample.descriptor.digest) is not None


@pytest.mark.parametrize("view", ["compressed", "uncompressed", "contents", "stream"])
def test_lc_22_without_any_descriptor_the_error_says_so(tmp_path: Path, view: str) -> None:
    first, what = sample("first"), sample()
    with SafeCache.open(CacheOptions(tmp_path / "c")) as cache:
        # Whatever is loaded late is loaded here.
        cache.layer(first.descriptor, first.diff_id, Upstream(first).fetch).uncompressed().close()
        layer = cache.layer(what.descriptor, what.diff_id, Upstream(what).fetch)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            with pytest.raises(CacheUnusable, match="Too many open files"):
                getattr(layer, view)().read()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert layer.uncompressed().read() == what.plain


def test_lc_22_strict_mode_raises_instead(tmp_path: Path) -> None:
    options = CacheOptions(tmp_path / "c", strict=True)
    cache = SafeCache.open(options, before_step=failing("write", errno.ENOSPC))
    upstream = Upstream(sample())
    with pytest.raises(CacheUnusable, match="cannot store blobs/sha256"):
        cache.put(upstream.sample.descriptor, upstream.fetch)


def test_lc_24_with_locks_that_never_exclude_bytes_are_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    caches = [SafeCache.open(CacheOptions(tmp_path / "c")) for _ in range(4)]
    upstreams = [Upstream(sample("same")) for _ in caches]

    def read(number: int) -> bool:
        what = upstreams[number].sample
        layer = caches[number].layer(what.descriptor, what.diff_id, upstreams[number].fetch)
        return layer.uncompressed().read() == what.plain and layer.compressed().read() == what.blob

    assert together(4, read).results == [True] * 4


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_lc_24_with_locks_that_are_not_supported_bytes_are_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    import fcntl

    def unsupported(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    cache = SafeCache.open(CacheOptions(tmp_path / "c"))
    upstream = Upstream(sample())
    what = upstream.sample
    layer = cache.layer(what.descriptor, what.diff_id, upstream.fetch)
    assert layer.uncompressed().read() == what.plain
    assert layer.compressed().read() == what.blob
    assert upstream.requests == 1


@pytest.mark.parametrize("broken", ["symlink", "file", "world-writable", "symlink inside"])
def test_lc_26_a_directory_that_must_not_be_trusted_is_refused(tmp_path: Path, broken: str) -> None:
    directory = tmp_path / "c"
    if broken == "symlink":
        (tmp_path / "real").mkdir()
        directory.symlink_to(tmp_path / "real")
    elif broken == "file":
        directory.touch()
    elif broken == "world-writable":
        directory.mkdir()
        directory.chmod(0o777)
    else:
        directory.mkdir()
        (tmp_path / "real").mkdir()
        (directory / "v1").symlink_to(tmp_path / "real")
    with pytest.raises(CacheUnusable, match="cannot use"):
        SafeCache.open(CacheOptions(directory))


def test_lc_26_a_setgid_directory_is_shared_with_its_group(tmp_path: Path) -> None:
    directory = tmp_path / "c"
    directory.mkdir()
    directory.chmod(0o2770)
    old = os.umask(0o077)
    try:
        cache = SafeCache.open(CacheOptions(directory))
        upstream = Upstream(sample())
        cache.layer(
            upstream.sample.descriptor, upstream.sample.diff_id, upstream.fetch
        ).uncompressed().close()
    finally:
        os.umask(old)
    for path in directory.glob("v1/[!i]*/**/*"):
        mode = path.stat().st_mode
        assert mode & stat.S_IRGRP, path
        assert mode & stat.S_IWGRP, path


def test_lc_26_a_private_directory_stays_private(tmp_path: Path) -> None:
    cache = SafeCache.open(CacheOptions(tmp_path / "c"))
    upstream = Upstream(sample())
    cache.put(upstream.sample.descriptor, upstream.fetch)
    for path in [tmp_path / "c", *(tmp_path / "c").glob("v1/[!i]*/**/*")]:
        assert not path.stat().st_mode & 0o077, path


def bomb(size: int = 200_000_000) -> Sample:
    import zlib

    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    piece = bytes(1_000_000)
    packed = b"".join(packer.compress(piece) for _ in range(size // len(piece))) + packer.flush()
    return Sample(piece, packed)


@pytest.mark.parametrize(
    "limits", [Limits(max_bytes=5_000_000), Limits(max_ratio=20, ratio_floor=1_000_000)]
)
@pytest.mark.parametrize("direct", [False, True])
def test_lc_27_a_bomb_is_stopped_before_the_disk_is_full(
    tmp_path: Path, limits: Limits, direct: bool
) -> None:
    packed = bomb()
    upstream = Upstream(packed)
    largest = 0

    def before(name: str, path: Path) -> None:
        nonlocal largest
        if name == "write":
            largest = max(largest, path.stat().st_size)

    layers = (
        DirectLayers(limits=limits)
        if direct
        else SafeCache.open(CacheOptions(tmp_path / "c", limits=limits), before_step=before)
    )
    layer = layers.layer(packed.descriptor, None, upstream.fetch)
    with pytest.raises(TooLarge, match="layer sha256:"):
        layer.uncompressed()
    assert largest < 8_000_000
    layers.close()
    assert list(tmp_path.rglob("*.part")) == []


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda b: b[:-1], SizeMismatch),
        (lambda b: b + b"x", SizeMismatch),
        (lambda b: bytes(len(b)), DigestMismatch),
    ],
)
def test_without_a_cache_bytes_are_checked_all_the_same(
    change: Callable[[bytes], bytes], error: type[Exception]
) -> None:
    what = sample()
    upstream = Upstream(what, change(what.blob))
    with pytest.raises(error):
        DirectLayers().layer(what.descriptor, what.diff_id, upstream.fetch).compressed()


def test_without_a_cache_nothing_is_shared_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    upstream = Upstream(sample())
    what = upstream.sample
    layers = DirectLayers()
    layer = layers.layer(what.descriptor, what.diff_id, upstream.fetch)
    for _ in range(2):
        with layer.uncompressed() as source:
            assert source.read() == what.plain
            assert list(tmp_path.iterdir()) == []
    assert upstream.requests == 2
    assert layers.stats.pass_through == layers.stats.requests == 2
    with pytest.raises(DigestMismatch):
        layers.layer(what.descriptor, sample("other").diff_id, upstream.fetch).uncompressed()


def test_lc_21_deleting_the_directory_before_any_step_costs_nothing_but_the_cache(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "c"
    what = sample(size=40_000)
    number, steps = 0, 1
    while number < steps:
        seen = 0

        def before(_name: str, _path: Path, victim: int = number) -> None:
            nonlocal seen
            if seen == victim:
                shutil.rmtree(directory, ignore_errors=True)
            seen += 1

        cache = SafeCache.open(CacheOptions(directory), before_step=before)
        layer = cache.layer(what.descriptor, what.diff_id, Upstream(what).fetch)
        assert layer.uncompressed().read() == what.plain, number
        assert layer.compressed().read() == what.blob, number
        cache.close()
        again = SafeCache.open(CacheOptions(directory))
        layer = again.layer(what.descriptor, what.diff_id, Upstream(what).fetch)
        assert layer.uncompressed().read() == what.plain, number
        again.close()
        shutil.rmtree(directory)
        steps, number = seen, number + 1
    assert steps > 10


def test_lc_21_deleting_the_directory_under_readers_and_a_download_is_survived(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "c"
    gate, upstream, there = Gate(), Upstream(sample()), Upstream(sample("there"))
    upstream.hold[100_000] = gate
    with SafeCache.open(CacheOptions(directory)) as cache:
        kept = cache.put(there.sample.descriptor, there.fetch)
        layer = cache.layer(upstream.sample.descriptor, upstream.sample.diff_id, upstream.fetch)
        with kept.compressed() as reader, layer.stream() as follower:
            reader.read(10)
            follower.read(10)
            gate.wait_reached()
            while directory.exists():  # the index may just be writing into it
                shutil.rmtree(directory, ignore_errors=True)
            gate.open()
            assert reader.read() == there.content[10:]
            assert follower.read() == upstream.content[10:]
        assert layer.uncompressed().read() == upstream.sample.plain
        assert kept.compressed().read() == there.content


def test_lc_25_a_rename_that_reports_failure_but_happened_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def as_on_nfs(self: Path, target: Path) -> None:
        rename(self, target)
        raise FileNotFoundError(errno.ENOENT, "the repeated request found nothing to rename")

    monkeypatch.setattr(Path, "rename", as_on_nfs)
    upstream = Upstream(sample())
    with SafeCache.open(CacheOptions(tmp_path / "c")) as cache:
        layer = cache.put(upstream.sample.descriptor, upstream.fetch)
        assert layer.compressed().read() == upstream.content
        assert (cache.stats.leaders, cache.stats.hits, cache.stats.pass_through) == (1, 1, 0)
    assert upstream.requests == 1


def test_lc_25_two_nodes_that_fill_one_digest_both_end_with_a_valid_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Locks that exclude nobody, as on a file system that keeps them to each node."""
    import fcntl

    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    caches = [SafeCache.open(CacheOptions(tmp_path / "c")) for _ in range(2)]
    upstreams = [Upstream(sample("same")) for _ in caches]
    gates = [Gate(), Gate()]
    for upstream, gate in zip(upstreams, gates, strict=True):
        upstream.hold[100_000] = gate

    def fill(number: int) -> bytes:
        what = upstreams[number].sample
        return caches[number].put(what.descriptor, upstreams[number].fetch).compressed().read()

    both = together(2, fill, wait=False)
    for gate in gates:
        gate.wait_reached()  # both are in the middle of it, which the lock would have prevented
    gates[0].open()
    gates[1].open()
    assert both.join().results == [upstreams[0].content] * 2
    for cache in caches:
        cache.close()
    with SafeCache.open(CacheOptions(tmp_path / "c", verify="always")) as after:
        what = upstreams[0].sample
        layer = after.layer(what.descriptor, what.diff_id, Upstream(what, b"").fetch)
        assert layer.compressed().read() == what.blob
        assert after.stats.hits == 1
    assert list((tmp_path / "c").rglob("*.part")) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_lc_25_the_mode_says_that_the_file_system_has_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    import fcntl

    with SafeCache.open(CacheOptions(tmp_path / "c")) as cache:
        assert cache.stats.mode == "read-write"
    asked = []

    def unsupported(*args: object) -> None:
        asked.append(args)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with SafeCache.open(CacheOptions(tmp_path / "c")) as cache:
        probes = len(asked)
        assert cache.stats.mode == cache.stats.mode == "read-write without locks"
        assert len(asked) == probes == 1  # looked at once


def remote(path: Path) -> str:
    """What the kernel says of mounts if the file system of ``path`` is one of another machine."""
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    return (
        f"21 20 {number}0 / / rw - ext4 /dev/sda rw\n"
        f"22 20 {number} /export /mnt rw,relatime shared:1 - nfs4 server:/export rw,vers=4.2\n"
    )


def test_fault_110_two_machines_share_no_database_over_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mounts").write_text(remote(tmp_path))
    monkeypatch.setattr(fs, "_MOUNTS", tmp_path / "mounts")
    upstream = Upstream(sample())
    what = upstream.sample
    for leaders in (1, 0):
        with SafeCache.open(CacheOptions(tmp_path / "c")) as cache:
            layer = cache.put(what.descriptor, upstream.fetch)
            assert layer.compressed().read() == what.blob
            cache.content().note("tag", "meaning")
            assert cache.content().recall("tag") is None
            assert cache.stats.leaders == leaders
            assert cache.stats.mode == "read-write, without an index (network file system)"
    assert upstream.requests == 1
    assert list((tmp_path / "c").rglob("*.db*")) == []


@pytest.mark.parametrize(
    ("kind", "network"),
    [("ext4", False), ("overlay", False), ("tmpfs", False), ("fuse.sshfs", True), ("cifs", True)],
)
def test_fault_110_a_network_is_told_by_the_type_of_the_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, network: bool
) -> None:
    (tmp_path / "mounts").write_text(remote(tmp_path).replace("nfs4", kind))
    monkeypatch.setattr(fs, "_MOUNTS", tmp_path / "mounts")
    assert fs.is_network(tmp_path) is network
    monkeypatch.setattr(fs, "_MOUNTS", tmp_path / "missing")
    assert not fs.is_network(tmp_path)
