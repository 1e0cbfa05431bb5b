"""``conforma opa``: OPA's own command line with the functions of conforma."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from conforma.cli.command import GIVEN, Flag, read_flags
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
    from conforma.policy.rego.command import run_opa

    # Without a deadline: `opa run` is a server.
    cancellation = Cancellation()
    with ExitStack() as stack:
        stack.callback(cancellation.close)
        flags = _Flags(stack, ctx)
        flags.add(())
        status = run_opa(
            args,
            lambda: _builtins(stack, flags.settings, cancellation),
            name=str(ctx.find_root().info_name),
            when_started=flags.limit,
            when_told=flags.add,
            when_ended=cancellation.cancel,
        )
        flags.raise_if_late()
    ctx.exit(status)


class _Flags:
    """The flags of the root command, which stand in front of the word ``opa`` or behind it.

    Those that a command of OPA's has as well are OPA's there.
    """

    def __init__(self, stack: ExitStack, ctx: click.Context) -> None:
        root = ctx.find_root()
        self._params = [param for param in root.command.params if isinstance(param, Flag)]
        self._given: dict[str, Any] = dict(root.meta.get(GIVEN, {}))
        self._defaults = {str(param.name): param.get_default(ctx) for param in self._params}
        self._stack = stack
        self._stop: Callable[[], None] = lambda: None
        self._limit: Cancellation | None = None

    @property
    def settings(self) -> Globals:
        """What they say so far."""
        return Globals(**{**self._defaults, **self._given})

    def limit(self, stop: Callable[[], None]) -> None:
        """Have ``stop`` called when the time is up that ``--timeout`` gives, if it is given."""
        from conforma.cancellation import Cancellation

        self._stop = stop
        given = self._given.get("timeout")
        if given is not None:
            self._limit = Cancellation(float(given), label=str(given))
            self._stack.callback(self._limit.close)
            self._limit.on_cancel(stop)

    def add(self, args: Sequence[str]) -> None:
        """Act on some more of them."""
        from conforma.cli import logs

        timeout = self._given.get("timeout")
        self._given, _ = read_flags(self._params, args, self._given)
        logs.start_as(self.settings)
        if self._given.get("timeout") != timeout:
            self.limit(self._stop)

    def raise_if_late(self) -> None:
        """Raise ``DeadlineExceeded`` if it was stopped because the time was up."""
        if self._limit is not None:
            self._limit.raise_if_cancelled()


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
