"""What kind of source a URL names, and how it is written once pinned."""

from __future__ import annotations

from pathlib import Path

import pytest

from conforma.errors import InputError, PolicyError
from conforma.policy.source_url import (
    Kind,
    directory_name,
    kind_of,
    looks_like_git,
    pinned,
    refuse_insecure,
    without_secrets,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("oci://h/r", "oci"),
        ("oci::https://github.com/x", "oci"),
        ("https://example.org/policy.yaml", "http"),
        ("https://example.org/r.git", "http"),
        ("http::example.org/policy.yaml", "http"),
        ("https://github.com/o/r", "git"),
        ("https://api.github.com/o/r", "git"),
        ("https://mygithub.com/o/r", "http"),
        ("github.com/o/r//policy?ref=main", "git"),
        ("git@example.org:o/r", "git"),
        ("git::https://example.org/r", "git"),
        ("git::quay.io/r", "git"),
        ("example.org/r.git", "git"),
        ("registry.gitlab.com/o/r", "git"),
        ("oci::registry.gitlab.com/o/r", "oci"),
        ("file:///x", "file"),
        ("file::x", "file"),
        ("/srv/github.com/r", "file"),
        ("./r.git", "file"),
        ("../x", "file"),
        ("quay.io/o/r:tag", "oci"),
        ("us-docker.pkg.dev/o/r", "oci"),
        ("gcr.io/o/r", "oci"),
        ("x.azurecr.io/r", "oci"),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com/r", "oci"),
        ("localhost:5000/r", "oci"),
        ("127.0.0.1:5000/r", "oci"),
        ("[::1]:5000/r", "oci"),
        ("LOCALHOST/r", "oci"),
    ],
)
def test_the_spelling_decides_how_a_source_is_fetched(url: str, kind: Kind) -> None:
    assert kind_of(url) == kind


@pytest.mark.parametrize(
    "url",
    ["example.org/o/r", "12345.dkr.ecr.eu-west-1.amazonaws.com/r", "", "s3::x", "notquay.io/r"],
)
def test_a_url_of_no_known_kind_is_refused(url: str) -> None:
    with pytest.raises(InputError) as caught:
        kind_of(url)
    assert caught.value.message == f"no gatherer found for URI: {url}"


def test_a_path_that_exists_is_a_file_whatever_it_looks_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.git").mkdir()
    assert kind_of("rules.git") == "file"
    assert looks_like_git("rules.git")


@pytest.mark.parametrize(
    "url",
    ["http://h/x", "HTTP://h/x", "git::http://h/x", "oci::HTTP://h/x", "::http://h", "http:x"],
)
def test_sources_without_transport_security_are_refused(url: str) -> None:
    with pytest.raises(PolicyError) as caught:
        refuse_insecure(url)
    assert caught.value.message == f"attempting to download from insecure source: {url}"
    assert caught.value.exit_status == 1


@pytest.mark.parametrize(
    "url", ["https://h/x", "git::https://h", "http::h/x", "oci::h/x", "./http:"]
)
def test_other_sources_are_not_refused(url: str) -> None:
    refuse_insecure(url)


@pytest.mark.parametrize(
    ("kind", "url", "revision", "expected"),
    [
        (
            "git",
            "github.com/o/r//policy?ref=main",
            COMMIT,
            f"git::github.com/o/r//policy?ref={COMMIT}",
        ),
        (
            "git",
            "git::https://git.example/git/p.git",
            COMMIT,
            f"git::git.example/git/p.git?ref={COMMIT}",
        ),
        ("git", "git@h.example:o/r.git//d", COMMIT, f"git::h.example/o/r.git//d?ref={COMMIT}"),
        ("git", "git://h/r", COMMIT, f"git::h/r?ref={COMMIT}"),
        ("git", "h/r.git?ref=main&depth=1", COMMIT, f"git::h/r.git?ref={COMMIT}"),
        ("git", "h/r.git?depth=1&ref=main", COMMIT, f"git::h/r.git?depth=1&ref={COMMIT}"),
        ("git", "h/r.git?depth=1", COMMIT, f"git::h/r.git?depth=1&ref={COMMIT}"),
        ("git", "h/r.git?ref=main//sub", COMMIT, f"git::h/r.git//sub?ref={COMMIT}"),
        ("git", "git::/srv/r", COMMIT, f"git::/srv/r?ref={COMMIT}"),
        ("git", "git::https://me:secret@h/r", COMMIT, f"git::h/r?ref={COMMIT}"),
        ("oci", "oci::https://reg.example/a/p:tag", DIGEST, f"oci::reg.example/a/p:tag@{DIGEST}"),
        ("oci", f"oci://reg.example/p@{DIGEST}", DIGEST, f"oci::reg.example/p@{DIGEST}"),
        ("oci", "quay.io/p", DIGEST, f"oci::quay.io/p@{DIGEST}"),
        ("http", "https://h/p.yaml", "", "http::h/p.yaml"),
        ("http", "http::h/p.yaml", "", "http::h/p.yaml"),
        ("http", "https://u:secret@h/p.yaml", "", "http::h/p.yaml"),
        ("file", "file:///srv/p", "", "file::/srv/p"),
        ("file", "./p", "", "file::./p"),
    ],
)
def test_a_pinned_url_names_content(kind: Kind, url: str, revision: str, expected: str) -> None:
    assert pinned(kind, url, revision) == expected
    # What the report prints can be used as a source again and stays the same.
    assert kind_of(expected) == kind
    refuse_insecure(expected)
    assert pinned(kind, expected, revision) == expected


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@h/x", "https://h/x"),
        ("https://token@h/x", "https://h/x"),
        ("git::u:p@h/x", "git::h/x"),
        ("git::https://u:p@h/x?ref=a@b", "git::https://h/x?ref=a@b"),
        ("git@h:x", "git@h:x"),
        (f"oci::h:5000/x@{DIGEST}", f"oci::h:5000/x@{DIGEST}"),
        (f"h:5000/x:t@{DIGEST}", f"h:5000/x:t@{DIGEST}"),
    ],
)
def test_user_names_and_passwords_are_not_shown(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


def test_directories_are_named_by_the_url() -> None:
    assert directory_name("git::github.com/o/r") == directory_name("git::github.com/o/r")
    assert directory_name("a") == "abd37534c"
