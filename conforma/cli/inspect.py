"""``conforma inspect``: what is in the sources of a policy, without judging anything by it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from conforma.cli.command import Flag, GoCommand, LazyGroup, refuse_words, require_flags
from conforma.cli.gotypes import GoTexts
from conforma.cli.options import Globals
from conforma.errors import BadPolicyConfig, InputError
from conforma.report.as_rules import FORMATS

if TYPE_CHECKING:
    from conforma.cancellation import Cancellation
    from conforma.policy.source import FetchedSource, Sources

_DATA_FORMATS: Final = ("json", "yaml")
_DEST: Final = "Directory that keeps what was downloaded; without it nothing is kept."

command = LazyGroup(
    name="inspect",
    help="Show what is in the sources of a policy.",
    commands_at={
        "policy": ("conforma.cli.inspect:policy", "Show the rules in policy sources"),
        "policy-data": ("conforma.cli.inspect:policy_data", "Show the data in data sources"),
    },
)


@click.command(
    cls=GoCommand,
    name="policy",
    help="Show the rules in policy sources: code, title, description and collections, from the "
    "annotations above them. Nothing is evaluated.\n\n"
    "Of --rule, --package and --collection one has to match. Exit status: 0 shown, 1 unusable "
    "input or policy, 3 a source could not be fetched.\n\n"
    "Examples:\n\n"
    "  conforma inspect policy --source github.com/conforma/policy//policy/release\n\n"
    "  conforma inspect policy --policy policy.yaml --collection minimal --output names",
    params=[
        Flag(
            ["--policy", "-p"],
            default="",
            help="Policy configuration whose policy sources are shown: a file, a git or https "
            "URL, inline JSON or YAML, or the name of one in a cluster.",
        ),
        Flag(
            ["--source", "-s"],
            type=GoTexts(),
            default=(),
            help="Policy source, instead of --policy; repeatable.",
        ),
        Flag(["--dest", "-d"], default="", help=_DEST),
        Flag(["--output", "-o"], default="text", help=", ".join(FORMATS) + "."),
        Flag(["--rule"], default="", help="Rules with this code or short name."),
        Flag(["--package"], default="", help="Rules of this package."),
        Flag(["--collection"], default="", help="Rules in this collection."),
    ],
)
@click.pass_context
def policy(
    ctx: click.Context,
    policy: str,
    source: Sequence[str],
    dest: str,
    output: str,
    rule: str,
    package: str,
    collection: str,
) -> None:
    """Fetch the sources and print their rules."""
    refuse_words(ctx)
    if policy and source:
        raise InputError(
            "if any flags in the group [policy source] are set none of the others can be; "
            "[policy source] were all set"
        )
    if not (policy or source):
        raise InputError(
            "at least one of the flags in the group [policy source] is required",
            hint="name what to inspect with --source or --policy",
        )
    _check_output(output, tuple(FORMATS))
    from conforma.policy.inspection import Wanted, inspect
    from conforma.policy.rego.engine import Engine

    settings = Globals(**ctx.obj)
    wanted = Wanted(rule, package, collection)
    with _opened(settings) as (sources, cancellation), Engine.start(cancellation) as engine:
        urls = _policy_urls(policy, sources, settings) if policy else source
        inspected = {
            fetched.pinned: tuple(filter(wanted.includes, inspect(engine, fetched)))
            for fetched in _fetched(urls, dest, sources).values()
        }
    sys.stdout.writelines(FORMATS[output](inspected))


@click.command(
    cls=GoCommand,
    name="policy-data",
    help="Show the data in data sources: every JSON and YAML file below them, merged by "
    "top-level keys, of which no two may be equal.\n\n"
    "Exit status: 0 shown, 1 unusable input or data, 3 a source could not be fetched.\n\n"
    "Example:\n\n"
    "  conforma inspect policy-data --source git::https://github.com/conforma/policy//example/data",
    params=[
        Flag(["--source", "-s"], type=GoTexts(), default=(), help="Data source; repeatable."),
        Flag(["--dest", "-d"], default="", help=_DEST),
        Flag(["--output", "-o"], default="json", help=" or ".join(_DATA_FORMATS) + "."),
    ],
)
@click.pass_context
def policy_data(ctx: click.Context, source: Sequence[str], dest: str, output: str) -> None:
    """Fetch the sources and print their data."""
    refuse_words(ctx)
    require_flags(ctx, "source")
    _check_output(output, _DATA_FORMATS)
    from conforma import gojson
    from conforma.policy.plain_data import merged
    from conforma.report import as_yaml

    with _opened(Globals(**ctx.obj)) as (sources, _):
        data = merged(_fetched(source, dest, sources).values())
    if output == "yaml":
        sys.stdout.writelines((*as_yaml.mapping(data), "\n"))
    else:
        sys.stdout.write(f"{gojson.dumps(data, sort_keys=True)}\n")


def _check_output(output: str, known: Sequence[str]) -> None:
    if output not in known:
        raise InputError(
            f"invalid value for --output '{output}'. accepted values: {', '.join(known)}"
        )


@contextmanager
def _opened(settings: Globals) -> Iterator[tuple[Sources, Cancellation]]:
    """Where sources are fetched from, and what stops that."""
    from conforma.cli import logs
    from conforma.cli.signals import run_until_told
    from conforma.cli.wiring import open_sources

    logs.start_as(settings)
    with ExitStack() as stack:
        cancellation = stack.enter_context(run_until_told(settings.timeout))
        yield open_sources(stack, settings, cancellation), cancellation


def _policy_urls(text: str, sources: Sources, settings: Globals) -> tuple[str, ...]:
    from conforma.policy.kube import Kubernetes
    from conforma.policy.locate import load_policy

    config = load_policy(text, sources, Kubernetes(settings.kubeconfig))
    urls = tuple(url for group in config.sources for url in group.policy)
    if not urls:
        raise BadPolicyConfig("the policy names no policy sources, so there are no rules in it")
    return urls


def _fetched(urls: Sequence[str], dest: str, sources: Sources) -> Mapping[str, FetchedSource]:
    """The content of the sources, all fetched at once; kept below ``dest`` if it is given."""
    from conforma.policy.download import destination_of, put

    found = sources.fetch_all(urls)
    if dest:
        for url in found:
            put(url, destination_of(url, Path(dest), "policy"), sources)
    return found
