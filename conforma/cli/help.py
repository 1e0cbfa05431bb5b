"""``conforma help [COMMAND…]``: the same page as ``--help``."""

from __future__ import annotations

import click

from conforma.errors import InputError
from conforma.gotext import quoted


@click.command(name="help", help="Explain a command.")
@click.argument("names", nargs=-1)
@click.pass_context
def command(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Print the help page of the command named by the words given."""
    here = ctx.find_root()
    for name in names:
        group = here.command
        found = group.get_command(here, name) if isinstance(group, click.Group) else None
        if found is None:
            raise InputError(f"unknown help topic {quoted(' '.join(names))}")
        here = click.Context(found, info_name=name, parent=here)
    click.echo(here.get_help())
