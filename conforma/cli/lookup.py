"""``conforma lookup``: what image references mean in their registries, many at once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import click

from conforma.cli.command import Flag, GoCommand
from conforma.cli.gotypes import GoBool, GoInt, GoList
from conforma.cli.options import Globals, cache_choice
from conforma.errors import ConformaError, InputError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from conforma.cancellation import Cancellation
    from conforma.oci.lookup import Found
    from conforma.oci.reference import Reference
    from conforma.oci.registry import Registry

DEFAULT_WORKERS: Final = 16
# With --parallel: as many threads as sockets one registry should ever see from us.
_MOST_WORKERS: Final = 256
_LONGEST_LIST: Final = 64 << 20
_FORMATS: Final = ("text", "json", "table")


@click.command(
    cls=GoCommand,
    name="lookup",
    params=[
        Flag(
            ["--file", "-f"],
            default="",
            help="File with one reference per line; - is standard input. Empty lines and lines "
            "that begin with # are skipped.",
        ),
        Flag(["--output", "-o"], default="text", help="text, json or table."),
        Flag(
            ["--brief", "-b"],
            type=GoBool(),
            help="Digest, media type and size alone: one request for each reference.",
        ),
        Flag(
            ["--workers"],
            type=GoInt(),
            default=DEFAULT_WORKERS,
            help=f"References looked up at the same time, at most {_MOST_WORKERS}.",
        ),
        Flag(
            ["--parallel"],
            type=GoBool(),
            help=f"As many at the same time as possible, at most {_MOST_WORKERS}.",
        ),
        Flag(
            ["--mirror-from"],
            type=GoList(),
            default=(),
            help="Image layout that is asked before the registries; repeatable.",
        ),
        Flag(["--offline"], type=GoBool(), help="Use no network."),
        Flag(["--no-cache"], type=GoBool(), help="Use nothing that earlier runs have read."),
        Flag(["--cache-dir"], default="", help="Directory of the cache (EC_CACHE_DIR)."),
    ],
    options_metavar="[REF]... [OPTIONS]",
    help="Say what image references mean: digest, media type, platforms, size, annotations, and "
    "how many signatures, attestations and SBOMs are attached. Nothing is verified.\n\n"
    "References come as arguments, from --file, or, without either, from standard input. The "
    "answers have their order, and one that fails hides no other. What a registry refuses to "
    "show is missing or not permitted: registries do not tell which.\n\n"
    "Exit status: 0 all found, 1 something is missing or no reference, 3 something could not be "
    "learnt, 130 interrupted.\n\n"
    "Examples:\n\n"
    "  conforma lookup docker.io/library/debian:12 quay.io/org/app:v1\n\n"
    "  conforma lookup --brief --parallel --output json < references.txt",
)
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> int:
    """Look up, print, and return the exit status."""
    from contextlib import ExitStack

    from conforma.cli import logs
    from conforma.cli.network import tell_totals
    from conforma.cli.signals import run_until_told
    from conforma.cli.wiring import open_layers, open_registry

    settings = Globals(**ctx.obj)
    logs.start_as(settings)
    if flags["output"] not in _FORMATS:
        raise InputError(f"invalid --output: {flags['output']} (valid: {', '.join(_FORMATS)})")
    texts = _references(ctx.args, flags["file"])
    workers = _MOST_WORKERS if flags["parallel"] else flags["workers"]
    if not 1 <= workers <= _MOST_WORKERS:
        raise InputError(f"invalid --workers: {workers} (from 1 to {_MOST_WORKERS})")
    cache = cache_choice(no_cache=flags["no_cache"], cache_dir=flags["cache_dir"], cache_size="")
    with ExitStack() as stack:
        cancellation = stack.enter_context(run_until_told(settings.timeout))

        def content() -> Any:
            layers = open_layers(cache, cancellation)
            stack.enter_context(layers)
            return layers.content()

        registry = stack.enter_context(
            open_registry(
                settings,
                cancellation,
                mirrors=flags["mirror_from"],
                offline=flags["offline"],
                cache=cache,
                content=content,
                small_requests=workers,
            )
        )
        stack.callback(tell_totals, registry)
        return _run(
            texts,
            registry,
            cancellation,
            workers=workers,
            brief=flags["brief"],
            output=flags["output"],
        )


def _references(arguments: Sequence[str], file: str) -> list[str]:
    """What is to be looked up, in order. Raises ``InputError`` if that is nothing."""
    texts = [text for text in arguments if text != "-"]
    if file and file != "-":
        try:
            with open(file, "rb") as source:  # noqa: PTH123 - pathlib is not loaded yet
                texts.extend(_lines(source.read(_LONGEST_LIST)))
        except OSError as cause:
            raise InputError(f"--file: open {file}: {(cause.strerror or '').lower()}") from cause
    elif file == "-" or "-" in arguments or (not arguments and not sys.stdin.isatty()):
        texts.extend(_lines(sys.stdin.buffer.read(_LONGEST_LIST)))
    if not texts:
        raise InputError(
            "nothing to look up",
            hint="name references as arguments, in a --file, or on standard input",
        )
    return texts


def _lines(raw: bytes) -> Iterator[str]:
    for line in raw.decode("utf-8", "backslashreplace").splitlines():
        text = line.strip()
        if text and not text.startswith("#"):
            yield text


def _run(
    texts: Sequence[str],
    registry: Registry,
    cancellation: Cancellation,
    *,
    workers: int,
    brief: bool,
    output: str,
) -> int:
    from conforma.cli.lookup_output import printer
    from conforma.oci.lookup import look_up
    from conforma.oci.reference import Reference
    from conforma.validate.growth import Growth
    from conforma.validate.pool import in_parallel

    references: list[Reference | ConformaError] = []
    for text in texts:
        try:
            references.append(Reference.parse(text))
        except ConformaError as error:
            references.append(error)
    registry.expect(r for r in references if isinstance(r, Reference) and not r.is_layout)
    show = printer(output, sys.stdout, brief=brief)
    statuses: list[int] = []

    def work(index: int) -> None:
        answer = _answer(lambda r: look_up(registry, r, brief=brief), references[index])
        cancellation.raise_if_cancelled()
        statuses.append(_status(answer))
        show.put(index, texts[index], answer)

    try:
        for outcome in in_parallel(
            range(len(texts)), work, workers=workers, cancellation=cancellation, growth=Growth()
        ):
            if outcome is not None:
                raise outcome
    finally:
        show.end()
    return max(statuses)


def _answer(
    find: Callable[[Reference], Found], reference: Reference | ConformaError
) -> Found | ConformaError:
    if isinstance(reference, ConformaError):
        return reference
    try:
        return find(reference)
    except ConformaError as error:
        return error


def _status(answer: Found | ConformaError) -> int:
    if isinstance(answer, NotFound):
        return 1
    if isinstance(answer, ConformaError):
        return answer.exit_status
    return 3 if answer.problems else 0
