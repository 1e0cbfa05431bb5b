"""``conforma track bundle``: which versions of Tekton tasks are trusted, and until when."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, Protocol

import click
from msgspec import Struct

from conforma.cli.command import Flag, GoCommand, LazyGroup, refuse_words
from conforma.cli.gotypes import GoBool, GoInt, GoList
from conforma.cli.options import Globals
from conforma.errors import BadReference, InputError

if TYPE_CHECKING:
    from conforma.cancellation import Cancellation
    from conforma.oci.reference import Reference
    from conforma.oci.registry import Registry

_IN_EFFECT_DAYS: Final = 60
_OCI: Final = ("oci://", "oci::", "oci:")
_TITLE: Final = "data/data/trusted_tekton_tasks.yml"

command = LazyGroup(
    name="track",
    help="Record which Tekton tasks are trusted.",
    commands_at={
        "bundle": ("conforma.cli.track:bundle", "Record versions of Tekton tasks"),
        "tekton-task": ("conforma.cli.track:bundle", "The same as bundle"),
    },
)


@click.command(
    cls=GoCommand,
    name="bundle",
    params=[
        Flag(
            ["--bundle", "-b", "bundles"],
            type=GoList(),
            default=(),
            help="Tekton bundle to record: REGISTRY/REPOSITORY:TAG, @DIGEST or both; repeatable.",
        ),
        Flag(
            ["--git", "-g", "files"],
            type=GoList(),
            default=(),
            help="Task in a git repository to record: git+URL//PATH@REVISION; repeatable.",
        ),
        Flag(
            ["--input", "-i", "source"],
            default="",
            help="Document to add to: a file, or oci:REFERENCE for a data image.",
        ),
        Flag(
            ["--output", "-o"],
            default="",
            help="Where the document goes: a file or oci:REFERENCE; stdout unless given.",
        ),
        Flag(["--replace", "-r"], type=GoBool(), help="Write the document back to --input, too."),
        Flag(
            ["--prune", "-p"],
            type=GoBool(),
            default=True,
            help="Remove versions that have expired.",
        ),
        Flag(
            ["--freshen"],
            type=GoBool(),
            help="Look for newer versions of everything in --input: what its tags mean now, and "
            "the last change of its files. --git may then lack @REVISION.",
        ),
        Flag(
            ["--in-effect-days"],
            type=GoInt(),
            default=_IN_EFFECT_DAYS,
            help="How long a version stays trusted once there is a newer one.",
        ),
    ],
    help="Record versions of Tekton tasks as trusted, in the document (trusted_tasks) that rules "
    "about tasks read. The newest version of a bundle's tag or of a file has no expiry; those "
    "before it get one. Bundles of pipelines alone are not recorded.\n\n"
    "A document is replaced when all of it is written, and not at all if anything fails. What else "
    "it holds stays.\n\n"
    "Exit status: 0 done, 1 unusable input, 3 a registry or repository did not answer, "
    "130 interrupted.\n\n"
    "Examples:\n\n"
    "  conforma track bundle --bundle quay.io/org/tasks:1.0 --output trusted.yaml\n\n"
    "  conforma track bundle --input oci:quay.io/org/trusted:latest --freshen --replace\n\n"
    "  conforma track bundle -i trusted.yaml -r --git "
    "git+https://github.com/org/tasks//build/0.1/build.yaml@f0cacc1a",
)
@click.pass_context
def bundle(ctx: click.Context, /, **flags: Any) -> None:
    """Read the document, add what there is now, and write it."""
    from conforma.cli import logs
    from conforma.cli.network import tell_totals
    from conforma.cli.signals import run_until_told
    from conforma.cli.wiring import open_registry

    settings = Globals(**ctx.obj)
    logs.start_as(settings)
    refuse_words(ctx)
    order = _Order(**flags)
    if not (order.bundles or order.files or order.source):
        raise InputError(
            "at least one of the flags in the group [bundle git input] is required",
            hint=f"Run '{ctx.command_path} --help' for usage.",
        )
    with (
        run_until_told(settings.timeout) as cancellation,
        open_registry(settings, cancellation) as registry,
    ):
        source = _place(order.source, registry) if order.source else None
        destination = _place(order.output, registry) if order.output else None
        before = source.read() if source is not None else b""
        data = _tracked(order, before, settings, registry, cancellation)
        if destination is not None:
            destination.write(data)
        else:
            sys.stdout.buffer.write(data)
        if source is not None and order.replace and source != destination:
            if source.read() not in (before, data):
                raise InputError(
                    f"{order.source}: changed by somebody else meanwhile, and left as it is",
                    hint="run the command again",
                )
            source.write(data)
        tell_totals(registry)


class _Order(Struct, frozen=True):
    """The flags."""

    bundles: tuple[str, ...]
    files: tuple[str, ...]
    source: str
    output: str
    replace: bool
    prune: bool
    freshen: bool
    in_effect_days: int


def _tracked(
    order: _Order,
    before: bytes,
    settings: Globals,
    registry: Registry,
    cancellation: Cancellation,
) -> bytes:
    """The document after what is asked for."""
    from datetime import UTC, datetime

    from conforma.cli.network import retry_policy
    from conforma.policy.git import Git
    from conforma.policy.source import Sources
    from conforma.policy.task_tracking import TaskTracker
    from conforma.policy.trusted_tasks import TrustedTasks

    document = TrustedTasks.parse(before, order.source)
    # Wrong days are told before anything is asked of a registry.
    now = datetime.now(UTC)
    document.settled(now, prune=order.prune, in_effect_days=order.in_effect_days)
    retry = retry_policy(settings)
    with Sources(lambda: registry, cancellation, retry=retry) as sources:
        tracker = TaskTracker(registry, Git(cancellation, retry), sources.new_directory)
        additions = tracker.find(
            (*order.bundles, *order.files), document.groups, freshen=order.freshen
        )
    return (
        document.with_new(additions)
        .settled(now, prune=order.prune, in_effect_days=order.in_effect_days)
        .render()
    )


class _Place(Protocol):
    """Where a document is."""

    def read(self) -> bytes:
        """What is there now."""

    def write(self, data: bytes) -> None:
        """``data`` is there, or what was there before."""


class _File(Struct, frozen=True):
    path: str

    def read(self) -> bytes:
        try:
            with open(self.path, "rb") as file:  # noqa: PTH123 - pathlib is not loaded yet
                return file.read()
        except OSError as cause:
            raise InputError(f"open {self.path}: {(cause.strerror or '').lower()}") from cause

    def write(self, data: bytes) -> None:
        from conforma.report.targets import write_file

        write_file(self.path, data)


class _Image(Struct, frozen=True):
    reference: Reference
    registry: Registry

    def read(self) -> bytes:
        from conforma.policy.data_image import pull

        return pull(self.registry, self.reference)

    def write(self, data: bytes) -> None:
        from conforma.policy.data_image import push

        push(self.registry, self.reference, data, title=_TITLE, created_by=" ".join(sys.argv))


def _place(text: str, registry: Registry) -> _Place:
    """The place a flag names. Raises ``BadReference``."""
    prefix = next((prefix for prefix in _OCI if text.startswith(prefix)), "")
    if not prefix:
        return _File(text)
    from conforma.oci.reference import Reference

    reference = Reference.parse(text.removeprefix(prefix))
    if reference.is_layout:
        raise BadReference(f"{text}: a document is in a file or a registry, not in a layout")
    return _Image(reference, registry)
