"""LC-28: with proofs, content is handed out only where a repository is known to offer it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conforma.cache.filters import TreeFilter
from conforma.cache.images import ImageReader
from conforma.cache.layers import SafeLayer
from conforma.cache.options import CacheOptions
from conforma.cache.safe_cache import SafeCache
from conforma.cancellation import Cancellation
from conforma.errors import BadResponse, DigestMismatch, NotFound, SizeMismatch
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry, RegistryOptions
from conforma.serve.images import Member, image_of, layer_of
from conforma.serve.registry import RegistryServer
from tests.cache.upstream import Gate, Upstream, sample, together

PRIVATE, NEIGHBOUR, ELSEWHERE = "r.example/private", "r.example/other", "evil.example/copy"
SECRET = sample("secret")
VIEWS: list[Callable[[SafeLayer], object]] = [
    lambda layer: layer.compressed().read(),
    lambda layer: layer.uncompressed().read(),
    lambda layer: layer.stream().read(),
]


def opened(directory: Path, *, proof: bool = True) -> SafeCache:
    return SafeCache.open(CacheOptions(directory / "c", proof=proof))


def layer_for(
    cache: SafeCache, origin: str, upstream: Upstream, offers: Callable[[], bool] | None = None
) -> SafeLayer:
    what = upstream.sample
    return cache.layer(what.descriptor, what.diff_id, upstream.fetch, origin=origin, offers=offers)


class Asked:
    """A registry's answer to whether the repository has the content, and how often it gave it."""

    def __init__(self, answer: bool) -> None:
        self.answer, self.times = answer, 0

    def __call__(self) -> bool:
        self.times += 1
        return self.answer


class Refusing(Upstream):
    """A repository that has no such content."""

    @contextmanager
    def fetch(self, offset: int) -> Iterator[Iterator[bytes]]:
        self.offsets.append(offset)
        raise NotFound("no such blob")
        yield


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A cache in which the private repository's layer lies, in all forms."""
    with opened(tmp_path) as cache:
        layer_for(cache, PRIVATE, Upstream(SECRET)).uncompressed().close()
    return tmp_path


@pytest.mark.parametrize("view", VIEWS)
def test_lc_28_a_repository_without_the_content_is_not_served_from_the_cache(
    filled: Path, view: Callable[[SafeLayer], object]
) -> None:
    with opened(filled) as cache:
        asked, nobody = Asked(answer=False), Refusing(SECRET)
        with pytest.raises(NotFound):
            view(layer_for(cache, NEIGHBOUR, nobody, asked))
        assert (asked.times, nobody.requests) == (1, 1)
        assert layer_for(cache, NEIGHBOUR, nobody, asked).contents_at_hand() is None


@pytest.mark.parametrize("view", VIEWS)
def test_lc_28_a_registry_that_never_sent_the_content_is_not_believed(
    filled: Path, view: Callable[[SafeLayer], object]
) -> None:
    boast = Asked(answer=True)
    with opened(filled) as cache:
        for content, error in (
            (bytes(len(SECRET.blob)), DigestMismatch),
            (SECRET.blob[:-1], DigestMismatch),
            (SECRET.blob + b"x", SizeMismatch),
        ):
            with pytest.raises(error):
                view(layer_for(cache, ELSEWHERE, Upstream(SECRET, content), boast))
        assert boast.times == 0
        owner = Upstream(SECRET)
        assert view(layer_for(cache, ELSEWHERE, owner, boast))
        assert view(layer_for(cache, ELSEWHERE, owner, boast))
        assert owner.requests == 1


def test_lc_28_a_registry_that_has_sent_the_content_is_asked_once_and_nothing_is_sent_again(
    filled: Path,
) -> None:
    asked, silent = Asked(answer=True), Refusing(SECRET)
    with opened(filled) as cache:
        layer = layer_for(cache, NEIGHBOUR, silent, asked)
        results = together(8, lambda _: layer.compressed().read()).results
        assert results == [SECRET.blob] * 8
        assert asked.times == 1
    with opened(filled) as cache:  # and the answer is remembered
        layer = layer_for(cache, NEIGHBOUR, silent, asked)
        assert layer.contents_at_hand() is None  # it is no archive, so there is no table
        assert [view(layer) for view in VIEWS] == [SECRET.blob, SECRET.plain, SECRET.blob]
    assert (asked.times, silent.requests) == (1, 0)


