"""``conforma cache prefetch|export|import``: layers on their way to a cache and from one to another."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from conforma.cli.cache_command import JSON, cache_command, opened
from conforma.cli.command import Flag, refuse_words
from conforma.cli.gotypes import GoInt
from conforma.cli.options import Globals
from conforma.errors import ConformaError, InputError
from conforma.report.numbers import binary_size, counted

if TYPE_CHECKING:
    from conforma.cancellation import Cancellation
    from conforma.mirror.cache_export import Export, Exported
    from conforma.mirror.cache_parts import Watch
    from conforma.mirror.destination import Destination
    from conforma.validate.snapshot import Component

_IMAGES: Final = Flag(["--images"], default="", help="A snapshot: path or content in JSON or YAML.")
_SAY_EVERY: Final = 1.0  # seconds
_SCHEMES: Final = ("oci:", "oci-archive:")


@cache_command(
    "prefetch",
    "Bring in and index the layers of images, so that validating them needs no download.\n\n"
    "What cannot be fetched is told, and hides nothing else. Exit status: 0 everything is here, "
    "1 unusable input, 3 something could not be fetched.",
    _IMAGES,
    Flag(["--workers"], type=GoInt(), default=4, help="Images at the same time."),
)
@click.pass_context
def prefetch(ctx: click.Context, /, **flags: Any) -> None:
    """Read every layer's table once."""
    from conforma.cache.images import ImageReader
    from conforma.cli.outcome import together
    from conforma.cli.wiring import open_registry
    from conforma.oci.reference import Reference
    from conforma.validate.pool import in_parallel

    refuse_words(ctx)
    if flags["workers"] < 1:
        raise InputError("--workers must be at least 1")
    components = _components(flags["images"])
    settings = Globals(**ctx.obj)
    with (
        opened(ctx, flags, writing=True, filling=True) as (cache, cancellation),
        ExitStack() as stack,
    ):
        registry = stack.enter_context(open_registry(settings, cancellation, content=cache.content))
        images = ImageReader(registry, cache)

        def bring(image: str) -> None:
            reference = registry.resolve(Reference.parse(image))
            layers = sum(
                images.prefetch(one, cancellation)
                for one in images.children(reference) or (reference,)
            )
            _say(settings, f"{image}: {counted(layers, 'layer')}")

        answers = in_parallel(
            list(dict.fromkeys(c.container_image for c in components)),
            bring,
            workers=flags["workers"],
            cancellation=cancellation,
        )
        stats = cache.stats
    click.echo(
        f"fetched {binary_size(stats.network_bytes)}; already there: {binary_size(stats.saved_bytes)}"
    )
    errors = [answer for answer in answers if isinstance(answer, ConformaError)]
    _raise_the_unexpected(answers)
    if errors:
        raise together(errors)


@cache_command(
    "export",
    "Write blobs of the cache into an OCI image layout, for a machine that cannot fetch them: "
    "those of the images of a snapshot, those with the given digests (of a manifest, all that "
    "belongs to it), or all. DESTINATION is a directory, or a tar archive if it ends in .tar; "
    "oci:DIRECTORY and oci-archive:FILE say which. What is there already is not written again.\n\n"
    "Nothing is fetched: bring images in with 'conforma cache prefetch'. Only a tag of a snapshot "
    "is looked up in its registry. Exit status: 0 everything is there, 1 something is missing from "
    "the cache, or was bad and is quarantined, 3 the destination cannot be written or a registry "
    "not be asked.",
    _IMAGES,
    JSON,
    words="[DIGEST...] DESTINATION",
)
@click.pass_context
def export_to(ctx: click.Context, /, **flags: Any) -> int:
    """Write, print what was done, and return the exit status."""
    from conforma.mirror.cache_export import Export
    from conforma.oci.digest import Digest

    if not ctx.args:
        raise InputError("no destination", hint="name a directory, or a file that ends in .tar")
    *words, place = ctx.args
    digests = [Digest.parse(word) for word in words]
    if digests and flags["images"]:
        raise InputError("both --images and digests were given", hint="name one or the other")
    components = _components(flags["images"]) if flags["images"] else ()
    settings = Globals(**ctx.obj)
    errors: list[ConformaError] = []
    with opened(ctx, flags) as (cache, cancellation), ExitStack() as stack:
        export = Export(cache.upkeep(), _destination(place, cancellation, stack))
        for digest in digests:
            export.want_digest(digest)
        if components:
            errors = _want_images(export, components, settings, cancellation)
        elif not digests:
            export.want_everything()
        done = export.run(cancellation, _progress(settings, "exported"))
    _print_exported(place, done, as_json=flags["as_json"])
    if errors:
        from conforma.cli.outcome import together

        raise together(errors)
    return 1 if done.missing or done.bad else 0


