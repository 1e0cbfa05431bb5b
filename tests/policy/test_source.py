"""Sources of every kind: fetched once, stored as plain files, pinned, and refused when unsafe."""

from __future__ import annotations

import os
import tarfile
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from conforma.cancellation import Cancellation
from conforma.errors import (
    BadReference,
    ConformaError,
    DigestMismatch,
    InputError,
    Interrupted,
    PolicyError,
    RegistryUnreachable,
    SourceUnavailable,
    TooLarge,
    UnsafeArchive,
)
from conforma.policy import files
from conforma.policy.source import FetchedSource, Sources
from conforma.serve.faults import Fault
from conforma.serve.images import artifact_of, index_of
from conforma.serve.registry import RegistryServer
from tests.policy.fetching import sources_with, special, tar, tree
from tests.policy.services import (
    Answer,
    Service,
    cancelled_while_it_hangs,
    files_at,
    git,
    git_backend,
    repository,
    serving,
)

REGO = "application/vnd.cncf.openpolicyagent.policy.layer.v1+rego"


# Local files


def test_a_directory_is_copied_with_what_its_links_point_to(
    sources: Sources, tmp_path: Path
) -> None:
    rules = tmp_path / "rules"
    (rules / "sub").mkdir(parents=True)
    (rules / "sub" / "a.rego").write_text("a")
    (tmp_path / "shared.yml").write_text("s")
    (rules / "shared.yml").symlink_to("../shared.yml")
    os.mkfifo(rules / "pipe")
    found = sources.fetch(str(rules))
    assert tree(found.path) == {"sub/a.rego": "a", "shared.yml": "s"}
    assert found.pinned == f"file::{rules}"


def test_a_single_file_is_found_under_its_own_name(sources: Sources, tmp_path: Path) -> None:
    (tmp_path / "data.yml").write_text("x: 1")
    found = sources.fetch(f"file://{tmp_path}/data.yml")
    assert tree(found.path) == {"data.yml": "x: 1"}
    assert found.pinned == f"file::{tmp_path}/data.yml"


