"""``conforma mirror``: images and all that validating them needs, somewhere else."""

from __future__ import annotations

from typing import Any, Final

import click

from conforma.cli.command import Flag, GoCommand, given
from conforma.cli.gotypes import GoBool, GoInt, GoList
from conforma.cli.options import Globals

_PARALLEL: Final = 8


@click.command(
    cls=GoCommand,
    name="mirror",
    params=[
        Flag(["--image"], type=GoList(), default=(), help="An image to mirror; repeatable."),
        Flag(["--images"], default="", help="ApplicationSnapshot: a file, or inline JSON or YAML."),
        Flag(
            ["--from", "source"],
            default="",
            help="Mirror everything in this layout: oci:DIRECTORY or oci-archive:FILE.",
        ),
        Flag(
            ["--policy", "-p"],
            default="",
            help="Mirror the policy and data sources of this configuration as well.",
        ),
        Flag(
            ["--to"],
            default="",
            help="Destination: REGISTRY[/PATH], oci:DIRECTORY or oci-archive:FILE.",
        ),
        Flag(
            ["--rewrite"],
            type=GoList(),
            default=(),
            help="FROM=TO: names that begin with FROM begin with TO there; repeatable.",
        ),
        Flag(
            ["--platform"],
            type=GoList(),
            default=(),
            help="Of image indexes only these, as linux/arm64; repeatable. Default: all.",
        ),
        Flag(
            ["--related"],
            type=GoBool(),
            help="Also what images were built from: parents, and the images their attestations name.",
        ),
        Flag(["--parallel"], type=GoInt(), default=_PARALLEL, help="Blobs moved at the same time."),
        Flag(
            ["--dry-run"], type=GoBool(), help="Say what would be moved, with sizes; move nothing."
        ),
        Flag(["--verify"], type=GoBool(), help="Read everything back and compare the digests."),
        Flag(["--fail-fast"], type=GoBool(), help="Stop at the first failure."),
        Flag(
            ["--progress"],
            default="auto",
            help="auto (a display on a terminal, else plain), plain, json or none; on stderr.",
        ),
        Flag(["--output"], default="text", help="The summary on stdout: text or json."),
    ],
    help="Copy images with their signatures, attestations, SBOMs and referrers from registry to "
    "registry, into an OCI image layout or a tar archive of one, or back from there. Each blob is "
    "read once and written once; a second run moves what is missing.\n\n"
    "There is no time limit unless --timeout is given. Exit status: 0 everything is there, "
    "1 unusable input, 3 something is not, 130 interrupted.",
)
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> int:
    """Mirror, print the summary, and return the exit status."""
    from conforma.cli.mirror_run import MirrorOptions, run

    return run(MirrorOptions(**flags), Globals(**ctx.obj), limited=given(ctx, "timeout"))
