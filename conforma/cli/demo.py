"""``conforma demo``: a signed release made on this machine, validated before your eyes."""

from __future__ import annotations

import shlex
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from conforma.cli.color import color_wanted
from conforma.cli.command import Flag, GoCommand
from conforma.cli.gotypes import GoInt, GoList
from conforma.errors import InputError

if TYPE_CHECKING:
    from conforma.serve.demo_release import Breakage, Release
    from conforma.serve.log import Request
    from conforma.serve.registry import RegistryServer

_WORKERS: Final = 8
_MEGA: Final = 1_000_000


@click.command(
    cls=GoCommand,
    name="demo",
    params=[
        Flag(
            ["--keep"],
            default="",
            help="Leave registry, key, policy and snapshot in this directory.",
        ),
        Flag(
            ["--serve"],
            default="",
            help="Serve a kept directory until Ctrl-C, and do nothing else.",
        ),
        Flag(
            ["--break", "breakages"],
            type=GoList(),
            default=(),
            help="Make a release that is refused: bad-signature, missing-attestation or forbidden-file.",
        ),
        Flag(["--workers"], type=GoInt(), default=_WORKERS, help="Components validated at once."),
    ],
    help="Make a signed and attested release of 12 components in a registry on this machine, "
    "validate it, and show what the layer cache saves.\n\n"
    "Exit status: that of the validation, so 0 unless --break was given.",
)
@click.pass_context
def command(
    ctx: click.Context, keep: str, serve: str, breakages: tuple[str, ...], workers: int
) -> int:
    """Show, or serve what was kept."""
    from conforma.serve.demo_release import fresh_release, kept_release

    show = Screen(str(ctx.find_root().info_name))
    if serve:
        with kept_release(Path(serve).absolute()) as (release, _):
            return show.serving(release, workers)
    wanted = _known(breakages)
    with _directory(keep) as directory:
        started = time.perf_counter()
        with fresh_release(directory, wanted) as (release, server):
            show.release(release, time.perf_counter() - started, wanted)
            status = show.validation(release, server, workers)
            if keep:
                show.kept(release)
            return status


class Screen:
    """What the demo prints, all of it on stdout."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._color = color_wanted(no_color=False, color=False, stdout=sys.stdout)

    def release(self, release: Release, seconds: float, breakages: Sequence[Breakage]) -> None:
        """The headline: what was made, and what is wrong with it if anything."""
        from conforma.serve.demo_release import BREAKAGES

        sent = sum(release.distinct.values())
        self._heading("The release")
        self._rows(
            ("registry", f"{release.host}, made in {seconds:.1f} s"),
            ("components", f"{release.components}, each signed, with provenance and SBOM"),
            (
                "layers",
                f"{release.layers} ({_size(release.layer_bytes)}), "
                f"{len(release.distinct)} of them different ({_size(sent)})",
            ),
        )
        for breakage in breakages:
            self._rows(("broken", f"{BREAKAGES[breakage]} has {_INDEFINITE[breakage]}"))

    def validation(self, release: Release, server: RegistryServer, workers: int) -> int:
        """Command, report and what the cache did; returns the status of the validation."""
        from conforma.cli.root import run

        arguments = release.command(workers)
        self._heading("The command")
        self._command(arguments)
        self._heading("Its report")
        server.log.clear()
        started = time.perf_counter()
        status = run(arguments)
        cold = time.perf_counter() - started
        fetched = _layers(server, release)
        if status not in (0, 1) or not fetched:
            return status
        server.log.clear()
        started = time.perf_counter()
        unseen = [word for word in arguments if not word.startswith("--output=")]
        # The verdict was shown; this run is about the cache, so it may end without one.
        report = release.directory / "report.json"
        again = run([*unseen, f"--output=json={report}", "--strict=false"])
        warm = time.perf_counter() - started
        if again != 0:
            return again
        self._cache(release, fetched, (cold, warm), _layers(server, release))
        return status

    def kept(self, release: Release) -> None:
        """How to go on with a kept release."""
        self._heading("To go on")
        self._rows(
            ("kept in", str(release.directory)),
            ("serve it", f"{self._program} demo --serve {shlex.quote(str(release.directory))}"),
            ("then", "run the command above in another terminal"),
        )

    def serving(self, release: Release, workers: int) -> int:
        """Say where the registry is and wait for Ctrl-C or SIGTERM; returns 0."""
        from conforma.cli.signals import run_until_told

        self._heading("The command")
        self._command(release.command(workers))
        stop = threading.Event()
        # Handlers of our own: who is started with '&' by a script inherits that SIGINT is ignored.
        with run_until_told(None) as asked:
            asked.on_cancel(stop.set)
            click.echo(f"\nServing {release.host} until Ctrl-C.")
            stop.wait()
        return 0

    def _cache(
        self,
        release: Release,
        fetched: Sequence[Request],
        seconds: tuple[float, float],
        fetched_again: Sequence[Request],
    ) -> None:
        different = {request.path.rpartition("/")[2] for request in fetched}
        once = ", each once" if len(different) == len(fetched) else ""
        cold, warm = sum(f.bytes for f in fetched), sum(f.bytes for f in fetched_again)
        saved = f"{1 - cold / release.layer_bytes:.0%} less"
        if cold > release.layer_bytes:
            saved = "the cache is off (EC_CACHE)"
        self._heading("What the cache saved")
        self._rows(
            ("in the images", f"{release.layers:3} layers  {_size(release.layer_bytes):>9}"),
            ("downloaded", f"{len(fetched):3} layers  {_size(cold):>9}{once}: {saved}"),
            ("run again", f"{len(fetched_again):3} layers  {_size(warm):>9}"),
            ("time", f"{seconds[0]:.1f} s, again {seconds[1]:.1f} s"),
        )

    def _heading(self, text: str) -> None:
        click.echo(
            "\n" + (click.style(text, bold=True) if self._color else text), color=self._color
        )

    def _rows(self, *rows: tuple[str, str]) -> None:
        for name, text in rows:
            click.echo(f"  {name:14}{text}")

    def _command(self, arguments: Sequence[str]) -> None:
        words = [word for word in arguments if not word.startswith("--")]
        flags = [shlex.quote(word) for word in arguments if word.startswith("--")]
        click.echo("  " + " \\\n      ".join([" ".join([self._program, *words]), *flags]))


_INDEFINITE: Final[dict[str, str]] = {
    "bad-signature": "a signature by somebody else's key",
    "missing-attestation": "no attestations",
    "forbidden-file": "a private key and a setuid file in a layer",
}


def _known(names: Sequence[str]) -> tuple[Breakage, ...]:
    from conforma.serve.demo_release import BREAKAGES

    unknown = [name for name in names if name not in BREAKAGES]
    if unknown:
        raise InputError(
            f"--break: {unknown[0]!r} is not known", hint=f"choose among {', '.join(BREAKAGES)}"
        )
    return tuple(name for name in BREAKAGES if name in names)


@contextmanager
def _directory(keep: str) -> Iterator[Path]:
    if keep:
        yield Path(keep).absolute()
        return
    with tempfile.TemporaryDirectory(prefix="conforma-demo-") as name:
        yield Path(name)


def _layers(server: RegistryServer, release: Release) -> list[Request]:
    """Every download of a layer that the registry logged."""
    downloads = server.log.settled().matching("GET", "/blobs/")
    return [d for d in downloads if d.path.rpartition("/")[2] in release.distinct]


def _size(count: int) -> str:
    return f"{count / _MEGA:.1f} MB"