def test_a_missing_path_is_named(sources: Sources, tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        sources.fetch(f"{tmp_path}/none")
    assert caught.value.message == (
        f"source file does not exist: stat {tmp_path}/none: no such file or directory"
    )
    assert caught.value.exit_status == 1
    with pytest.raises(PolicyError, match=r"stat \./none//sub: no such file or directory$"):
        sources.fetch("./none//sub")
    with pytest.raises(PolicyError, match="source file does not exist: stat : no such file"):
        sources.fetch("file::")


@pytest.mark.parametrize("url", ["file::~nobody-of-that-name/rules", "/rules\0"])
def test_what_can_be_no_path_is_said_so(sources: Sources, url: str) -> None:
    with pytest.raises(InputError, match="cannot be a path"):
        sources.fetch(url)


def test_a_directory_with_too_many_files_is_refused(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_FILES", 3)
    for name in "abc":
        (tmp_path / name).write_text("")
    with pytest.raises(ConformaError, match="more than 3 files and directories"):
        sources.fetch(str(tmp_path))


def test_directories_that_links_multiply_are_counted(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_FILES", 100)
    for level in range(20):  # 2**20 directories, and not one file
        (tmp_path / "tree" / f"d{level}").mkdir(parents=True)
        for name in "ab":
            (tmp_path / "tree" / f"d{level}" / name).symlink_to(f"../d{level + 1}")
    (tmp_path / "tree" / "d20").mkdir()
    with pytest.raises(TooLarge, match="more than 100 files and directories"):
        sources.fetch(str(tmp_path / "tree"))


# https


def test_https_files_keep_their_name_and_archives_are_unpacked(
    cancellation: Cancellation, tmp_path: Path
) -> None:
    served = {
        "/a/policy.yaml": b"name: x",
        "/r.tar.gz": tar({"p/a.rego": b"a"}),
        "/moved": (302, {"Location": "/a/policy.yaml"}, b""),
    }
    with (
        serving(files_at(served), tmp_path) as server,
        sources_with(cancellation, ca=server.ca_file) as sources,
    ):
        plain = sources.fetch(f"https://{server.host}/a/policy.yaml?x=1")
        again = sources.fetch(f"http::{server.host}/a/policy.yaml")
        packed = sources.fetch(f"https://{server.host}/r.tar.gz")
        moved = sources.fetch(f"https://{server.host}/moved")
        assert tree(plain.path) == tree(again.path) == {"policy.yaml": "name: x"}
        assert tree(packed.path) == {"p/a.rego": "a"}
        assert tree(moved.path) == {"moved": "name: x"}
        assert plain.pinned == f"http::{server.host}/a/policy.yaml?x=1"


@pytest.mark.parametrize(
    ("status", "exit_status", "hint"),
    [
        (404, 1, "does not exist"),
        (403, 3, "needs other credentials"),
        (418, 3, "cannot be had now"),
    ],
)
def test_https_refusals_carry_the_code(
    cancellation: Cancellation, tmp_path: Path, status: int, exit_status: int, hint: str
) -> None:
    with (
        serving(files_at({"/x": (status, {}, b"")}), tmp_path) as server,
        sources_with(cancellation, ca=server.ca_file) as sources,
        pytest.raises(ConformaError) as caught,
    ):
        sources.fetch(f"https://{server.host}/x")
    assert caught.value.message == f"received non-200 response code: {status}"
    assert caught.value.exit_status == exit_status
    assert caught.value.hint == f"https://{server.host}/x {hint}"


def test_https_outages_are_waited_out(cancellation: Cancellation, tmp_path: Path) -> None:
    answers = iter([503, 429, 200])

    def handle(*_: object) -> Answer:
        return next(answers), {"Retry-After": "0"}, b"x: 1"

    with (
        serving(handle, tmp_path) as server,
        sources_with(cancellation, ca=server.ca_file) as sources,
    ):
        assert tree(sources.fetch(f"https://{server.host}/d.yml").path) == {"d.yml": "x: 1"}


def test_https_that_leads_to_plain_http_is_refused(
    cancellation: Cancellation, tmp_path: Path
) -> None:
    moved = {"/x": (302, {"Location": "http://example.org/y"}, b"")}
    with (
        serving(files_at(moved), tmp_path) as server,
        sources_with(cancellation, ca=server.ca_file) as sources,
        pytest.raises(
            PolicyError, match=r"attempting to download from insecure source: http://example\.org/y"
        ),
    ):
        sources.fetch(f"https://{server.host}/x")


def test_an_unknown_authority_is_an_outage(cancellation: Cancellation, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with (
        serving(files_at({}), tmp_path / "other") as other,
        serving(files_at({"/x": b""}), tmp_path) as server,
        sources_with(cancellation, ca=other.ca_file) as sources,
        pytest.raises(SourceUnavailable, match=r"failed to download from URL: .*certificate"),
    ):
        sources.fetch(f"https://{server.host}/x")


def test_a_url_without_a_file_name_is_refused(cancellation: Cancellation) -> None:
    with (
        sources_with(cancellation) as sources,
        pytest.raises(InputError, match="specify a path to a file to download"),
    ):
        sources.fetch("https://127.0.0.1/")


def test_cancelling_ends_a_download_that_hangs(tmp_path: Path) -> None:
    def download(server: Service, cancellation: Cancellation) -> None:
        with sources_with(cancellation, ca=server.ca_file) as sources:
            sources.fetch(f"https://{server.host}/x")

    assert isinstance(cancelled_while_it_hangs(download, tmp_path), Interrupted)


# OCI


def bundle(*layers: tuple[str, bytes, dict[str, str]]) -> Any:
    return artifact_of(
        "application/vnd.example.policy",
        [
            (content, REGO, {"org.opencontainers.image.title": title, **notes})
            for title, content, notes in layers
        ],
    )


def test_the_layers_of_an_artifact_are_stored_under_their_titles(sources: Sources) -> None:
    with RegistryServer() as server:
        digest = bundle(("main.rego", b"m", {}), ("lib/a.rego", b"a", {})).put(
            server.store, "acceptance/p", "tag"
        )
        found = sources.fetch(f"oci::https://{server.host}/acceptance/p:tag")
        assert tree(found.path) == {"main.rego": "m", "lib/a.rego": "a"}
        assert found.pinned == f"oci::{server.host}/acceptance/p:tag@{digest}"
        # The pinned form is a source as well, also without its scheme on a local registry.
        again = sources.fetch(found.pinned)
        assert tree(again.path) == tree(found.path)
        assert again.pinned == found.pinned


def test_localhost_is_reached_by_address(sources: Sources) -> None:
    with RegistryServer() as server:
        bundle(("main.rego", b"m", {})).put(server.store, "p", "latest")
        found = sources.fetch(f"localhost:{server.port}/p")
        assert tree(found.path) == {"main.rego": "m"}
        assert found.pinned.startswith(f"oci::localhost:{server.port}/p@sha256:")


def test_layers_flagged_for_unpacking_are_unpacked(sources: Sources) -> None:
    notes = {"io.deis.oras.content.unpack": "true"}
    layer = tar(
        {"policy": special(tarfile.DIRTYPE), "policy/a.rego": b"a", "policy/l/b.rego": b"b"}
    )
    with RegistryServer() as server:
        bundle(("policy", layer, notes), ("d.yml", b"d", {})).put(server.store, "p", "latest")
        found = sources.fetch(f"oci::{server.host}/p")
        assert tree(found.path) == {"policy/a.rego": "a", "policy/l/b.rego": "b", "d.yml": "d"}


def test_an_index_stands_for_all_its_artifacts(sources: Sources) -> None:
    with RegistryServer() as server:
        index_of([bundle(("a.rego", b"a", {})), bundle(("b.rego", b"b", {}))]).put(
            server.store, "p", "latest"
        )
        assert tree(sources.fetch(f"oci::{server.host}/p").path) == {"a.rego": "a", "b.rego": "b"}


@pytest.mark.parametrize("title", ["../x", "/x", "a/../../x"])
def test_titles_that_would_leave_the_directory_are_refused(sources: Sources, title: str) -> None:
    with RegistryServer() as server:
        bundle((title, b"", {})).put(server.store, "p", "latest")
        with pytest.raises(UnsafeArchive) as caught:
            sources.fetch(f"oci::{server.host}/p")
    assert caught.value.message == (
        f"pulling policy: layer title {title!r} would be written outside its directory"
    )


def test_members_of_unpacked_layers_that_could_do_harm_are_refused(sources: Sources) -> None:
    notes = {"io.deis.oras.content.unpack": "true"}
    with RegistryServer() as server:
        bundle(("p", tar({"../x": b""}), notes)).put(server.store, "p", "latest")
        with pytest.raises(UnsafeArchive, match=r"pulling policy: archive member '\.\./x' would"):
            sources.fetch(f"oci::{server.host}/p")


def test_all_layers_of_an_artifact_share_one_limit(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", 3 << 20)
    notes = {"io.deis.oras.content.unpack": "true"}
    layers = [(name, tar({f"{name}/zeros": bytes(2 << 20)}), notes) for name in ("a", "b")]
    with RegistryServer() as server:
        bundle(*layers).put(server.store, "p", "latest")
        with pytest.raises(TooLarge, match=r"^pulling policy: archive has files of more than 3"):
            sources.fetch(f"oci::{server.host}/p")


def test_a_missing_artifact_is_no_outage(sources: Sources) -> None:
    with (
        RegistryServer() as server,
        pytest.raises(PolicyError) as caught,
    ):
        sources.fetch(f"oci::{server.host}/p:none")
    assert caught.value.message == (
        'pulling policy: failed to perform "FetchReference" on source: '
        f"{server.host}/p:none: not found"
    )
    assert caught.value.exit_status == 1
    assert caught.value.hint.startswith(f"{server.host}/p:none is no policy artifact: ")
    assert " 404 Not Found" in caught.value.hint


def test_a_registry_that_is_down_is_an_outage(sources: Sources) -> None:
    with RegistryServer() as server:
        host = server.host
    with pytest.raises(RegistryUnreachable, match=host) as caught:
        sources.fetch(f"oci::{host}/p")
    assert caught.value.exit_status == 3


def test_a_layer_with_other_bytes_is_refused(sources: Sources) -> None:
    with RegistryServer() as server:
        bundle(("main.rego", b"m" * 100, {})).put(server.store, "p", "latest")
        server.faults.add(Fault(flip_at=50), method="GET", path="/blobs/", times=None)
        with pytest.raises(DigestMismatch, match="pulling policy: "):
            sources.fetch(f"oci::{server.host}/p")


def test_what_is_no_reference_is_said_so(sources: Sources) -> None:
    with pytest.raises(BadReference, match="failed to parse reference: "):
        sources.fetch("oci::quay.io/UPPER")
    for source in ("quay.io", "oci::rules", "oci::"):
        with pytest.raises(BadReference, match="invalid reference: missing registry or repository"):
            sources.fetch(source)


# All kinds


def test_every_url_is_fetched_once_whoever_asks(cancellation: Cancellation, tmp_path: Path) -> None:
    first, release = threading.Event(), threading.Event()

    def handle(*_: object) -> Answer:
        first.set()
        release.wait(30)
        return 200, {}, b"x: 1"

    with (
        serving(handle, tmp_path) as server,
        sources_with(cancellation, ca=server.ca_file) as sources,
    ):
        url = f"https://{server.host}/d.yml"
        found: list[FetchedSource] = []
        threads = [
            threading.Thread(target=lambda: found.append(sources.fetch(url))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        assert first.wait(20)
        release.set()
        for thread in threads:
            thread.join(20)
        assert len(set(found)) == 1
        assert len(found) == 4
        assert len(server.log) == 1


def test_several_sources_are_fetched_at_once_and_the_first_failure_in_order_counts(
    cancellation: Cancellation, tmp_path: Path
) -> None:
    both = threading.Barrier(2)

    def handle(_: str, path: str, *__: object) -> Answer:
        both.wait(20)
        return 404, {}, b""

    with (
        serving(handle, tmp_path) as server,
        sources_with(cancellation, ca=server.ca_file) as sources,
        pytest.raises(PolicyError) as caught,
    ):
        sources.fetch_all([f"https://{server.host}/{name}" for name in "ab"])
    assert caught.value.hint == f"https://{server.host}/a does not exist"


def test_placing_shares_content_between_groups(sources: Sources, tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "a.rego").write_text("a")
    for group in ("one", "two"):
        placed = sources.place(str(tmp_path / "rules"), tmp_path / group / "policy" / "h")
        assert tree(placed.path) == {"a.rego": "a"}
    one, two = (tmp_path / group / "policy" / "h" / "a.rego" for group in ("one", "two"))
    assert one.stat().st_ino == two.stat().st_ino


def test_nothing_is_left_behind_unless_asked(
    cancellation: Cancellation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "a.rego").write_text("a")
    with sources_with(cancellation) as sources:
        directory = sources.fetch(str(tmp_path / "a.rego")).path
        assert directory.is_dir()
    assert not directory.exists()
    with sources_with(cancellation, EC_DEBUG="1") as sources:
        directory = sources.fetch(str(tmp_path / "a.rego")).path
    assert directory.is_dir()
    assert [path.name[:8] for path in tmp_path.iterdir() if path.is_dir()] == ["ec-work-"]


def test_git_over_https_is_pinned_to_its_commit(cancellation: Cancellation, tmp_path: Path) -> None:
    upstream = repository(tmp_path / "root" / "git" / "policy.git", {"main.rego": "package main"})
    with (
        serving(git_backend(tmp_path / "root"), tmp_path) as server,
        sources_with(cancellation, ca=server.ca_file) as sources,
    ):
        found = sources.fetch(f"git::https://{server.host}/git/policy.git?ref=main")
        commit = git(upstream, "rev-parse", "main")
        assert found.pinned == f"git::{server.host}/git/policy.git?ref={commit}"
        assert tree(sources.fetch(found.pinned).path) == {"main.rego": "package main"}


def test_plain_http_is_refused_before_anything_is_asked(sources: Sources) -> None:
    with pytest.raises(
        PolicyError, match="attempting to download from insecure source: http://h/x"
    ):
        sources.fetch("http://h/x")
