"""Git sources, from a real server over HTTPS and from local repositories."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from conforma.cancellation import Cancellation
from conforma.errors import (
    ConformaError,
    InputError,
    Interrupted,
    PolicyError,
    SourceUnavailable,
    UnsafeArchive,
)
from conforma.oci.retry import RetryPolicy
from conforma.policy.git import Git
from conforma.policy.git_program import child_environment
from conforma.policy.git_url import Repository
from tests.policy.services import (
    Answer,
    Service,
    cancelled_while_it_hangs,
    commit,
    git,
    git_backend,
    repository,
    serving,
)

FAST = RetryPolicy(duration=0.0, max_wait=0.0)


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    return repository(
        tmp_path / "root" / "team" / "rules.git",
        {"policy/a.rego": "package a", "data/d.yml": "x: 1", "top.txt": "top"},
    )


@pytest.fixture
def server(upstream: Path, tmp_path: Path) -> Iterator[Service]:
    with serving(git_backend(tmp_path / "root"), tmp_path) as service:
        yield service


def fetch(
    url: str, tmp_path: Path, environment: Mapping[str, str] | None = None
) -> tuple[str, Path]:
    number = len(list(tmp_path.glob("out*")))
    out = tmp_path / f"out{number}"
    found = Git(Cancellation(), FAST, environment).fetch(url, out, tmp_path / f"scratch{number}")
    return found, out


def names(directory: Path) -> list[str]:
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())


def test_the_default_branch_comes_with_its_commit(
    server: Service, upstream: Path, tmp_path: Path
) -> None:
    found, out = fetch(f"git::https://{server.host}/team/rules.git", tmp_path, server.environment)
    assert found == git(upstream, "rev-parse", "main")
    assert names(out) == ["data/d.yml", "policy/a.rego", "top.txt"]


def test_a_subdirectory_comes_alone(server: Service, tmp_path: Path) -> None:
    _, out = fetch(f"git::{server.host}/team/rules//policy", tmp_path, server.environment)
    assert names(out) == ["a.rego"]


def test_a_tag_comes_before_a_branch_of_the_same_name(
    server: Service, upstream: Path, tmp_path: Path
) -> None:
    tagged = git(upstream, "rev-parse", "main")
    git(upstream, "tag", "-a", "-m", "t", "v1")
    git(upstream, "checkout", "-q", "-b", "v1")
    branch = commit(upstream, {"new": "n"})
    found, _ = fetch(f"git::{server.host}/team/rules.git?ref=v1", tmp_path, server.environment)
    assert found == tagged != branch
    found, _ = fetch(
        f"git::{server.host}/team/rules.git?ref=refs/heads/v1", tmp_path, server.environment
    )
    assert found == branch


@pytest.mark.parametrize("length", [40, 10])
def test_an_old_commit_is_found_by_name(
    server: Service, upstream: Path, tmp_path: Path, length: int
) -> None:
    old = git(upstream, "rev-parse", "main")
    commit(upstream, {"policy/b.rego": "package b"})
    found, out = fetch(
        f"git::{server.host}/team/rules//policy?ref={old[:length]}", tmp_path, server.environment
    )
    assert found == old
    assert names(out) == ["a.rego"]


def test_a_commit_a_server_does_not_hand_out_by_name_is_found_through_its_branch(
    upstream: Path, tmp_path: Path
) -> None:
    old = git(upstream, "rev-parse", "main")
    commit(upstream, {"policy/b.rego": "package b"})
    # Protocol version 0 servers refuse commits that are no tip.
    with serving(
        git_backend(tmp_path / "root", environment={"GIT_PROTOCOL": ""}), tmp_path
    ) as server:
        found, out = fetch(f"git::{server.host}/team/rules?ref={old}", tmp_path, server.environment)
    assert found == old
    assert "policy/b.rego" not in names(out)


@pytest.mark.parametrize("prefix", ["", "git::", "file://", "git::file://"])
def test_a_local_repository_is_read_like_a_remote_one(
    upstream: Path, tmp_path: Path, prefix: str
) -> None:
    found, out = fetch(f"{prefix}{upstream}//data?depth=1", tmp_path)
    assert found == git(upstream, "rev-parse", "HEAD")
    assert names(out) == ["d.yml"]


@pytest.mark.parametrize(
    ("source", "url", "ref", "subdirectory"),
    [
        ("github.com/o/r", "https://github.com/o/r.git", "", ""),
        ("git@github.com:o/r.git//d?ref=main", "https://github.com/o/r.git", "main", "d"),
        ("git::https://h/o/r?ref=a%2Fb&depth=1", "https://h/o/r.git", "a/b", ""),
        ("git::https://h/o/r?ref=main//sub/dir", "https://h/o/r.git", "main", "sub/dir"),
        ("git::ssh://git@h:22/o/r.git//x?ref=1", "ssh://git@h:22/o/r.git", "1", "x"),
        ("git://h/o/r.git", "https://h/o/r.git", "", ""),
        ("/srv/r//d", "file:///srv/r", "", "d"),
    ],
)
def test_urls_are_taken_apart(source: str, url: str, ref: str, subdirectory: str) -> None:
    assert Repository.parse(source) == Repository(url, ref, subdirectory)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "git::h/r?ref=--upload-pack=x",
            "error resolving ref: '--upload-pack=x' of git::h/r?ref=--upload-pack=x is no branch, tag or commit",
        ),
        (
            "git::h/r?ref=a..b",
            "error resolving ref: 'a..b' of git::h/r?ref=a..b is no branch, tag or commit",
        ),
        (
            "git::h/r?ref=a%0Ab",
            "error resolving ref: 'a\\nb' of git::h/r?ref=a%0Ab is no branch, tag or commit",
        ),
        ("git::h/r//../../etc", "path ../../etc does not exist in the repository"),
        ("git::h/r?depth=x", "git::h/r?depth=x: failed to parse depth: 'x'"),
        ("git::-oProxyCommand=x", "git::-oProxyCommand=x: no repository is named"),
    ],
)
def test_what_could_be_taken_for_an_option_or_leaves_the_repository_is_refused(
    source: str, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        Repository.parse(source)
    assert caught.value.message == message


def failure(
    url: str, tmp_path: Path, environment: Mapping[str, str] | None = None
) -> ConformaError:
    with pytest.raises(ConformaError) as caught:
        fetch(url, tmp_path, environment)
    return caught.value


def test_a_missing_subdirectory_is_named(server: Service, tmp_path: Path) -> None:
    error = failure(f"git::{server.host}/team/rules//nope", tmp_path, server.environment)
    assert error.message == "path nope does not exist in the repository"
    assert isinstance(error, PolicyError)
    assert error.exit_status == 1


@pytest.mark.parametrize(
    ("ref", "failed"),
    [
        ("nope", "cloning repository"),
        ("f" * 40, "resolving ref"),
        ("abcdef1", "cloning repository"),
    ],
)
def test_a_missing_ref_is_named(server: Service, tmp_path: Path, ref: str, failed: str) -> None:
    error = failure(f"git::{server.host}/team/rules?ref={ref}", tmp_path, server.environment)
    assert error.message == f"error {failed}: reference not found"
    assert (
        error.hint == f"https://{server.host}/team/rules.git has no tag, branch or commit {ref!r}"
    )
    assert error.exit_status == 1


def test_a_missing_repository_is_no_outage(server: Service, tmp_path: Path) -> None:
    error = failure(f"git::{server.host}/team/other", tmp_path, server.environment)
    assert error.message.startswith(
        f"error cloning repository: https://{server.host}/team/other.git: "
    )
    assert "not found" in error.message
    assert error.exit_status == 1


def test_a_missing_local_repository_is_no_outage(tmp_path: Path) -> None:
    error = failure(f"git::{tmp_path}/none", tmp_path)
    assert error.message.startswith(f"error cloning repository: file://{tmp_path}/none: fatal: ")
    assert error.exit_status == 1


def test_an_unknown_authority_is_refused_and_can_be_named_or_waived(
    server: Service, tmp_path: Path
) -> None:
    url = f"git::{server.host}/team/rules"
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("SSL_", "GIT_"))}
    error = failure(url, tmp_path / "first", plain)
    assert isinstance(error, SourceUnavailable)
    assert "certificate" in error.message
    assert error.hint == "SSL_CERT_FILE names the certificate authorities to believe"
    assert fetch(url, tmp_path, {**plain, "GIT_SSL_NO_VERIFY": "true"})[0]


def test_ssl_verification_is_only_waived_by_the_word_true() -> None:
    assert "GIT_SSL_NO_VERIFY" not in child_environment({"GIT_SSL_NO_VERIFY": "false"})


def test_the_environment_cannot_redirect_git() -> None:
    hostile = {
        "GIT_DIR": "/x",
        "GIT_EXEC_PATH": "/x",
        "GIT_TRACE": "1",
        "GIT_CONFIG_PARAMETERS": "x",
    }
    assert not hostile.keys() & child_environment(hostile).keys()


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (401, "the repository does not exist or needs credentials git can find"),
        (403, "the repository does not exist or needs credentials git can find"),
        (500, None),
    ],
)
def test_refusal_and_outage_leave_the_question_open(
    tmp_path: Path, status: int, hint: str | None
) -> None:
    def handle(*_: object) -> Answer:
        return status, {"WWW-Authenticate": "Basic"} if status == 401 else {}, b""

    with serving(handle, tmp_path) as server:
        error = failure(f"git::user:secret@{server.host}/r", tmp_path, server.environment)
    assert isinstance(error, SourceUnavailable)
    assert error.exit_status == 3
    assert error.hint == hint
    assert "secret" not in error.message
    assert server.host in error.message


def test_an_outage_that_passes_is_waited_out(upstream: Path, tmp_path: Path) -> None:
    backend = git_backend(tmp_path / "root")
    answers = iter([503, 503])

    def handle(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        status = next(answers, None)
        return (status, {}, b"") if status else backend(method, path, headers, body)

    with serving(handle, tmp_path) as server:
        found, _ = fetch(f"git::{server.host}/team/rules", tmp_path, server.environment)
    assert found == git(upstream, "rev-parse", "HEAD")


def test_a_server_that_is_down_is_an_outage(tmp_path: Path) -> None:
    with serving(lambda *_: (500, {}, b""), tmp_path) as server:
        pass
    error = failure(f"git::{server.host}/r", tmp_path)
    assert error.exit_status == 3
    assert error.message.startswith(
        f"error cloning repository: https://{server.host}/r.git: fatal: "
    )


def test_links_inside_the_repository_become_what_they_point_to(
    upstream: Path, tmp_path: Path
) -> None:
    commit(upstream, {"policy/link.txt": "-> ../top.txt", "policy/shared": "-> ../data"})
    _, out = fetch(f"git::{upstream}//policy", tmp_path)
    assert names(out) == ["a.rego", "link.txt", "shared/d.yml"]
    assert (out / "link.txt").read_text() == "top"
    assert not any(path.is_symlink() for path in out.rglob("*"))


def test_a_link_out_of_the_repository_is_refused(upstream: Path, tmp_path: Path) -> None:
    commit(upstream, {"policy/passwd.yaml": "-> /etc/passwd"})
    error = failure(f"git::{upstream}//policy", tmp_path)
    assert isinstance(error, UnsafeArchive)
    assert error.message == "passwd.yaml: symbolic link leads out of the source, to /etc/passwd"


def test_a_subdirectory_that_is_a_link_out_of_the_repository_is_refused(
    upstream: Path, tmp_path: Path
) -> None:
    commit(upstream, {"etc": "-> /etc"})
    error = failure(f"git::{upstream}//etc", tmp_path)
    assert error.message == "path etc does not exist in the repository"


def test_links_in_a_circle_are_refused(upstream: Path, tmp_path: Path) -> None:
    commit(upstream, {"policy/loop": "-> ../policy"})
    error = failure(f"git::{upstream}", tmp_path)
    assert "symbolic link leads in a circle" in error.message


def test_content_reaches_the_disk_as_it_was_committed(upstream: Path, tmp_path: Path) -> None:
    commit(upstream, {".gitattributes": "* text eol=crlf ident", "policy/x.rego": "a\n# $Id$\n"})
    _, out = fetch(f"git::{upstream}//policy", tmp_path)
    assert (out / "x.rego").read_bytes() == b"a\n# $Id$\n"


def test_an_empty_repository_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "-q", "--bare")
    error = failure(f"git::{tmp_path}/empty", tmp_path)
    assert error.message == f"error cloning repository: file://{tmp_path}/empty is empty"


def test_cancelling_ends_a_fetch_that_hangs(tmp_path: Path) -> None:
    def fetch(server: Service, cancellation: Cancellation) -> None:
        Git(cancellation, FAST, server.environment).fetch(
            f"git::{server.host}/r", tmp_path / "out", tmp_path / "scratch"
        )

    assert isinstance(cancelled_while_it_hangs(fetch, tmp_path), Interrupted)


def test_without_git_the_message_says_so(tmp_path: Path) -> None:
    error = failure("git::h/r", tmp_path, {"PATH": str(tmp_path)})
    assert error.message == "error cloning repository: git is not installed"
    assert error.exit_status == 3


@pytest.fixture
def history(upstream: Path, tmp_path: Path) -> tuple[Git, Path, dict[str, str]]:
    """A fetched history in which the last word about each file has another reason."""
    made = {"both": commit(upstream, {"t.yaml": "1", "gone.yaml": "1", "old.yaml": "same"})}
    made["more"] = commit(upstream, {"evil.yaml": "1", "kept.yaml": "1"})
    git(upstream, "checkout", "-q", "-b", "side")
    made["side"] = commit(upstream, {"side.yaml": "1"})
    git(upstream, "checkout", "-q", "main")
    made["second"] = commit(upstream, {"t.yaml": "2"})
    git(upstream, "merge", "-q", "--no-ff", "--no-commit", "side")
    (upstream / "evil.yaml").write_text("changed by the merge itself")
    git(upstream, "commit", "-q", "-a", "-m", "m")
    git(upstream, "checkout", "-q", "-b", "thrown-away")
    commit(upstream, {"kept.yaml": "2"})
    git(upstream, "checkout", "-q", "main")
    git(upstream, "merge", "-q", "-s", "ours", "-m", "m", "thrown-away")
    git(upstream, "mv", "old.yaml", "new.yaml")
    git(upstream, "rm", "-q", "gone.yaml")
    made["moved"] = commit(upstream, {})
    made["empty"] = commit(upstream, {})
    fetcher, place = Git(Cancellation(), FAST), tmp_path / "history"
    fetcher.fetch_history(f"file://{upstream}", place)
    return fetcher, place, made


@pytest.mark.parametrize(
    ("path", "changed_in"),
    [
        ("t.yaml", "second"),
        ("side.yaml", "side"),
        ("new.yaml", "moved"),
        ("old.yaml", "both"),
        ("gone.yaml", "both"),
        ("evil.yaml", "more"),
        ("kept.yaml", "more"),
        ("never.yaml", None),
        ("policy", None),
        ("*.yaml", None),
    ],
)
def test_the_last_change_of_a_file_is_the_commit_that_made_it_what_it_is(
    history: tuple[Git, Path, dict[str, str]], path: str, changed_in: str | None
) -> None:
    fetcher, place, made = history
    assert fetcher.last_change(place, path) == (changed_in and made[changed_in])


def test_a_history_comes_from_a_server_without_contents(
    server: Service, upstream: Path, tmp_path: Path
) -> None:
    git(upstream, "config", "uploadpack.allowFilter", "true")
    fetcher, place = Git(Cancellation(), FAST, server.environment), tmp_path / "history"
    fetcher.fetch_history(f"https://{server.host}/team/rules.git", place)
    asked = len(server.log)
    assert fetcher.last_change(place, "top.txt") == git(upstream, "rev-parse", "main")
    assert len(server.log) == asked, "contents were fetched one by one"
    kinds = git(place, "cat-file", "--batch-all-objects", "--batch-check=%(objecttype)")
    assert set(kinds.split()) == {"commit", "tree"}
