"""Git repositories as sources: the tree of one commit, and that commit's name.

Git itself does the work. What it fetches is untrusted: references cannot become
options, and links that leave the repository are refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from conforma.cancellation import Cancellation
from conforma.errors import PolicyError, SourceUnavailable
from conforma.oci.retry import RetryPolicy
from conforma.policy.files import TreeCopy
from conforma.policy.git_program import GitProgram
from conforma.policy.git_url import Repository
from conforma.policy.source_url import without_secrets

_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ABBREVIATED: Final = re.compile(r"[0-9a-f]{4,64}")
_ABSENT: Final = re.compile(
    r"not found|does not exist|does not appear to be a git repository|No such file", re.IGNORECASE
)
_DENIED: Final = re.compile(
    r"could not read (?:Username|Password)|Authentication failed|terminal prompts disabled"
    r"|Permission denied|error: 40[13]|invalid credentials",
    re.IGNORECASE,
)
_UNTRUSTED: Final = re.compile(r"certificate|SSL|TLS", re.IGNORECASE)
_UNADVERTISED: Final = re.compile(r"not our ref|unadvertised object")
_TRANSIENT: Final = re.compile(
    r"error: (?:408|429|5\d\d)|timed out|Connection (?:refused|reset)|Empty reply|early EOF"
    r"|unexpected disconnect|Could not resolve host|Failed to connect|Recv failure",
    re.IGNORECASE,
)


class Git:
    """Fetches repositories. Thread safe."""

    def __init__(
        self,
        cancellation: Cancellation,
        retry: RetryPolicy | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._cancellation = cancellation
        self._retry = retry or RetryPolicy()
        self._git = GitProgram(cancellation, os.environ if environment is None else environment)

    def fetch(self, source: str, destination: Path, scratch: Path) -> str:
        """Put the tree that ``source`` names into ``destination``; returns its commit.

        ``scratch`` is a directory that does not exist yet, on the same file
        system; the caller removes it. Raises ``PolicyError`` for what the
        server says is not there, ``UnsafeArchive`` for links that leave the
        repository, ``SourceUnavailable`` if the server could not be asked.
        """
        wanted = Repository.parse(source)
        git_dir, tree = scratch / "git", scratch / "tree"
        tree.mkdir(parents=True)
        self._init(git_dir)
        # This file outranks .gitattributes, which could otherwise have content
        # rewritten on its way to the disk.
        (git_dir / "info").mkdir(exist_ok=True)
        (git_dir / "info" / "attributes").write_text(
            "* -text -eol -crlf -filter -ident -working-tree-encoding\n", encoding="ascii"
        )
        commit = self._commit(wanted, git_dir)
        self._run(["checkout", "--quiet", "--force", commit, "--", "."], git_dir, tree)
        chosen = tree / wanted.subdirectory
        if not chosen.is_dir() or not chosen.resolve().is_relative_to(tree.resolve()):
            raise PolicyError(
                f"path {wanted.subdirectory} does not exist in the repository",
                hint=f"{without_secrets(source)} was read at commit {commit}",
            )
        TreeCopy(self._cancellation, inside=tree).run(chosen, destination)
        return commit

    def fetch_history(self, url: str, git_dir: Path) -> None:
        """Put the history of the default branch of ``url`` into the new directory ``git_dir``.

        File contents are left out where the server can do that. Raises
        ``PolicyError`` for what the server says is not there,
        ``SourceUnavailable`` if it could not be asked.
        """
        self._init(git_dir)
        command = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"]
        self._ask([*command, "--filter=blob:none", "--", url, "HEAD"], git_dir, Repository(url))

    def last_change(self, git_dir: Path, path: str) -> str | None:
        """The newest commit of a fetched history, merges aside, that gave the file its content.

        ``None`` if no commit did. Raises ``SourceUnavailable`` if git fails.
        """
        only = ["--max-count=1", "--format=%H", "--no-merges", "--no-renames", "--diff-filter=AMT"]
        place = ["--", f":(literal){path}"]
        commit = self._run(["log", *only, "FETCH_HEAD", *place], git_dir).strip()
        if not commit:
            return None
        entry = self._run(["ls-tree", "--full-tree", "-z", commit, *place], git_dir)
        mode_and_kind, _, name = entry.removesuffix("\0").partition("\t")
        return commit if name == path and " blob " in mode_and_kind else None

    def _init(self, git_dir: Path) -> None:
        self._run(["init", "--quiet", "--bare", "--template=", "--", str(git_dir)])

    def _commit(self, wanted: Repository, git_dir: Path) -> str:
        """Fetch what is wanted, as little as the server allows; returns the commit."""
        if _COMMIT.fullmatch(wanted.ref):
            return self._by_name(wanted, git_dir)
        listed = self._ask(["ls-remote", "--quiet", "--", wanted.url], git_dir, wanted)
        refs = {
            name: value for value, _, name in (li.partition("\t") for li in listed.splitlines())
        }
        if not refs:
            raise PolicyError(f"error cloning repository: {without_secrets(wanted.url)} is empty")
        ref = wanted.ref or "HEAD"
        # A short name is a tag before it is a branch.
        candidates = (f"refs/tags/{ref}", f"refs/heads/{ref}", ref)
        name = next((name for name in candidates if name in refs), None)
        if name is not None:
            self._fetch(wanted, git_dir, [name])
            return self._revision("FETCH_HEAD", git_dir, wanted)
        if not _ABBREVIATED.fullmatch(wanted.ref):
            raise _no_such_ref(wanted)
        return self._by_name(wanted, git_dir)

    def _by_name(self, wanted: Repository, git_dir: Path) -> str:
        if _COMMIT.fullmatch(wanted.ref):
            try:
                self._fetch(wanted, git_dir, [wanted.ref])
            except SourceUnavailable as cause:
                # Some servers hand out commits only by way of branches and tags.
                if not _UNADVERTISED.search(cause.message):
                    raise
            else:
                return self._revision(wanted.ref, git_dir, wanted)
        everything = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
        self._fetch(wanted, git_dir, everything, shallow=False)
        return self._revision(wanted.ref, git_dir, wanted)

    def _fetch(
        self, wanted: Repository, git_dir: Path, what: Sequence[str], *, shallow: bool = True
    ) -> None:
        command = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"]
        if shallow:
            try:
                self._ask([*command, "--depth=1", "--", wanted.url, *what], git_dir, wanted)
            except SourceUnavailable as cause:
                if "does not support shallow" not in cause.message:
                    raise
            else:
                return
        self._ask([*command, "--", wanted.url, *what], git_dir, wanted)

    def _revision(self, name: str, git_dir: Path, wanted: Repository) -> str:
        status, out, _ = self._git.run(
            ["rev-parse", "--quiet", "--verify", "--end-of-options", f"{name}^{{commit}}"], git_dir
        )
        if status != 0:
            raise _no_such_ref(wanted)
        return out.strip()

    def _ask(self, arguments: Sequence[str], git_dir: Path, wanted: Repository) -> str:
        """Run a command that talks to the server, again if the failure may pass."""
        failures = 0
        while True:
            status, out, error = self._git.run(arguments, git_dir)
            if status == 0:
                return out
            failures += 1
            transient = _TRANSIENT.search(error) is not None
            if not transient or failures >= self._retry.attempts(throttled="429" in error):
                raise _explained(error, wanted)
            self._cancellation.wait(self._retry.pause(failures))

    def _run(
        self, arguments: Sequence[str], git_dir: Path | None = None, tree: Path | None = None
    ) -> str:
        status, out, error = self._git.run(arguments, git_dir, tree)
        if status != 0:
            raise SourceUnavailable(f"error cloning repository: git {arguments[0]}: {_last(error)}")
        return out


def _no_such_ref(wanted: Repository) -> PolicyError:
    failed = "resolving ref" if _COMMIT.fullmatch(wanted.ref) else "cloning repository"
    return PolicyError(
        f"error {failed}: reference not found",
        hint=f"{without_secrets(wanted.url)} has no tag, branch or commit {wanted.ref!r}",
    )


def _explained(error: str, wanted: Repository) -> PolicyError:
    url = without_secrets(wanted.url)
    reason = _last(error).replace(wanted.url, url)
    message = f"error cloning repository: {url}: {reason}"
    if "find remote ref" in error:
        return _no_such_ref(wanted)
    if _DENIED.search(error):
        return SourceUnavailable(
            message, hint="the repository does not exist or needs credentials git can find"
        )
    if "Could not resolve host" in error:
        return SourceUnavailable(message, hint="check the host name and the network")
    if _ABSENT.search(error):
        return PolicyError(message, hint="check the address of the repository")
    if _UNTRUSTED.search(reason):
        return SourceUnavailable(
            message, hint="SSL_CERT_FILE names the certificate authorities to believe"
        )
    return SourceUnavailable(message)


def _last(error: str) -> str:
    """The line of git's complaint that says what is wrong."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines[-1:]
    text = "; ".join(dict.fromkeys(said)) or "no reason given"
    return "".join(char if char.isprintable() else "?" for char in without_secrets(text))[:500]
