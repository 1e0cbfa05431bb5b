"""``conforma validate input``: JSON and YAML documents judged by a policy, without any image.

Declares the flags; what is done with them is in ``input_evaluation``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from conforma.cli.command import Flag, GoCommand, given
from conforma.cli.gotypes import GoBool, GoInt, GoList
from conforma.cli.image_flags import DEFAULT_WORKERS, image_flags, image_options
from conforma.errors import InputError

if TYPE_CHECKING:
    from conforma.cli.options import ImageOptions

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
        Flag(["--server"], type=GoBool(), help="Answer requests over HTTP instead."),
        Flag(
            ["--server-address"],
            default="127.0.0.1",
            help="Address to listen on; whoever reaches it may ask.",
        ),
        Flag(["--server-port"], type=GoInt(), default=8080, help="Port to listen on; 0 for any."),
        *(flag for flag in image_flags() if flag.name in _SHARED),
    ],
    help="Judge JSON and YAML documents by every rule of the policy; no image and no signature "
    "is looked at.\n\nFILE is a file, a directory (the files in it, not below it) or a document "
    "written inline. The elements of a list are judged one by one.\n\nWith --server documents come "
    "over HTTP: POST /v1/validate/input answers with the JSON report, GET /live and GET /ready "
    "are for those who watch the service. The policy is compiled once; it runs until it is told "
    "to stop (SIGINT or SIGTERM).\n\nExit status: 0 passed, 1 "
    "did not pass or unusable input, 3 could not be decided, 130 interrupted.",
)
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> int:
    """Judge, write the reports, and return the exit status."""
    from conforma.cli.options import Globals

    serving, address, port = (flags.pop(f"server{name}") for name in ("", "_address", "_port"))
    texts = (*flags.pop("file"), *ctx.args)
    options = image_options(flags)
    settings = Globals(**ctx.obj)
    if serving:
        from conforma.cli import input_server

        input_server.check(texts)
        _require_policy(options)
        ignored = [name for name in input_server.WITHOUT_EFFECT if given(ctx, name)]
        return input_server.run(options, settings, address, port, ignored=ignored)

    from conforma.cli.input_evaluation import run
    from conforma.validate.input_files import entries_of

    entries = entries_of(texts)
    _require_policy(options)
    return run(entries, options, settings)


def _require_policy(options: ImageOptions) -> None:
    if options.policy is None:
        raise InputError(
            'required flag(s) "policy" not set',
            hint="--policy says what documents are judged by",
        )
