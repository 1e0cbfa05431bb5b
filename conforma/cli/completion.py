"""``conforma completion SHELL``: the script that completes commands and flags."""

from __future__ import annotations

import click

from conforma.errors import InputError


@click.command(
    name="completion",
    help="Print the completion script for bash, zsh or fish.\n\n"
    'Load it with: eval "$(conforma completion bash)"',
)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script for one shell."""
    from click.shell_completion import get_completion_class

    root = ctx.find_root()
    name = root.info_name or "conforma"
    kind = get_completion_class(shell)
    if kind is None:
        raise InputError(f"no completion for {shell}")
    script = kind(root.command, {}, name, f"_{name.upper()}_COMPLETE").source()
    click.echo(script)
