"""The commands of ``conforma ledger`` that only read: get, verify, serve."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from conforma.cli.command import Flag, timeout_given
from conforma.cli.ledger import command_of, words
from conforma.errors import InputError
from conforma.report.numbers import counted

_ROOT = Flag(
    ["--root"],
    default="",
    help="Root metadata to trust (CONFORMA_LEDGER_ROOT); by default the ledger's own first.",
)


@command_of(
    "get",
    "DIRECTORY|URL DIGEST",
    "Print the summaries of an image.\n\nWhat is printed was verified and is current. Without "
    "--policy a directory is needed.",
    _ROOT,
    Flag(["--policy"], default="", help="Fingerprint of the policy, as paths in the ledger begin."),
)
@click.pass_context
def get(ctx: click.Context, /, **flags: Any) -> int:
    """Print each summary on a line; 1 if there is none."""
    from conforma.ledger import inspection
    from conforma.ledger.ledger import Ledger
    from conforma.ledger.reader import Reader, memory_of, trusted_root
    from conforma.ledger.statement import path_of
    from conforma.oci.digest import Digest

    location, text = words(ctx, 2, "the ledger and the digest of an image")
    digest = Digest.parse(text.rpartition("@")[2])
    root = trusted_root(location, flags["root"])
    found: list[bytes] = []
    with Reader(location, root, memory_of(location, root)) as reader:
        reader.refresh()
        if flags["policy"]:
            one = reader.find(path_of(digest, flags["policy"]))
            found += [one.content] if one is not None else []
        elif location.startswith(("http://", "https://")):
            raise InputError("which policy?", hint="over HTTP give its fingerprint with --policy")
        else:
            with Ledger(Path(location)) as ledger:
                paths = [entry.path for entry in inspection.entries(ledger, digest)]
            for path in paths:
                one = reader.find(path)
                found += [one.content] if one is not None else []
    for item in found:
        sys.stdout.buffer.write(item.rstrip(b"\n") + b"\n")
    if not found:
        raise InputError(f"{location} has no summary of {digest}")
    return 0


@command_of(
    "verify",
    "DIRECTORY",
    "Check everything in a ledger.",
    _ROOT,
    Flag(["--public-key"], default="", help="Key that the summaries must be signed with."),
)
@click.pass_context
def verify(ctx: click.Context, /, **flags: Any) -> None:
    """Check all signatures, hashes and dates."""
    from conforma.ledger import inspection
    from conforma.ledger.ledger import Ledger
    from conforma.ledger.reader import Reader, memory_of, trusted_root
    from conforma.trust.keys import PublicKey

    (directory,) = words(ctx, 1, "the directory of the ledger")
    key = PublicKey.load(flags["public_key"]) if flags["public_key"] else None
    root = trusted_root(directory, flags["root"])
    with Reader(directory, root, memory_of(directory, root)) as reader:
        reader.refresh()
    with Ledger(Path(directory), root=root) as ledger:
        found = inspection.verify(ledger, key)
    click.echo(
        f"version {found.version}: {counted(found.bins, 'bin')}, "
        f"{counted(found.targets, 'summary', 'summaries')} "
        f"({counted(found.bytes, 'byte')}), all verified"
    )


@command_of(
    "serve",
    "DIRECTORY",
    "Serve a ledger over HTTP, until Ctrl-C, or for as long as --timeout says if that is given.",
    Flag(["--listen"], default="127.0.0.1:8080", help="Address and port; port 0 for any."),
)
@click.pass_context
def serve(ctx: click.Context, /, **flags: Any) -> None:
    """Serve metadata and targets, and nothing else."""
    from conforma.cli.network import listen_address
    from conforma.cli.signals import run_until_told
    from conforma.ledger import web
    from conforma.ledger.ledger import read_config

    (directory,) = words(ctx, 1, "the directory of the ledger")
    read_config(Path(directory))
    host, port = listen_address(flags["listen"])
    with (
        run_until_told(timeout_given(ctx)) as cancellation,
        web.serve(Path(directory), host, port) as server,
    ):
        shown = f"[{host}]" if ":" in host else host
        click.echo(f"serving {directory} at http://{shown}:{server.server_port}")
        sys.stdout.flush()
        cancellation.on_cancel(server.shutdown)
        server.serve_forever()
