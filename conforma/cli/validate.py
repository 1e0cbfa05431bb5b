"""``conforma validate``: the group, and ``validate image`` with its flags."""

from __future__ import annotations

from typing import Any

import click

from conforma.cli.command import GoCommand, LazyGroup
from conforma.cli.image_flags import image_flags, image_options, shown_flags

command = LazyGroup(
    name="validate",
    help="Validate images before their release, documents and policies.",
    commands_at={
        "image": ("conforma.cli.validate:image", "Validate images against a policy"),
        "input": (
            "conforma.cli.validate_input:command",
            "Judge JSON and YAML documents by a policy",
        ),
        "policy": ("conforma.cli.validate_policy:command", "Check a policy configuration"),
    },
    shared=shown_flags(),
)


@click.command(
    cls=GoCommand,
    name="image",
    params=image_flags(),
    help="Validate container images: their signatures and attestations, and every rule of the "
    "policy.\n\nExit status: 0 passed, 1 did not pass or unusable input, 3 could not be decided, "
    "130 interrupted.",
)
@click.pass_context
def image(ctx: click.Context, /, **flags: Any) -> int:
    """Validate, write the reports, and return the exit status."""
    from conforma.cli.options import Globals
    from conforma.cli.validate_image import run

    return run(image_options(flags), Globals(**ctx.obj))
