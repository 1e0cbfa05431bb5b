"""``conforma sigstore``: from which TUF repository the trusted keys and authorities come."""

from __future__ import annotations

import logging

import click

from conforma.cli.command import Flag, GoCommand, LazyGroup, refuse_words
from conforma.cli.gotypes import GoBool
from conforma.cli.options import Globals

log = logging.getLogger(__name__)

command = LazyGroup(
    name="sigstore",
    help="Manage what Sigstore signatures are verified with.",
    commands_at={
        "initialize": (
            "conforma.cli.sigstore:initialize",
            "Choose the TUF repository of trusted keys and authorities",
        ),
    },
)


@click.command(
    cls=GoCommand,
    name="initialize",
    help="Choose the TUF repository that trusted keys and certificate authorities come from.\n\n"
    "Its metadata is verified, starting from --root, and kept in $TUF_ROOT or ~/.sigstore/root, "
    "where later runs find it, also without a network. Nothing changes if it does not verify.",
    params=[
        Flag(
            ["--mirror"],
            default="https://tuf-repo-cdn.sigstore.dev",
            help="The repository: an https, http or file URL.",
        ),
        Flag(["--root"], default="", help="Root metadata to start from: a file or URL."),
        Flag(["--root-checksum"], default="", help="SHA-256 that the root metadata must have."),
        Flag(["--staging"], type=GoBool(), help="Has no effect; name a repository with --mirror."),
        Flag(["--offline"], type=GoBool(), help="Use what an earlier run left; ask no repository."),
    ],
)
@click.pass_context
def initialize(
    ctx: click.Context, mirror: str, root: str, root_checksum: str, staging: bool, offline: bool
) -> None:
    """Verify a repository's metadata and make it the one to use."""
    import os

    from conforma.cli import logs
    from conforma.trust.tuf_client import initialize as choose
    from conforma.trust.tuf_client import read_root

    settings = Globals(**ctx.obj)
    logs.start_as(settings)
    refuse_words(ctx)
    if staging:
        log.warning("--staging has no effect; name a repository with --mirror")
    start = read_root(root, root_checksum) if root else None
    choose(os.environ, mirror, start, offline=offline)
