"""The root command: which commands there are, global flags, and how every run ends."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import click

from conforma.cli import streams
from conforma.cli.command import Flag, LazyGroup
from conforma.cli.gotypes import Duration, GoBool, GoDuration, GoFloat, GoInt, GoList
from conforma.cli.network_flags import network_flags
from conforma.errors import ConformaError, Interrupted

COMMANDS: Final = {
    "cache": ("conforma.cli.cache:command", "Look after the layer cache"),
    "completion": ("conforma.cli.completion:command", "Print a shell completion script"),
    "demo": ("conforma.cli.demo:command", "Make a signed release on this machine and validate it"),
    "explain": ("conforma.cli.explain:command", "Explain what a rule made of a component"),
    "fetch": ("conforma.cli.fetch:command", "Download what a policy consists of"),
    "help": ("conforma.cli.help:command", "Explain a command"),
    "init": ("conforma.cli.init:command", "Make what a policy begins with"),
    "inspect": ("conforma.cli.inspect:command", "Show what is in the sources of a policy"),
    "ledger": ("conforma.cli.ledger:command", "Publish verdicts as metadata anybody can check"),
    "lookup": ("conforma.cli.lookup:command", "Say what image references mean in their registries"),
    "mirror": ("conforma.cli.mirror:command", "Copy images and all that validating them needs"),
    "opa": ("conforma.cli.opa:command", "Open Policy Agent with the functions of conforma"),
    "serve": ("conforma.cli.serve:command", "Serve images of other registries from the cache"),
    "sigstore": ("conforma.cli.sigstore:command", "Manage what signatures are verified with"),
    "track": ("conforma.cli.track:command", "Record which Tekton tasks are trusted"),
    "validate": ("conforma.cli.validate:command", "Validate images, documents and policies"),
    "version": ("conforma.cli.version:command", "Print version information"),
}
if os.environ.get("EC_EXPERIMENTAL") == "1":
    COMMANDS["test"] = ("conforma.cli.test:command", "Hold rules against plain documents")
_BUG: Final = 3


@click.command(
    cls=LazyGroup,
    name="conforma",
    commands_at=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Decides whether container images may be released: their signatures, attestations "
    "and content are checked against policies written in Rego.",
    params=[
        Flag(["--quiet"], type=GoBool(), help="Less verbose output: errors only."),
        Flag(["--verbose"], type=GoBool(), help="More verbose output."),
        Flag(["--debug"], type=GoBool(), help="As --verbose, with the place in the program."),
        Flag(
            ["--trace"],
            type=GoList(),
            default=("none",),
            bare="log",
            help="Trace categories after '=', comma separated: none, all, log, opa, perf, cpu, mem.",
        ),
        Flag(["--logfile"], default="", help="Append log lines to this file instead of stderr."),
        Flag(
            ["--timeout"],
            type=GoDuration(),
            default=Duration(300.0),
            help="Limit for the whole run; 0 for none. What mirrors or serves has one only if it is "
            "given.",
        ),
        Flag(["--kubeconfig"], default="", help="Path of the Kubernetes configuration."),
        Flag(
            ["--retry-max-wait"],
            type=GoDuration(),
            default=Duration(3.0),
            help="Longest pause between attempts.",
        ),
        Flag(["--retry-max-retry"], type=GoInt(), default=3, help="Attempts after the first one."),
        Flag(
            ["--retry-duration"],
            type=GoDuration(),
            default=Duration(1.0),
            help="Pause after the first attempt.",
        ),
        Flag(
            ["--retry-factor"], type=GoFloat(), default=2.0, help="Growth of the pause per attempt."
        ),
        Flag(["--retry-jitter"], type=GoFloat(), default=0.1, help="Random share of the pause."),
        *network_flags(),
    ],
)
def root(**_: object) -> None:
    """Hold the global flags; the sub-commands read them."""


def run(args: Sequence[str]) -> int:
    """Run a command and return its exit status; every explainable failure is one ``Error:``.

    A bug is not explainable: it shows its traceback, and since nothing was decided
    the status is the one for that.
    """
    program = os.path.basename(sys.argv[0]) if sys.argv else ""  # noqa: PTH119 - spares an import
    try:
        streams.allow_open_files()
        threading.excepthook = _thread_failed
        status = root.main(
            args=list(args),
            prog_name=program if program in ("conforma", "ec") else "conforma",
            standalone_mode=False,
        )
        sys.stdout.flush()
    except ConformaError as error:
        _say(f"Error: {error.message}")
        if error.hint:
            _say(f"hint: {error.hint}")
        return error.exit_status
    except click.ClickException as error:
        _say(f"Error: {error.format_message()}")
        return 1
    except (KeyboardInterrupt, click.Abort):
        _say("Error: interrupted")
        return Interrupted.exit_status
    except BrokenPipeError:
        streams.forget_output()  # whoever read it has gone and need not be told
        return 1
    except Exception as error:
        return _failed(error, debug="--debug" in args)
    return status if isinstance(status, int) else 0


def _failed(error: Exception, *, debug: bool) -> int:
    from conforma.validate.exhaustion import explained

    explanation = explained(error)
    if explanation is None or debug:
        import traceback

        traceback.print_exc()
    if explanation is None:
        return _BUG
    streams.forget_output()  # it may be what failed
    _say(f"Error: {explanation.message}")
    if explanation.hint:
        _say(f"hint: {explanation.hint}")
    return explanation.exit_status


def _thread_failed(args: threading.ExceptHookArgs) -> None:
    """Show the traceback of a bug; of a shortage, whoever waits for the thread tells."""
    from conforma.validate.exhaustion import explained

    if args.exc_value is None or explained(args.exc_value) is None:
        threading.__excepthook__(args)


def _say(line: str) -> None:
    from conforma.report.wrapping import harmless

    with suppress(OSError):  # the exit status says it as well
        click.echo(harmless(line), err=True)
