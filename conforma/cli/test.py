"""``conforma test`` (experimental): rules held against plain documents, as Conftest does."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from conforma.cli.color import color_wanted
from conforma.cli.command import Flag, GoCommand
from conforma.cli.gotypes import GoBool, GoList
from conforma.errors import ConformaError, InputError

if TYPE_CHECKING:
    from conforma.policy.conftest import Checked


@click.command(
    cls=GoCommand,
    name="test",
    options_metavar="FILE... [OPTIONS]",
    help="Hold the rules of a policy against JSON and YAML documents.\n\n"
    "With --quiet nothing is printed unless something failed.\n\n"
    "Exit status: 0 passed, 1 failed; with --fail-on-warn 1 for warnings and 2 for failures.",
    params=[
        Flag(
            ["--policy", "-p"], type=GoList(), default=("policy",), help="Rego files, directories."
        ),
        Flag(["--data", "-d"], type=GoList(), default=(), help="Data files and directories."),
        Flag(["--namespace", "-n"], type=GoList(), default=("main",), help="Packages to query."),
        Flag(["--all-namespaces"], type=GoBool(), help="Query every package that has rules."),
        Flag(["--output", "-o"], default="stdout", help="stdout, json, tap or appstudio[=FILE]."),
        Flag(["--parser"], default="", help="Read every document as json or yaml."),
        Flag(
            ["--ignore"],
            default="",
            help="Leave out files of directories whose path matches this regular expression.",
        ),
        Flag(["--combine"], type=GoBool(), help="Check all documents together, as one list."),
        Flag(["--suppress-exceptions"], type=GoBool(), help="Only count exceptions, with stdout."),
        Flag(["--fail-on-warn"], type=GoBool(), help="Warnings fail as well."),
        Flag(["--no-fail"], type=GoBool(), help="Exit with 0 whatever comes out."),
        Flag(["--no-color"], type=GoBool(), help="Never colour text."),
    ],
)
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> int:
    """Check, print and return the exit status."""
    paths = ctx.args
    if not paths:
        raise InputError("missing required arguments", hint="name the documents to check")
    kind, _, target = flags["output"].partition("=")
    try:
        results = _checked(paths, flags, kind)
    except ConformaError as cause:
        cause.message = f"running test: {cause.message}"
        if kind != "appstudio":
            raise
        return _told_error(cause, target, no_fail=flags["no_fail"])
    status = _status(results, fail_on_warn=flags["fail_on_warn"])
    if status or not ctx.obj["quiet"]:
        _print(results, kind, target, flags)
    return 0 if flags["no_fail"] else status


def _status(results: Sequence[Checked], *, fail_on_warn: bool) -> int:
    failed = any(result.failures for result in results)
    if fail_on_warn:
        return 2 if failed else int(any(result.warnings for result in results))
    return int(failed)


def _checked(paths: Sequence[str], flags: dict[str, Any], kind: str) -> list[Checked]:
    from conforma.policy.conftest import Rules, combined, documents, files_of
    from conforma.policy.rego.engine import Engine
    from conforma.policy.work_directory import WorkDirectory, sweep
    from conforma.report.as_conftest import FORMATS

    if kind not in (*FORMATS, "appstudio"):
        raise InputError(f"unknown output format: {kind}", hint="stdout, json, tap or appstudio")
    files = files_of(paths, flags["ignore"])
    found = list(documents(files, flags["parser"], sys.stdin.buffer))
    if flags["combine"]:
        found = [combined(found)]
    sweep()
    with ExitStack() as stack:
        place = WorkDirectory(keep=False)
        stack.callback(place.remove)
        engine = stack.enter_context(Engine.start())
        rules = Rules(engine, flags["policy"], flags["data"], place.path)
        namespaces = rules.namespaces if flags["all_namespaces"] else flags["namespace"]
        return [rules.check(document, name) for name in namespaces for document in found]


def _told_error(cause: ConformaError, target: str, *, no_fail: bool) -> int:
    from conforma.report.as_conftest import appstudio_error

    _write(appstudio_error(cause.message, int(time.time())), target)
    if not no_fail:
        raise cause
    click.echo(f"Error: {cause.message}", err=True)
    return 0


def _print(results: Sequence[Checked], kind: str, target: str, flags: dict[str, Any]) -> None:
    from conforma.report.as_conftest import FORMATS, appstudio

    if kind == "appstudio":
        namespace = flags["namespace"][0] if flags["namespace"] else ""
        return _write(appstudio(results, namespace, int(time.time())), target)
    color = color_wanted(no_color=flags["no_color"], color=False, stdout=sys.stdout)
    listed = not flags["suppress_exceptions"]
    return click.echo(FORMATS[kind](results, color, listed), nl=False)


def _write(text: str, target: str) -> None:
    if not target:
        click.echo(text)
        return
    place = Path(target)
    try:
        place.touch(mode=0o600)
        place.write_text(text, encoding="utf-8")
    except OSError as cause:
        raise InputError(f"output results: {place}: {cause.strerror}") from cause
