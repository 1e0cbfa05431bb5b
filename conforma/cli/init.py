"""``conforma init policies``: a policy to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from conforma.cli.command import Flag, GoCommand, LazyGroup, refuse_words
from conforma.errors import InputError

SAMPLE: Final = """\
# Simplest never-failing policy
package main

import rego.v1

# METADATA
# title: Allow rule
# description: This rule will never fail
# custom:
#   short_name: acceptor
#   failure_msg: Always succeeds
#   solution: None is needed
#   collections:
#   - A
deny contains result if {
\tfalse
\tresult := "Never denies"
}
"""

command = LazyGroup(
    name="init",
    help="Make what a policy begins with.",
    commands_at={"policies": ("conforma.cli.init:policies", "Write a small policy")},
)


@click.command(
    cls=GoCommand,
    name="policies",
    help="Write a small policy, to stdout or as sample.rego into a directory.",
    params=[
        Flag(["--dest-dir", "-d"], default="", help="The directory, made if it is not there."),
    ],
)
@click.pass_context
def policies(ctx: click.Context, dest_dir: str) -> None:
    """Write the sample."""
    refuse_words(ctx)
    if not dest_dir:
        click.echo(SAMPLE, nl=False)
        return
    place = Path(dest_dir)
    try:
        place.mkdir(mode=0o755, parents=True, exist_ok=True)
        (place / "sample.rego").write_text(SAMPLE, encoding="utf-8")
    except OSError as cause:
        raise InputError(f"{place}: {cause.strerror}") from cause
