"""``conforma opa``: OPA's own command line with the functions of conforma."""

from __future__ import annotations

import click

_PASS_THROUGH = {"ignore_unknown_options": True, "allow_extra_args": True}


@click.command(
    name="opa",
    context_settings=_PASS_THROUGH,
    add_help_option=False,
    help="Open Policy Agent with the functions of conforma.",
)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(ctx: click.Context, args: tuple[str, ...]) -> None:
    """Hand everything to OPA and end with its exit status."""
    from conforma.policy.rego.command import run_opa

    ctx.exit(run_opa(args, dict))
