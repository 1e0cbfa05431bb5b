"""``conforma ledger``: keep verification summaries where everybody can check them."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click
import msgspec.structs

from conforma import gojson
from conforma.cli.cache_command import JSON
from conforma.cli.command import Flag, GoCommand, LazyGroup
from conforma.cli.gotypes import Duration, GoBool, GoDuration, GoInt, GoList
from conforma.errors import ConformaError, InputError
from conforma.report.numbers import counted

_DAY: Final = 86400.0
_KEY = Flag(
    ["--key"],
    default="",
    help="Online key: a PEM file, env:NAME or the URI of a key management service "
    "(CONFORMA_LEDGER_KEY); its passphrase is in CONFORMA_LEDGER_PASSPHRASE.",
)
_SUMMARIES: Final = (
    "after the directory of the ledger name the summaries that conforma validate image --vsa signed; "
    "it leaves them where --attestation-output-dir says"
)


def command_of(
    name: str, takes: str, help_text: str, *flags: Flag
) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command of the group out of a function; usage says which words it ``takes``."""
    return click.command(
        cls=GoCommand,
        name=name,
        options_metavar=f"{takes} [OPTIONS]",
        params=list(flags),
        help=help_text,
    )


@command_of(
    "init",
    "DIRECTORY",
    "Make a ledger and its keys.\n\nKeep the keys of root and targets offline; the online key "
    "signs what is published.",
    Flag(["--keys"], default="", help="New directory for the keys, outside the ledger."),
    Flag(["--online-key"], default="", help="An existing online key instead of a new one."),
    Flag(["--bins"], type=GoInt(), default=256, help="Metadata files that share the targets."),
    Flag(
        ["--timestamp-expiry"],
        type=GoDuration(),
        default=Duration(7 * _DAY),
        help="How long readers believe a state without hearing of a newer one.",
    ),
    Flag(["--shared"], type=GoBool(), help="Let the group of the directory write as well."),
)
@click.pass_context
def init(ctx: click.Context, /, **flags: Any) -> None:
    """Make keys, settings and the first version of all metadata."""
    from conforma.ledger.config import Config
    from conforma.ledger.initialize import initialize

    (directory,) = words(ctx, 1, "the directory of the ledger")
    if not flags["keys"]:
        raise InputError("--keys is missing", hint="name a new directory outside the ledger")
    config = msgspec.structs.replace(
        Config().with_bins(flags["bins"]),
        timestamp_lifetime=float(flags["timestamp_expiry"]),
        shared=flags["shared"],
    )
    initialize(Path(directory), Path(flags["keys"]), config, online=flags["online_key"])
    click.echo(f"made {directory}; root of trust: {directory}/metadata/1.root.json")


@command_of(
    "publish",
    "DIRECTORY FILE...",
    "Publish summaries.\n\nA file holds an in-toto statement with a verification summary, best in "
    "a signed DSSE envelope.",
    _KEY,
    Flag(["--hold"], type=GoBool(), help="Queue without publishing, until --release."),
    Flag(["--release"], type=GoList(), default=(), help="Ids of held operations to publish."),
    Flag(
        ["--wait"],
        type=GoBool(),
        default=True,
        help="Wait until they are durable; otherwise the next publisher commits them.",
    ),
)
@click.pass_context
def publish(ctx: click.Context, /, **flags: Any) -> None:
    """Publish each file and print the operation, the version it is in, and its path."""
    from conforma.errors import BadEvidence
    from conforma.ledger.ledger import Ledger
    from conforma.ledger.operation import Numbering, Operation
    from conforma.ledger.publisher import Publisher
    from conforma.ledger.shelves import about
    from conforma.ledger.statement import Summary

    directory, *files = words(ctx, 1, "the directory of the ledger", more=True)
    if not files and not flags["release"]:
        raise InputError("nothing to publish", hint="name files, or held operations with --release")
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(Path(directory)))
        for operation_id in flags["release"]:
            ledger.inbox.release(operation_id)
        operations: list[Operation] = []
        numbering = Numbering()
        for name in files:
            try:
                body = Path(name).read_bytes()
                summary = Summary.parse(body)
            except OSError as cause:
                raise InputError(f"{name}: {cause.strerror}", hint=_SUMMARIES) from cause
            except BadEvidence as cause:
                raise InputError(f"{name}: {cause.message}", hint=_SUMMARIES) from cause
            length, sha256 = ledger.inbox.store(summary.path, body)
            made = Operation(
                numbering.next(), "publish", summary.path, length, sha256, about(summary)
            )
            operations.append(made)
        if flags["hold"] or not flags["wait"]:
            for operation in operations:
                ledger.inbox.drop(operation, hold=flags["hold"])
                click.echo(
                    f"{operation.id}\t{'held' if flags['hold'] else 'queued'}\t{operation.path}"
                )
            return
        publisher = Publisher(ledger, _signer(ledger, flags["key"]))
        stack.callback(publisher.close, wait=False)
        tickets = [publisher.submit(operation) for operation in operations]
        if flags["release"]:
            tickets.append(publisher.bump())  # whoever commits this commits them as well
        seconds = float(ctx.obj["timeout"]) or None
        errors: list[ConformaError] = []
        for ticket in tickets:
            try:
                version = ticket.result(seconds)
            except ConformaError as error:
                errors.append(error)
            else:
                click.echo(f"{ticket.operation.id}\t{version}\t{ticket.operation.path}")
        if errors:
            from conforma.cli.outcome import together

            raise together(errors)


