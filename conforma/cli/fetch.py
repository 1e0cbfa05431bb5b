"""``conforma fetch policy``: the sources of a policy, downloaded to look at them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from conforma.cli.command import Flag, GoCommand, LazyGroup, refuse_words, require_flags
from conforma.cli.gotypes import GoBool, GoTexts
from conforma.cli.options import Globals
from conforma.errors import SourceUnavailable

command = LazyGroup(
    name="fetch",
    help="Download what a policy consists of.",
    commands_at={
        "policy": ("conforma.cli.fetch:policy", "Download policy and data sources"),
    },
)


@click.command(
    cls=GoCommand,
    name="policy",
    help="Download policy and data sources, each into a directory of its own: policy/ID or "
    "data/ID below --dest, where ID depends on the URL alone. What an earlier download left "
    "there is replaced.\n\n"
    "The first source that fails ends the command. Exit status: 0 all are there, 1 unusable "
    "input or source, 3 a source could not be fetched.\n\n"
    "Example:\n\n"
    "  conforma fetch policy --dest fetched --source github.com/conforma/policy//policy/lib "
    "--data-source git::https://github.com/conforma/policy//example/data",
    params=[
        Flag(["--source", "-s"], type=GoTexts(), default=(), help="Policy source; repeatable."),
        Flag(["--data-source"], type=GoTexts(), default=(), help="Data source; repeatable."),
        Flag(["--dest", "-d"], default=".", help="Directory to download into."),
        Flag(
            ["--work-dir", "-w"],
            type=GoBool(),
            help="Download into a new directory for temporary files, which stays; --dest is "
            "not looked at.",
        ),
    ],
)
@click.pass_context
def policy(
    ctx: click.Context,
    source: Sequence[str],
    data_source: Sequence[str],
    dest: str,
    work_dir: bool,
) -> None:
    """Download the sources one after the other, policies first."""
    refuse_words(ctx)
    require_flags(ctx, "source")
    from conforma.cli import logs
    from conforma.cli.signals import run_until_told
    from conforma.cli.wiring import open_sources
    from conforma.policy.download import destination_of, put
    from conforma.policy.source_url import without_secrets
    from conforma.report.wrapping import harmless_line

    settings = Globals(**ctx.obj)
    logs.start_as(settings)
    root = _new_directory() if work_dir else Path(dest)
    with ExitStack() as stack:
        cancellation = stack.enter_context(run_until_told(settings.timeout))
        sources = open_sources(stack, settings, cancellation)
        wanted = [(url, destination_of(url, root, "policy")) for url in source]
        wanted += [(url, destination_of(url, root, "data")) for url in data_source]
        for url, place in wanted:
            click.echo(harmless_line(f"Downloading {without_secrets(url)} to {place}"))
            put(url, place, sources)


def _new_directory() -> Path:
    from conforma.policy.work_directory import WorkDirectory

    try:
        return WorkDirectory(keep=True).path
    except OSError as cause:
        raise SourceUnavailable(
            f"cannot make a directory to download into: {cause}",
            hint="TMPDIR names the place for temporary files",
        ) from cause
