"""What ``conforma mirror`` does: find out, plan, look, move, prove, sum up."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from conforma.cancellation import Cancellation
from conforma.cli import logs
from conforma.cli.mirror_progress import shown
from conforma.cli.mirror_summary import print_plan, print_summary, what_is_missing
from conforma.cli.network import registry_options
from conforma.cli.options import Globals
from conforma.cli.signals import run_until_told
from conforma.cli.wiring import retry_policy
from conforma.errors import ConformaError, InputError
from conforma.mirror import sources as policy_sources
from conforma.mirror.archive_writer import ArchiveDestination
from conforma.mirror.destination import Destination, RegistryDestination
from conforma.mirror.inventory import Inventory, Root, Wish, parse_platform
from conforma.mirror.layout_writer import DirectoryDestination
from conforma.mirror.look import look
from conforma.mirror.names import Names, Prefix, Rule
from conforma.mirror.plan import Planner
from conforma.mirror.run import Run
from conforma.mirror.staging import Staging
from conforma.mirror.tally import Tally
from conforma.mirror.verification import Proof, verify
from conforma.oci.layout import Layout
from conforma.oci.places import Places
from conforma.oci.reference import Reference
from conforma.oci.registry import Registry
from conforma.policy.kube import Kubernetes
from conforma.policy.locate import load_policy
from conforma.policy.source import Sources
from conforma.validate import snapshot

_PROGRESS: Final = ("auto", "plain", "json", "none")
_OUTPUTS: Final = ("text", "json")
_MOST_PARALLEL: Final = 256


class MirrorOptions(Struct, frozen=True):
    """The flags of ``conforma mirror``."""

    image: tuple[str, ...]
    images: str
    source: str
    policy: str
    to: str
    rewrite: tuple[str, ...]
    platform: tuple[str, ...]
    related: bool
    parallel: int
    dry_run: bool
    verify: bool
    fail_fast: bool
    progress: str
    output: str


def run(options: MirrorOptions, settings: Globals, *, limited: bool) -> int:
    """Mirror and print the summary; returns 0.

    Raises one error for everything that is not where it should be.
    """
    logs.start_as(settings)
    _check(options)
    with ExitStack() as stack:
        cancellation = stack.enter_context(run_until_told(settings.timeout if limited else None))
        return _Mirror(options, settings, cancellation, stack).go()


class _Mirror:
    """One run of the command."""

    def __init__(
        self,
        options: MirrorOptions,
        settings: Globals,
        cancellation: Cancellation,
        stack: ExitStack,
    ) -> None:
        self._options = options
        self._settings = settings
        self._cancellation = cancellation
        self._stack = stack
        self._registry = self._client()

    def go(self) -> int:
        """Raises what :func:`run` raises."""
        options, started = self._options, time.monotonic()
        names = self._names()
        destination, staging = self._destination()
        roots = self._roots()
        plan = Planner(names, destination.shape).plan(roots)
        look(plan, destination, self._cancellation)
        tally = Tally(plan)
        if options.dry_run:
            print_plan(tally, options.output)
            return 0
        with shown(tally, options.progress, quiet=self._settings.quiet) as listener:
            tally.listen(listener)
            Run(
                tally,
                self._registry,
                destination,
                staging,
                self._cancellation,
                at_once=options.parallel,
                fail_fast=options.fail_fast,
            ).go()
            destination.finish()
        proof = None
        if options.verify and tally.totals().complete:
            proof = verify(plan, self._reader(), self._cancellation, workers=options.parallel)
        print_summary(tally, proof, time.monotonic() - started, options.output)
        self._raise_unless_complete(tally, proof)
        return 0

    def _client(self, mirrors: tuple[str, ...] = (), *, offline: bool = False) -> Registry:
        options = replace(
            registry_options(self._settings, offline=offline),
            bulk_transfers=self._options.parallel,
        )
        return self._stack.enter_context(Places(options, self._cancellation, mirrors))

    def _reader(self) -> Registry:
        """A client that has not seen anything yet, so that it reads what is really there."""
        to = self._options.to
        return self._client((to,), offline=True) if _is_layout(to) else self._client()

    def _names(self) -> Names:
        to = self._options.to
        rules = tuple(Rule.parse(text) for text in self._options.rewrite)
        return Names(rules, None if _is_layout(to) else Prefix.parse(to))

    def _destination(self) -> tuple[Destination, Staging]:
        scheme, _, place = self._options.to.partition(":")
        parallel = self._options.parallel
        if not _is_layout(self._options.to):
            return RegistryDestination(self._registry, parallel), self._staging(None)
        path = Path(place)
        if scheme == "oci":
            directory = DirectoryDestination(path, self._cancellation, parallel)
            self._stack.callback(directory.close)
            return directory, self._staging(path)
        return ArchiveDestination(path, self._cancellation), self._staging(path.parent)

    def _staging(self, directory: Path | None) -> Staging:
        return Staging(directory, self._cancellation)

    def _roots(self) -> tuple[Root, ...]:
        options = self._options
        wanted = [(text, Reference.parse(text)) for text in options.image]
        if options.images:
            found = snapshot.check(snapshot.from_path_or_text(options.images))
            wanted += [
                (component.name or component.container_image,
                 Reference.parse(component.container_image))
                for component in found.components
            ]  # fmt: skip
        if options.source:
            wanted += _everything_in(options.source)
        packed: tuple[Root, ...] = ()
        if options.policy:
            sources = self._stack.enter_context(
                Sources(
                    lambda: self._registry,
                    self._cancellation,
                    retry=retry_policy(self._settings),
                )
            )
            urls = self._policy_urls(sources)
            wanted += policy_sources.images_among(urls)
            packed = policy_sources.packed(urls, sources)
        wish = Wish(tuple(parse_platform(text) for text in options.platform), options.related)
        taken = Inventory(self._registry, wish, self._cancellation).take(wanted)
        return taken + packed

    def _policy_urls(self, sources: Sources) -> list[str]:
        """The sources of the configuration, and the one it comes from itself, if it does."""
        config = load_policy(self._options.policy, sources, Kubernetes(self._settings.kubeconfig))
        return list(dict.fromkeys((*sources.fetched, *config.urls)))

    def _raise_unless_complete(self, tally: Tally, proof: Proof | None) -> None:
        error = what_is_missing(tally)
        if error is not None:
            raise error
        self._cancellation.raise_if_cancelled()
        if proof is not None and proof.problems:
            failure = ConformaError("the mirror is not whole:\n" + "\n".join(proof.problems))
            failure.exit_status = 3
            raise failure


def _everything_in(place: str) -> list[tuple[str, Reference]]:
    """The images of a layout; what is attached to them comes with them."""
    layout = Layout.open(place)
    found = []
    for entry in layout.entries:
        if not layout.is_attached(entry):
            digest = None if entry.tag else entry.descriptor.digest
            reference = Reference(place, entry.repository, entry.tag or None, digest)
            found.append((str(reference).removeprefix(f"{place}:"), reference))
    return found


def _is_layout(text: str) -> bool:
    return text.startswith(("oci:", "oci-archive:"))


def _check(options: MirrorOptions) -> None:
    if not (options.image or options.images or options.source or options.policy):
        raise InputError(
            "nothing to mirror", hint="name it with --image, --images, --from or --policy"
        )
    if not options.to:
        raise InputError("no destination", hint="name it with --to")
    if options.progress not in _PROGRESS:
        raise InputError(f"--progress: {options.progress!r} is none of {', '.join(_PROGRESS)}")
    if options.output not in _OUTPUTS:
        raise InputError(f"--output: {options.output!r} is none of {', '.join(_OUTPUTS)}")
    if not 1 <= options.parallel <= _MOST_PARALLEL:
        raise InputError(f"--parallel: {options.parallel} is not between 1 and {_MOST_PARALLEL}")
