"""``conforma validate input``: JSON and YAML documents judged by a policy, without any image.

Declares the flags; what is done with them is in ``input_evaluation``.
"""

from __future__ import annotations

from typing import Any, Final

import click

from conforma.cli.command import Flag, GoCommand
from conforma.cli.gotypes import GoBool, GoInt, GoList
from conforma.cli.image_flags import DEFAULT_WORKERS, image_flags, image_options
from conforma.errors import InputError

# What these say is the same for images and for documents.
_SHARED: Final = frozenset(
    (
        "effective_time",
        "allow_past_effective_time",
        "info",
        "no_color",
        "color",
        "offline",
        "mirror_from",
        "no_cache",
        "cache_dir",
        "cache_size",
        "cache_verify",
        "cache_proof",
        "show_successes",
        "show_warnings",
        "show_policy_docs_link",
    )
)


@click.command(
    cls=GoCommand,
    name="input",
    options_metavar="FILE... [OPTIONS]",
    params=[
        Flag(
            ["--policy", "-p"],
            default=None,
            help="Policy configuration: inline, file, git, https or Kubernetes. Required.",
        ),
        Flag(["--file", "-f"], type=GoList(), default=(), hidden=True),
        Flag(
            ["--output", "-o"],
            type=GoList(),
            default=(),
            help="FORMAT[=PATH][?OPTION=VALUE&...]; repeatable. Formats: text, json, yaml, "
            "summary, appstudio.",
        ),
        Flag(
            ["--workers"],
            type=GoInt(),
            default=DEFAULT_WORKERS,
            help="Files judged at the same time.",
        ),
        Flag(
            ["--strict", "-s"],
            type=GoBool(),
            default=True,
            help="Fail if a rule is violated.",
        ),
        *(flag for flag in image_flags() if flag.name in _SHARED),
    ],
    help="Judge JSON and YAML documents by every rule of the policy; no image and no signature "
    "is looked at.\n\nFILE is a file, a directory (the files in it, not below it) or a document "
    "written inline. The elements of a list are judged one by one.\n\nExit status: 0 passed, 1 "
    "did not pass or unusable input, 3 could not be decided, 130 interrupted.",
)
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> int:
    """Judge, write the reports, and return the exit status."""
    from conforma.cli.input_evaluation import run
    from conforma.cli.options import Globals
    from conforma.validate.input_files import entries_of

    entries = entries_of((*flags.pop("file"), *ctx.args))
    options = image_options(flags)
    if options.policy is None:
        raise InputError(
            'required flag(s) "policy" not set', hint="--policy says what the files are judged by"
        )
    return run(entries, options, Globals(**ctx.obj))