@cache_command(
    "import",
    "Take the blobs of an OCI image layout into the cache: of a directory or a tar archive, as "
    "'conforma cache export', 'conforma mirror' and others write them. Every blob is hashed; one "
    "that is not what its name says is named and left out, and the others are taken all the same. "
    "Layers of images are unpacked and listed at once.\n\n"
    "Exit status: 0 everything is in the cache, 1 unusable input or something was bad, 3 the cache "
    "cannot take it.",
    JSON,
    words="SOURCE",
)
@click.pass_context
def import_from(ctx: click.Context, /, **flags: Any) -> int:
    """Take in, print what was done, and return the exit status."""
    from conforma import gojson
    from conforma.mirror.cache_import import Import
    from conforma.oci.layout import Layout

    if len(ctx.args) != 1:
        raise InputError("import takes one image layout", hint="name a directory or a tar archive")
    (place,) = ctx.args
    known = place if place.startswith(_SCHEMES) else _existing(place)
    layout = Layout.open(known)
    settings = Globals(**ctx.obj)
    choices = {"strict": True, "counted": False}
    with opened(ctx, flags, writing=True, filling=True, **choices) as (cache, cancellation):
        done = Import(cache, layout).run(cancellation, _progress(settings, "imported"))
    if flags["as_json"]:
        document = {
            "source": place,
            "blobs": done.blobs,
            "bytes": done.bytes,
            "present": done.present,
            "layers": done.layers,
            "bad": sorted(done.bad),
        }
        click.echo(gojson.dumps(document))
    else:
        for text in sorted(done.bad):
            click.echo(f"bad, left out: {text}")
        click.echo(
            f"{counted(done.blobs, 'blob')}, {binary_size(done.bytes)}, imported; "
            f"already there: {done.present}; "
            f"{counted(done.layers, 'layer is', 'layers are')} ready; {len(done.bad)} bad"
        )
    return 1 if done.bad else 0


def _want_images(
    export: Export,
    components: Sequence[Component],
    settings: Globals,
    cancellation: Cancellation,
) -> list[ConformaError]:
    """Add the images of a snapshot; what could not be found out about tags is returned."""
    from conforma.cli.wiring import open_registry
    from conforma.oci.reference import Reference

    errors: list[ConformaError] = []
    with open_registry(settings, cancellation) as registry:
        for image in dict.fromkeys(component.container_image for component in components):
            name = Reference.parse(image)
            try:
                digest = registry.resolve(name).digest
            except ConformaError as error:
                errors.append(error)
                continue
            assert digest is not None
            export.want_image(digest, name)
    return errors


def _components(images: str) -> tuple[Component, ...]:
    from conforma.validate import snapshot

    if not images:
        raise InputError("--images is missing", hint="name a snapshot")
    return tuple(snapshot.check(snapshot.from_path_or_text(images)).components)


def _destination(place: str, cancellation: Cancellation, stack: ExitStack) -> Destination:
    """Raises ``InputError`` for a place that holds something else, ``DestinationUnusable``."""
    from conforma.mirror.archive_writer import ArchiveDestination
    from conforma.mirror.layout_writer import DirectoryDestination

    scheme, _, path = place.partition(":") if place.startswith(_SCHEMES) else ("", "", place)
    if scheme == "oci-archive" or (not scheme and place.endswith(".tar")):
        return ArchiveDestination(Path(path), cancellation)
    directory = DirectoryDestination(Path(path), cancellation, at_once=4)
    stack.callback(directory.close)
    return directory


def _existing(place: str) -> str:
    return f"{'oci' if Path(place).is_dir() else 'oci-archive'}:{place}"


def _print_exported(place: str, done: Exported, *, as_json: bool) -> None:
    from conforma import gojson

    missing, bad = sorted(done.missing), sorted(done.bad)
    if as_json:
        document = {
            "destination": place,
            "blobs": done.blobs,
            "bytes": done.bytes,
            "present": done.present,
            "images": done.images,
            "missing": missing,
            "bad": bad,
        }
        click.echo(gojson.dumps(document))
        return
    for text in missing:
        click.echo(f"not in the cache: {text}")
    for text in bad:
        click.echo(f"bad, left out: {text}")
    click.echo(
        f"{counted(done.blobs, 'blob')}, {binary_size(done.bytes)}, exported; "
        f"already there: {done.present}; "
        f"{counted(done.images, 'image is', 'images are')} complete; "
        f"{len(missing)} missing, {len(bad)} bad"
    )


def _progress(settings: Globals, what: str) -> Watch:
    """A line on stderr now and then."""
    said = time.monotonic()

    def watch(done: int, of: int, moved: int) -> None:
        nonlocal said
        if time.monotonic() - said >= _SAY_EVERY:
            said = time.monotonic()
            _say(settings, f"{what} {done} of {counted(of, 'blob')}, {binary_size(moved)}")

    return watch


def _say(settings: Globals, text: str) -> None:
    if not settings.quiet:
        click.echo(text, file=sys.stderr)


def _raise_the_unexpected(answers: Sequence[object]) -> None:
    """Raise what is no explainable error, or ends the run."""
    from conforma.errors import Interrupted

    for answer in answers:
        if isinstance(answer, Exception) and (
            isinstance(answer, Interrupted) or not isinstance(answer, ConformaError)
        ):
            raise answer
