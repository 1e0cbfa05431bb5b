"""``conforma validate policy``: whether a policy configuration conforms to its schema."""

from __future__ import annotations

from contextlib import ExitStack

import click

from conforma.cli.command import Flag, GoCommand, require_flags
from conforma.cli.image_flags import shown_flags
from conforma.cli.options import Globals


@click.command(
    cls=GoCommand,
    name="policy",
    help="Check a policy configuration: that it is a document, and has no key or value that the "
    "schema of EnterpriseContractPolicy does not know. Its sources are not fetched.\n\n"
    "Exit status: 0 it conforms, 1 it does not or there is none, 3 it could not be fetched.\n\n"
    "Examples:\n\n"
    "  conforma validate policy --policy policy.yaml\n\n"
    "  conforma validate policy --policy github.com/org/repo//policies?ref=main",
    params=[
        Flag(
            ["--policy", "-p"],
            default=None,
            help="The configuration: a file, a git or https URL, or inline JSON or YAML; the "
            "name of one in a cluster is not looked up.",
        ),
        *shown_flags(hidden=True),
    ],
)
@click.pass_context
def command(ctx: click.Context, /, policy: str, **_: bool) -> None:
    """Read the configuration and say whether it conforms."""
    require_flags(ctx, "policy")
    from conforma.cli import logs
    from conforma.cli.signals import run_until_told
    from conforma.cli.wiring import open_sources
    from conforma.policy.locate import check_policy

    settings = Globals(**ctx.obj)
    logs.start_as(settings)
    with ExitStack() as stack:
        cancellation = stack.enter_context(run_until_told(settings.timeout))
        check_policy(policy, open_sources(stack, settings, cancellation))
    click.echo("Policy configuration conforms to the EnterpriseContractPolicy spec")
