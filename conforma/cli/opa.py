"""``conforma opa``: OPA's own command line with the functions of conforma."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from conforma.cli.command import GIVEN, Flag
from conforma.cli.options import Globals

if TYPE_CHECKING:
    from conforma.cancellation import Cancellation
    from conforma.policy.rego.engine import Builtin

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
    from conforma.cancellation import Cancellation
    from conforma.cli import logs
    from conforma.policy.rego.command import run_opa

    settings = _settings(ctx)
    logs.start_as(settings)
    # Without a deadline: `opa run` is a server.
    cancellation = Cancellation()
    with ExitStack() as stack:
        stack.callback(cancellation.close)
        status = run_opa(
            args,
            lambda: _builtins(stack, settings, cancellation),
            when_ended=cancellation.cancel,
        )
    ctx.exit(status)


def _settings(ctx: click.Context) -> Globals:
    """The flags of the root command; all that follows the word ``opa`` is OPA's."""
    root = ctx.find_root()
    flags = {str(p.name): p.get_default(ctx) for p in root.command.params if isinstance(p, Flag)}
    return Globals(**{**flags, **root.meta.get(GIVEN, {})})


def _builtins(
    stack: ExitStack, settings: Globals, cancellation: Cancellation
) -> Mapping[str, Builtin]:
    import os

    from conforma.cache.images import ImageReader
    from conforma.cli.options import cache_choice
    from conforma.cli.wiring import open_layers, open_log, open_registry
    from conforma.policy.rego.builtins import builtins_for
    from conforma.trust.keys import PublicKey
    from conforma.trust.root_sources import RootSources
    from conforma.trust.trust_policy import TrustPolicy
    from conforma.trust.verify import Verifier

    registry = stack.enter_context(open_registry(settings, cancellation))
    choice = cache_choice(no_cache=False, cache_dir="", cache_size="")
    layers = open_layers(choice, cancellation)
    stack.enter_context(layers)
    images = ImageReader(registry, layers)
    # Rules name the key or identity themselves, in the options of each call.
    ask_log = stack.enter_context(open_log(settings, cancellation))
    verifier = Verifier(registry, TrustPolicy(), RootSources(os.environ), ask_log=ask_log)
    return builtins_for(registry, images, verifier, PublicKey.load, cancellation)
