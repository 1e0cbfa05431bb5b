"""What versions of Tekton tasks there are now, asked of registries and git repositories."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from conforma.errors import InputError, NotFound
from conforma.gotext import quoted
from conforma.oci.manifest import Index
from conforma.oci.reference import Reference
from conforma.policy.git import Git
from conforma.policy.source_url import refuse_insecure
from conforma.policy.task_references import GIT, OCI, TaskBundle, TaskFile, bundles_named
from conforma.policy.trusted_tasks import Addition

if TYPE_CHECKING:
    from conforma.oci.registry import Registry

log = logging.getLogger(__name__)

_KIND: Final = "dev.tekton.image.kind"
_AT_ONCE: Final = 8


class TaskTracker:
    """Finds versions for one run. Not thread safe."""

    def __init__(self, registry: Registry, git: Git, new_directory: Callable[[], Path]) -> None:
        """``new_directory`` makes empty directories that somebody else removes."""
        self._registry = registry
        self._git = git
        self._new_directory = new_directory
        self._histories: dict[str, Path] = {}

    def find(
        self, references: Sequence[str], groups: Iterable[str], *, freshen: bool
    ) -> list[Addition]:
        """The versions that ``references`` name, bundles first, in their order.

        With ``freshen`` also the newest of each of the ``groups``, and of files
        without a revision. Raises ``InputError`` for what is no reference, not
        there or no bundle, ``PolicyError`` and ``RegistryError`` for what
        could not be learnt. Bad references are told before anything is asked.
        """
        older = sorted(groups) if freshen else []
        bundles = bundles_named(text for text in references if not text.startswith(GIT))
        files = [
            TaskFile.parse(text, newest=freshen) for text in references if text.startswith(GIT)
        ]
        for group in older:
            if group.startswith(GIT):
                files.append(TaskFile.parse(group, newest=True))
            elif group.startswith(OCI) and (bundle := TaskBundle.of_group(group)) is not None:
                bundles.append(bundle)
        return [*self._in_bundles(bundles), *(self._in_git(file) for file in files)]

    def _in_bundles(self, bundles: Sequence[TaskBundle]) -> list[Addition]:
        self._registry.expect(bundle.reference for bundle in bundles)
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="bundle") as pool:
            futures = [pool.submit(self._in_bundle, bundle) for bundle in bundles]
            try:
                found = [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [addition for addition in found if addition is not None]

    def _in_bundle(self, bundle: TaskBundle) -> Addition | None:
        """The bundle's version if there is a task in it; pipelines need no trust."""
        try:
            pinned = self._registry.resolve(bundle.reference)
            kinds = self._kinds(pinned)
        except NotFound as cause:
            raise InputError(f"{bundle.reference}: {cause.message}", hint=cause.hint) from cause
        if not kinds:
            raise InputError(
                f"{bundle.reference}: the image is no Tekton bundle",
                hint=f"layers of a bundle have the annotation {_KIND}; tkn bundle push makes them",
            )
        if "task" not in kinds:
            log.info("%s holds no task and is not recorded", bundle.reference)
            return None
        return Addition(bundle.group, str(pinned.digest))

    def _kinds(self, pinned: Reference) -> set[str]:
        """The kinds of objects in a bundle."""
        manifest = self._registry.manifest(pinned)
        if isinstance(manifest, Index):
            child = manifest.for_platform()
            if child is None:
                return set()
            manifest = self._registry.manifest(pinned.pinned(child.digest))
        if isinstance(manifest, Index):
            return set()
        return {layer.annotations[_KIND] for layer in manifest.layers if _KIND in layer.annotations}

    def _in_git(self, file: TaskFile) -> Addition:
        if file.revision:
            return Addition(file.group, file.revision)
        commit = None
        if file.stays_inside:
            commit = self._git.last_change(self._history(file.url), file.path)
        if commit is None:
            raise InputError(
                f"unable to find any commits for path: {quoted(file.path)}",
                hint=f"the default branch of {file.url} has had no such file",
            )
        return Addition(file.group, commit)

    def _history(self, url: str) -> Path:
        """The history of a repository, fetched once."""
        if url not in self._histories:
            refuse_insecure(url)
            place = self._new_directory() / "git"
            self._git.fetch_history(url, place)
            self._histories[url] = place
        return self._histories[url]
