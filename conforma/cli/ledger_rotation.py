"""``conforma ledger rotate``: renew or replace the keys that are kept offline."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from conforma.cli.command import Flag
from conforma.cli.gotypes import Duration, GoBool, GoDuration, GoInt, GoList
from conforma.cli.ledger import command_of, words
from conforma.errors import InputError

if TYPE_CHECKING:
    from conforma.ledger.rotation import Change, Staged
    from conforma.ledger.state import State

_ROLES: Final = ("root", "targets", "online")


@command_of(
    "rotate",
    "DIRECTORY",
    "Renew root and targets, or replace keys, in two steps.\n\n"
    "Offline, where a copy of ledger.json and metadata/ is enough, --sign prepares the next "
    "root and targets and signs them; every further holder of a key adds a signature with --sign. "
    "Then --publish publishes them, online. Signing with the key of a role renews that role; keys "
    "change only if new ones are named. Readers follow from the root that they have.",
    Flag(["--staged"], default="", help="Directory of what is prepared and handed on."),
    Flag(["--sign"], type=GoList(), default=(), help="Private keys of root or targets."),
    Flag(["--new"], type=GoList(), default=(), help="Make new keys: root, targets, online."),
    Flag(["--keys"], default="", help="New directory for these keys, outside the ledger."),
    Flag(["--root-key"], type=GoList(), default=(), help="Keys that replace those of root, PEM."),
    Flag(["--threshold"], type=GoInt(), default=0, help="How many keys then must sign a root."),
    Flag(["--targets-key"], default="", help="Key that replaces that of targets, PEM."),
    Flag(["--online-key"], default="", help="Key that replaces the online key, PEM."),
    Flag(
        ["--expiry"],
        type=GoDuration(),
        default=Duration(0),
        help="How long what is signed is good; 0 for as long as at first, three years.",
    ),
    Flag(["--publish"], type=GoBool(), help="Publish what was prepared and signed."),
    Flag(["--key"], default="", help="Online key to publish with (CONFORMA_LEDGER_KEY)."),
    Flag(
        ["--old-key"],
        default="",
        help="The online key that is being replaced: with it readers notice nothing. Leave it "
        "out if it is in the wrong hands.",
    ),
)
@click.pass_context
def rotate(ctx: click.Context, /, **flags: Any) -> None:
    """Prepare, sign or publish; say what is still missing."""
    (directory,) = words(ctx, 1, "the directory of the ledger")
    if not flags["staged"]:
        raise InputError("--staged is missing", hint="name a directory to prepare the rotation in")
    preparing = [name for name in ("sign", "new", "root_key", "threshold") if flags[name]]
    preparing += [name for name in ("targets_key", "online_key") if flags[name]]
    if flags["publish"] and preparing:
        raise InputError(
            f"--publish and --{preparing[0].replace('_', '-')} exclude each other",
            hint="what is published was signed before, best on another machine",
        )
    if flags["publish"]:
        _publish(Path(directory), Path(flags["staged"]), flags["key"], flags["old_key"])
    else:
        _prepare(Path(directory), Path(flags["staged"]), flags)


def _prepare(directory: Path, where: Path, flags: Mapping[str, Any]) -> None:
    from conforma.ledger import keys
    from conforma.ledger.ledger import Ledger
    from conforma.ledger.rotation import stage

    with Ledger(directory) as ledger:
        signers = [keys.load(spec) for spec in flags["sign"]]
        change, made = _change(directory, flags)
        signers += [keys.load(spec) for spec in made]
        if not signers:
            raise InputError("no key signs", hint="give keys of root or targets with --sign")
        for spec, signer in zip([*flags["sign"], *made], signers, strict=True):
            click.echo(f"{spec}: key {signer.public_key.keyid[:16]}")
        seconds = float(flags["expiry"]) or ledger.config.offline_lifetime
        staged = stage(ledger.state, where, change, signers, timedelta(seconds=seconds))
        _tell(staged, ledger.state, where)


def _change(directory: Path, flags: Mapping[str, Any]) -> tuple[Change, list[str]]:
    """The keys that are to be trusted, and where those are that were made to sign offline."""
    from conforma.ledger import keys
    from conforma.ledger.rotation import Change

    new = list(flags["new"])
    for name in new:
        if name not in _ROLES:
            raise InputError(f"--new: {name} is none of {', '.join(_ROLES)}")
    if new and not flags["keys"]:
        raise InputError("--keys is missing", hint="name a new directory for the new keys")
    if new:
        keys.check_outside(Path(flags["keys"]), directory)
    made = {name: keys.generate(Path(flags["keys"]), name) for name in new}
    root = [keys.public(path) for path in flags["root_key"]]
    named = {
        role: keys.public(flags[f"{role}_key"]) if flags[f"{role}_key"] else None
        for role in ("targets", "online")
    }
    for name, signer in made.items():
        if name == "root":
            root.append(signer.public_key)
        else:
            named[name] = signer.public_key
    change = Change(tuple(root), flags["threshold"], named["targets"], named["online"])
    return change, [str(Path(flags["keys"], f"{name}.pem")) for name in made if name != "online"]


def _tell(staged: Staged, state: State, where: Path) -> None:
    for role, metadata in (("root", staged.root), ("targets", staged.targets)):
        if metadata is not None:
            click.echo(
                f"{where}/{role}.json: version {metadata.signed.version}, "
                f"expires {metadata.signed.expires:%Y-%m-%dT%H:%M:%SZ}"
            )
    missing = staged.missing(state)
    for line in missing:
        click.echo(f"still to be signed: {line}")
    if not missing:
        click.echo(
            f"complete: conforma ledger rotate DIRECTORY --staged {where} --publish"
            + (
                " --key NEW"
                if state.root.roles["timestamp"].keyids != _online(staged, state)
                else ""
            )
        )


def _online(staged: Staged, state: State) -> list[str]:
    return staged.next_root(state).roles["timestamp"].keyids


def _publish(directory: Path, where: Path, key: str, old_key: str) -> None:
    from conforma.ledger import adoption, keys
    from conforma.ledger.rotation import Staged, verified

    staged = Staged.read(where)
    with adoption.opened(directory, staged) as ledger:
        staged = verified(ledger.state, staged, where)
        root = staged.next_root(ledger.state)
        signers = [keys.online(key or os.environ.get(keys.KEY, ""), root)]
        if old_key:
            signers.append(keys.online(old_key, ledger.state.root))
        version = adoption.adopt(ledger, staged, where, signers)
    click.echo(f"version {version}, root {root.version}")
