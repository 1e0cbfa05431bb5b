"""``conforma version``: what this program is made of.

The labels are those of the Go tool, since scripts look for them; parts that
do not exist here are ``N/A``.
"""

from __future__ import annotations

import os
import sys
from typing import Final

import click

from conforma import __version__
from conforma.cli.command import Flag, GoCommand
from conforma.cli.gotypes import GoBool

UNKNOWN: Final = "N/A"
OPA: Final = "v1.15.2"  # as pinned in policy/rego/engine/go.mod
_POLICY_SCHEMA: Final = "v0.1.7"


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
def command(as_json: bool, short: bool) -> None:
    """Print the version in one of three forms."""
    if as_json:
        from conforma import gojson

        click.echo(
            gojson.dumps(
                {
                    "Version": version(),
                    "Commit": UNKNOWN,
                    "ChangedOn": UNKNOWN,
                    "Components": [{"Name": n, "Version": v} for n, v in components().items()],
                }
            )
        )
    elif short:
        click.echo(version(), nl=False)
    else:
        rows = {"Version": version(), "Source ID": UNKNOWN, "Change date": UNKNOWN, **components()}
        width = max(map(len, rows)) + 2
        for label, value in rows.items():
            click.echo(f"{label:{width}}{value}")


def components() -> dict[str, str]:
    """The versions of the parts, in the order of the Go tool."""
    return {
        "ECC": _POLICY_SCHEMA,
        "OPA": OPA,
        "Conftest": UNKNOWN,
        "Cosign": UNKNOWN,
        "Sigstore": _installed("sigstore"),
        "Rekor": UNKNOWN,
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