@command_of(
    "status", "DIRECTORY", "Say how a ledger is: versions, dates and queue, always as JSON.", JSON
)
@click.pass_context
def status(ctx: click.Context, /, **flags: Any) -> None:
    """Print versions, dates and queue as JSON."""
    from conforma.ledger import inspection
    from conforma.ledger.ledger import Ledger

    (directory,) = words(ctx, 1, "the directory of the ledger")
    with Ledger(Path(directory)) as ledger:
        found = inspection.status(ledger)
    click.echo(gojson.dumps(found, indent="" if flags["as_json"] else "  "))


@command_of(
    "bump",
    "DIRECTORY",
    "Renew what expires. Run it daily, as from cron.",
    _KEY,
    Flag(["--everything"], type=GoBool(), help="Renew all bins, not only those due."),
)
@click.pass_context
def bump(ctx: click.Context, /, **flags: Any) -> None:
    """Sign snapshot, timestamp and bins anew, with whatever waits in the queue."""
    from conforma.ledger.ledger import Ledger
    from conforma.ledger.publisher import Publisher

    (directory,) = words(ctx, 1, "the directory of the ledger")
    with Ledger(Path(directory)) as ledger:
        publisher = Publisher(ledger, _signer(ledger, flags["key"]))
        try:
            ticket = publisher.bump(everything=flags["everything"])
            version = ticket.result(float(ctx.obj["timeout"]) or None)
        finally:
            publisher.close(wait=False)
    click.echo(f"version {version}")


@command_of(
    "gc", "DIRECTORY", "Remove what nobody needs any more: superseded metadata, old records."
)
@click.pass_context
def gc(ctx: click.Context, /, **_: Any) -> None:
    """Remove superseded metadata, unnamed content and old records."""
    from conforma.ledger.collect import collect
    from conforma.ledger.ledger import Ledger

    (directory,) = words(ctx, 1, "the directory of the ledger")
    with Ledger(Path(directory)) as ledger:
        removed = collect(ledger)
    click.echo(
        f"removed {counted(removed.metadata, 'metadata file')}, "
        f"{counted(removed.targets, 'target')}, {counted(removed.records, 'record')}, "
        f"{counted(removed.leftovers, 'leftover')}"
    )


def _signer(ledger: Any, spec: str) -> Any:
    from conforma.ledger import keys

    return keys.online(spec or os.environ.get(keys.KEY, ""), ledger.state.root)


def words(ctx: click.Context, count: int, what: str, *, more: bool = False) -> list[str]:
    """The words on the command line that are no flags. Raises ``InputError``."""
    found = list(ctx.args)
    if len(found) < count or (len(found) > count and not more):
        raise InputError(f"{ctx.command_path} takes {what}", hint=f"see {ctx.command_path} --help")
    return found


_HERE: Final = "conforma.cli.ledger"
command = LazyGroup(
    name="ledger",
    help="Keep verification summaries as signed metadata that anybody can check.",
    commands_at={
        "init": (f"{_HERE}:init", "Make a ledger and its keys"),
        "publish": (f"{_HERE}:publish", "Publish summaries"),
        "status": (f"{_HERE}:status", "Versions, dates and queue"),
        "get": (f"{_HERE}_reading:get", "The summaries of an image"),
        "verify": (f"{_HERE}_reading:verify", "Check everything"),
        "bump": (f"{_HERE}:bump", "Renew what expires"),
        "rotate": (f"{_HERE}_rotation:rotate", "Renew or replace the offline keys"),
        "gc": (f"{_HERE}:gc", "Remove what is superseded"),
        "serve": (f"{_HERE}_reading:serve", "Serve over HTTP"),
    },
)