def test_lc_28_the_repository_that_filled_the_cache_is_asked_nothing(filled: Path) -> None:
    asked, silent = Asked(answer=False), Refusing(SECRET)
    with opened(filled) as cache:
        layer = layer_for(cache, PRIVATE, silent, asked)
        assert [view(layer) for view in VIEWS] == [SECRET.blob, SECRET.plain, SECRET.blob]
    assert (asked.times, silent.requests) == (0, 0)


@pytest.mark.parametrize("view", VIEWS)
def test_lc_28_a_download_for_another_repository_is_not_joined_without_a_proof(
    tmp_path: Path, view: Callable[[SafeLayer], object]
) -> None:
    gate = Gate()
    private = Upstream(SECRET)
    private.hold[len(SECRET.blob) // 2] = gate
    with opened(tmp_path) as cache:
        first = together(
            1, lambda _: layer_for(cache, PRIVATE, private).compressed().read(), wait=False
        )
        gate.wait_reached()
        second = together(
            1, lambda _: view(layer_for(cache, ELSEWHERE, Refusing(SECRET))), wait=False
        )
        gate.open()
        assert first.join().results == [SECRET.blob]
        (error,) = second.join().results
        assert isinstance(error, NotFound)


def test_lc_28_the_end_of_a_blob_proves_nothing_about_its_beginning(tmp_path: Path) -> None:
    """A killed download of the private repository is resumed for one that has only the rest."""
    secret = sample("large secret", 3_000_000)
    with opened(tmp_path, proof=False) as cache:
        broken = Upstream(secret)
        broken.fail_at[2_000_000] = lambda: ConnectionError("gone")
        with pytest.raises(ConnectionError):
            layer_for(cache, PRIVATE, broken).compressed()
    rest = Upstream(secret, bytes(2_000_000) + secret.blob[2_000_000:])
    with opened(tmp_path) as cache:
        with pytest.raises(DigestMismatch):
            layer_for(cache, ELSEWHERE, rest).compressed()
        assert rest.offsets == [2_000_000, 0]


def test_lc_28_is_a_choice_without_which_a_digest_is_enough(filled: Path) -> None:
    with opened(filled, proof=False) as cache:
        layer = layer_for(cache, ELSEWHERE, Refusing(SECRET), Asked(answer=False))
        assert layer.compressed().read() == SECRET.blob


def test_lc_28_a_manifest_that_names_a_foreign_layer_does_not_open_it(tmp_path: Path) -> None:
    """The whole way: a registry, two repositories, a manifest that lists what its own lacks."""
    secret = layer_of([Member("etc/secret", os.urandom(20_000))])
    image = image_of([secret])
    with RegistryServer() as server:
        theirs = image.put(server.store, "private/app")
        ours = image.put(server.store, "public/app")
        server.store.repository("public/app").unlink_blob(secret.digest)

        def names(repository: str, *, proof: bool) -> list[str]:
            options = RegistryOptions(environment={"HOME": str(tmp_path), "PATH": ""})
            with opened(tmp_path, proof=proof) as cache, Registry(options, Cancellation()) as made:
                reference = Reference.parse(f"{server.host}/{repository}")
                return [e.path for e in ImageReader(made, cache).tree(reference, TreeFilter())]

        listed = names(f"private/app@{theirs}", proof=True)
        assert "etc/secret" in listed
        assert names(f"public/app@{ours}", proof=False) == listed
        with pytest.raises(BadResponse, match="not all that it lists"):
            names(f"public/app@{ours}", proof=True)
        server.log.clear()
        assert names(f"private/app@{theirs}", proof=True) == listed
        assert server.log.settled().blob_downloads() == {}


def test_lc_28_content_of_earlier_runs_is_not_answered_from_the_cache_either(
    tmp_path: Path,
) -> None:
    with opened(tmp_path, proof=False) as open_to_all, opened(tmp_path) as proving:
        assert open_to_all.content() is not None
        assert proving.content() is None
