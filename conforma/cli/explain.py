"""``conforma explain CODE``: why a rule did or did not speak about a component.

Takes the flags of ``validate image`` that say what is judged, by what and how.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any, Final

import click

from conforma.cli.command import Flag, GoCommand
from conforma.cli.image_flags import image_flags, image_options
from conforma.cli.options import Globals, ImageOptions
from conforma.errors import InputError
from conforma.gotext import quoted

# These are about the report of a whole run, which is not made here.
_WITHOUT: Final = frozenset(
    (
        "output",
        "output_file",
        "strict",
        "info",
        "no_color",
        "color",
        "workers",
        "vsa",
        "attestation_format",
        "attestation_output_dir",
        "vsa_signing_key",
        "vsa_public_key",
        "vsa_upload",
        "vsa_expiration",
        "show_successes",
        "show_warnings",
        "show_policy_docs_link",
    )
)
_FORMATS: Final = ("text", "json")


@click.command(
    cls=GoCommand,
    name="explain",
    options_metavar="CODE [OPTIONS]",
    params=[
        Flag(["--component"], default="", help="Name of the component, if there are several."),
        Flag(["--output"], default="text", help="text or json."),
        *(flag for flag in image_flags() if flag.name not in _WITHOUT),
    ],
    help="Explain what a rule made of a component: what the rule is and looks at, whether it "
    "spoke, and which include, exclude, volatile or effective-date entry decided, with its "
    "score.\n\nExit status: 0 explained, 1 unusable input, 3 could not be found out.",
)
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> int:
    """Judge one component and explain one rule; returns 0."""
    if len(ctx.args) != 1:
        raise InputError(
            "explain takes the code of one rule",
            hint="such as: conforma explain tasks.required_tasks_found --policy … --image …",
        )
    wanted, output = flags.pop("component"), flags.pop("output")
    if output not in _FORMATS:
        raise InputError(
            f"invalid --output: {quoted(output)} (valid: {', '.join(_FORMATS)})",
        )
    options = image_options({**flags, "info": True})
    _run(ctx.args[0], wanted, output, options, Globals(**ctx.obj))
    return 0


def _run(code: str, wanted: str, output: str, options: ImageOptions, settings: Globals) -> None:
    from conforma.cli import logs
    from conforma.cli.preparation import prepare
    from conforma.cli.signals import run_until_told
    from conforma.policy.rego.engine import Engine
    from conforma.report import explanation
    from conforma.validate.expansion import expand
    from conforma.validate.explain import explain

    trace = logs.start_as(settings)
    with ExitStack() as stack:
        cancellation = stack.enter_context(run_until_told(settings.timeout))
        engine = stack.enter_context(Engine.start(cancellation)) if options.policy else None
        prepared = prepare(
            stack,
            engine,
            options,
            settings,
            cancellation,
            trace_rules="opa" in trace,
            formats=frozenset(),
        )
        snapshot, _, _ = expand(prepared.snapshot, prepared.registry, cancellation)
        cancellation.raise_if_cancelled()  # nobody knows which components there are
        named = [c for c in snapshot.components if wanted in ("", c.name, c.container_image)]
        if len(named) != 1:
            names = ", ".join(component.name for component in named or snapshot.components)
            problem = f"no component is named {quoted(wanted)}" if not named else "which component?"
            raise InputError(problem, hint=f"--component takes one of: {names}")
        explained = explain(
            code, named[0], prepared.checks, prepared.tools(snapshot), prepared.evaluators
        )
    if output == "json":
        sys.stdout.write(f"{explanation.as_json(explained)}\n")
    else:
        sys.stdout.writelines(explanation.as_text(explained))
