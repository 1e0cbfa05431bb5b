"""References to Tekton tasks as people write them: bundles in registries, files in git.

The group of a reference is what the ``trusted_tasks`` document files its
versions under (section 19 of the specification of the other commands).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from conforma.errors import BadReference, InputError
from conforma.gotext import quoted
from conforma.oci.reference import DEFAULT_REGISTRY, Reference
from conforma.policy.source_url import without_secrets

GIT: Final = "git+"
OCI: Final = "oci://"
_EXAMPLE: Final = (
    "e.g. git+https://github.com/org/repository//task/0.1/task.yaml@f0cacc1a"  # output contract
)


class TaskBundle(Struct, frozen=True):
    """A Tekton bundle in a registry."""

    reference: Reference

    @classmethod
    def parse(cls, text: str) -> TaskBundle:
        """Read a reference in which nothing is left to defaults. Raises ``BadReference``.

        A rule compares the group with what a pipeline names, so it has to be
        the whole name.
        """
        reference = Reference.parse(text)
        written = text.partition("@")[0]
        if written.startswith("docker.io/"):
            written = f"{DEFAULT_REGISTRY}{written.removeprefix('docker.io')}"
        if reference.is_layout or written != _name(reference):
            raise BadReference(
                f"could not parse reference: {text}: registry, repository and a tag or digest "
                "must all be written out",
                hint="as in registry.example/tasks/build:1.0",
            )
        return cls(reference)

    @classmethod
    def of_group(cls, group: str) -> TaskBundle | None:
        """The tag that a group is about; ``None`` if it has none, so nothing can be newer.

        Raises ``BadReference``.
        """
        text = group.removeprefix(OCI)
        return cls.parse(text) if ":" in text.rpartition("/")[2] else None

    @property
    def group(self) -> str:
        """``oci://`` with repository and tag."""
        return f"{OCI}{_name(self.reference)}"


def bundles_named(texts: Iterable[str]) -> list[TaskBundle]:
    """The bundles in their order. Raises one ``BadReference`` with all texts that name none."""
    bundles: list[TaskBundle] = []
    errors: list[BadReference] = []
    for text in texts:
        try:
            bundles.append(TaskBundle.parse(text))
        except BadReference as error:
            errors.append(error)
    if errors:
        hints = dict.fromkeys(error.hint for error in errors if error.hint)
        raise BadReference(
            "\n".join(error.message for error in errors), hint="\n".join(hints) or None
        )
    return bundles


def _name(reference: Reference) -> str:
    tag = f":{reference.tag}" if reference.tag is not None else ""
    return f"{reference.repository_name}{tag}"


class TaskFile(Struct, frozen=True):
    """A file in a git repository; without a ``revision`` the newest is meant."""

    repository: str
    path: str
    revision: str = ""

    @classmethod
    def parse(cls, text: str, *, newest: bool) -> TaskFile:
        """Read ``git+URL//PATH[@REVISION]``; the revision may be left out if ``newest``.

        Raises ``InputError``, also for credentials: the reference is published.
        """
        repository, slashes, rest = text.rpartition("//")
        if not slashes or "//" not in repository:
            raise InputError(
                f"expected {quoted(without_secrets(text))} to contain the `//` to separate the repository from "
                f"the path, {_EXAMPLE}"
            )
        _refuse_credentials(repository)
        path, _, revision = rest.partition("@")
        if not revision and not newest:
            raise InputError(
                f"expected {quoted(text)} to contain the revision information following the `@`, "
                f"{_EXAMPLE}, to fetch the latest revision from a remote URL provide the "
                "--freshen parameter"
            )
        return cls(repository, path, revision)

    @property
    def group(self) -> str:
        """The reference without its revision."""
        return f"{self.repository}//{self.path}"

    @property
    def url(self) -> str:
        """What git calls the repository."""
        return self.repository.removeprefix(GIT)

    @property
    def stays_inside(self) -> bool:
        """Whether the path is one that a file of a repository can have."""
        path = PurePosixPath(self.path)
        return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _refuse_credentials(repository: str) -> None:
    try:
        parts = urlsplit(repository)
    except ValueError as cause:
        raise InputError(f"{without_secrets(repository)}: {cause}") from cause
    if parts.password or (parts.username and not parts.scheme.endswith("ssh")):
        raise InputError(
            f"{without_secrets(repository)}: the reference holds credentials, which everybody "
            "who reads the document would see",
            hint="leave them out; git finds them with its credential helpers",
        )
