"""``conforma version``: what this program is made of.

The labels are those of the Go tool, since scripts look for them; parts that
do not exist here are ``N/A``, and so is the commit where nothing was built.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Final

import click

from conforma import __version__
from conforma.cli.command import Flag, GoCommand, refuse_words
from conforma.cli.gotypes import GoBool

PACKAGE: Final = __file__.removesuffix("/cli/version.py")
UNKNOWN: Final = "N/A"
OPA: Final = "v1.15.2"  # as pinned in policy/rego/engine/go.mod
_POLICY_SCHEMA: Final = "v0.1.7"
_DAY: Final = 86_400
_UNITS: Final = (
    *(("year", 365 * _DAY), ("week", 7 * _DAY), ("day", _DAY)),
    *(("hour", 3600), ("minute", 60), ("second", 1)),
)


def version() -> str:
    """The version as reports name it, ``vX.Y.Z``."""
    return f"v{__version__}"


@click.command(
    cls=GoCommand,
    name="version",
    help="Print version information.",
    params=[
        Flag(["--json", "-j", "as_json"], type=GoBool(), help="One line of JSON."),
        Flag(["--short", "-s"], type=GoBool(), help="The version alone, without a newline."),
    ],
)
@click.pass_context
def command(ctx: click.Context, as_json: bool, short: bool) -> None:
    """Print the version in one of three forms."""
    refuse_words(ctx)
    commit, moment = built_from()
    if as_json:
        from conforma import gojson

        changed = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment)) if commit else UNKNOWN
        click.echo(
            gojson.dumps(
                {
                    "Version": version(),
                    "Commit": commit or UNKNOWN,
                    "ChangedOn": changed,
                    "Components": [{"Name": n, "Version": v} for n, v in components().items()],
                }
            )
        )
    elif short:
        click.echo(version(), nl=False)
    else:
        changed = f"{_utc(moment)} ({_age(time.time() - moment)} ago)" if commit else UNKNOWN
        rows = {
            "Version": version(),
            "Source ID": commit or UNKNOWN,
            "Change date": changed,
            **components(),
        }
        width = max(map(len, rows)) + 2
        for label, value in rows.items():
            click.echo(f"{label:{width}}{value}")


def built_from() -> tuple[str, int]:
    """The commit that the build hook has noted, and its time in seconds since 1970."""
    try:
        with open(f"{PACKAGE}/commit.txt", encoding="ascii") as file:  # noqa: PTH123
            commit, moment = file.read().split()
    except OSError:
        return "", 0
    return commit, int(moment)


def components() -> dict[str, str]:
    """The versions of the parts, in the order of the Go tool."""
    return {
        "ECC": _POLICY_SCHEMA,
        "OPA": OPA,
        "Conftest": UNKNOWN,
        "Cosign": UNKNOWN,
        "Sigstore": _installed("sigstore"),
        "Rekor": _installed("sigstore_rekor_types"),
        "Tekton Pipeline": UNKNOWN,
        "Kubernetes Client": _installed("lightkube"),
    }


def _installed(distribution: str) -> str:
    # importlib.metadata would double the time this command takes.
    for directory in filter(os.path.isdir, sys.path):
        for name in os.listdir(directory):  # noqa: PTH208 - pathlib is not loaded yet
            if name.startswith(f"{distribution}-") and name.endswith(".dist-info"):
                return f"v{name.removesuffix('.dist-info').partition('-')[2]}"
    return UNKNOWN


def _utc(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime(moment))


def _age(seconds: float) -> str:
    """A time span to its largest unit: ``2 weeks``."""
    for unit, size in _UNITS:
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return "0 seconds"
