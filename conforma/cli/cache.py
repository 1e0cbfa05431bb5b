"""``conforma cache``: look after the layer cache, also while validations use it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from conforma.cli.command import Flag, GoCommand, LazyGroup, refuse_words
from conforma.cli.gotypes import GoBool, GoInt
from conforma.cli.options import Globals, cache_choice
from conforma.errors import ConformaError, InputError

if TYPE_CHECKING:
    from conforma.cache.safe_cache import SafeCache
    from conforma.cache.totals import Totals
    from conforma.cancellation import Cancellation

_DIRECTORY = Flag(["--cache-dir"], default="", help="Directory of the cache (EC_CACHE_DIR).")
_SIZE = Flag(["--cache-size"], default="", help="Limit of the cache, as 20GiB (EC_CACHE_SIZE).")
_JSON = Flag(["--json", "-j", "as_json"], type=GoBool(), help="One line of JSON.")
_AREAS: Final = {"blobs": "Blobs", "layers": "Unpacked", "tocs": "Listings", "links": "Proofs"}
"""What people call the areas of a cache."""

command = LazyGroup(
    name="cache",
    help="Look after the layer cache. Everything is safe while validations use it.",
    commands_at={
        "clear": ("conforma.cli.cache:clear", "Remove everything that is not in use"),
        "gc": ("conforma.cli.cache:gc", "Remove leftovers and what is over the limit"),
        "info": ("conforma.cli.cache:info", "Say what the cache holds"),
        "prefetch": ("conforma.cli.cache:prefetch", "Bring in the layers of images"),
        "verify": ("conforma.cli.cache:verify", "Hash every entry again"),
    },
)


def _command(name: str, text: str, *flags: Flag) -> Callable[[Callable[..., Any]], click.Command]:
    return click.command(cls=GoCommand, name=name, help=text, params=[*flags, _DIRECTORY, _SIZE])


@_command(
    "info",
    "Say what the cache holds, when it was used, and what it has saved in all runs so far.",
    _JSON,
)
@click.pass_context
def info(ctx: click.Context, /, **flags: Any) -> None:
    """Print the inventory and the totals."""
    with _opened(ctx, flags) as (cache, _):
        found = cache.upkeep().inventory()
        totals = cache.totals()
        document = {
            "directory": str(cache.options.directory),
            "mode": cache.stats.mode,
            "limit": cache.options.max_bytes,
            "bytes": found.total,
            "areas": {
                area: {"entries": count, "bytes": found.bytes[area]}
                for area, count in found.entries.items()
            },
            "partials": found.partials,
            "quarantined": found.quarantined,
            "firstUsed": _moment(found.first_used),
            "lastUsed": _moment(found.last_used),
            "totals": {
                "since": _moment(totals.since),
                "runs": totals.runs,
                "hits": totals.hits,
                "misses": totals.misses,
                "hitRate": totals.hit_rate,
                "downloads": totals.transfers,
                "downloadedBytes": totals.network_bytes,
                "savedBytes": totals.saved_bytes,
            },
        }
    if flags["as_json"]:
        from conforma import gojson

        click.echo(gojson.dumps(document))
        return
    lines = [
        ("Directory", f"{document['directory']} ({document['mode']})"),
        ("Size", f"{_size(found.total)} of {_size(cache.options.max_bytes)}"),
        *(
            (_AREAS[area], f"{count} entries, {_size(found.bytes[area])}")
            for area, count in found.entries.items()
        ),
        ("Leftovers", f"{found.partials} unfinished, {found.quarantined} quarantined"),
        ("Used", f"{document['firstUsed'] or 'never'} to {document['lastUsed'] or 'never'}"),
        *_worth(totals),
    ]
    for name, value in lines:
        click.echo(f"{name + ':':12}{value}")


@_command(
    "verify",
    "Hash every entry again; what is bad is quarantined, so that it is fetched anew.\n\n"
    "Exit status: 0 all is right, 1 something was bad.",
    _JSON,
)
@click.pass_context
def verify(ctx: click.Context, /, **flags: Any) -> int:
    """Check everything and return the exit status."""
    checked, count, bad = 0, 0, []
    with _opened(ctx, flags) as (cache, cancellation):
        for verdict in cache.upkeep().verify():
            cancellation.raise_if_cancelled()
            checked, count, bad = verdict.checked, verdict.bytes, verdict.bad
    if flags["as_json"]:
        from conforma import gojson

        click.echo(gojson.dumps({"checked": checked, "bytes": count, "bad": bad}))
    else:
        for name in bad:
            click.echo(f"bad, quarantined: {name}")
        click.echo(f"{checked} entries, {_size(count)}: {len(bad)} bad")
    return 1 if bad else 0


@_command("gc", "Remove old leftovers and, least recently used first, what is over the limit.")
@click.pass_context
def gc(ctx: click.Context, /, **flags: Any) -> None:
    """Make the directory keep its limit."""
    with _opened(ctx, flags) as (cache, _):
        click.echo(f"freed {_size(cache.collect())}")


@_command("clear", "Remove everything that no running process reads or writes.")
@click.pass_context
def clear(ctx: click.Context, /, **flags: Any) -> None:
    """Empty the directory."""
    with _opened(ctx, flags) as (cache, _):
        click.echo(f"freed {_size(cache.upkeep().clear())}")


@_command(
    "prefetch",
    "Bring in and index the layers of images, so that validating them needs no download.\n\n"
    "What cannot be fetched is told, and hides nothing else.",
    Flag(["--images"], default="", help="A snapshot: path or content in JSON or YAML."),
    Flag(["--workers"], type=GoInt(), default=4, help="Images at the same time."),
)
@click.pass_context
def prefetch(ctx: click.Context, /, **flags: Any) -> None:
    """Read every layer's table once."""
    from concurrent.futures import ThreadPoolExecutor

    from conforma.cache.images import ImageReader
    from conforma.cli.outcome import together
    from conforma.cli.wiring import open_registry
    from conforma.oci.reference import Reference
    from conforma.validate import snapshot

    if not flags["images"]:
        raise InputError("--images is missing", hint="name a snapshot")
    if flags["workers"] < 1:
        raise InputError("--workers must be at least 1")
    components = snapshot.check(snapshot.from_path_or_text(flags["images"])).components
    settings = Globals(**ctx.obj)
    errors: list[ConformaError] = []
    with _opened(ctx, flags) as (cache, cancellation), ExitStack() as stack:
        registry = stack.enter_context(open_registry(settings, cancellation))
        images = ImageReader(registry, cache)

        def bring(image: str) -> None:
            try:
                layers = images.prefetch(registry.resolve(Reference.parse(image)), cancellation)
            except ConformaError as error:
                errors.append(error)
                return
            if not settings.quiet:
                click.echo(f"{image}: {layers} layers", file=sys.stderr)

        with ThreadPoolExecutor(flags["workers"], "prefetch") as pool:
            list(pool.map(bring, dict.fromkeys(c.container_image for c in components)))
        stats = cache.stats
    click.echo(f"fetched {_size(stats.network_bytes)}; {_size(stats.saved_bytes)} were there")
    if errors:
        raise together(errors)


@contextmanager
def _opened(ctx: click.Context, flags: dict[str, Any]) -> Iterator[tuple[SafeCache, Cancellation]]:
    """The cache that the flags name, whether or not validations use one."""
    from dataclasses import replace
    from pathlib import Path

    from conforma.cache.options import CacheOptions, default_directory
    from conforma.cache.safe_cache import SafeCache
    from conforma.cli.signals import run_until_told

    refuse_words(ctx)
    settings = Globals(**ctx.obj)
    choice = cache_choice(
        no_cache=False, cache_dir=flags["cache_dir"], cache_size=flags["cache_size"]
    )
    directory = Path(choice.directory) if choice.directory else default_directory()
    options = CacheOptions(directory=directory)
    if choice.max_bytes is not None:
        options = replace(options, max_bytes=choice.max_bytes)
    with ExitStack() as stack:
        cancellation = stack.enter_context(run_until_told(settings.timeout))
        yield stack.enter_context(SafeCache.open(options, cancellation)), cancellation


def _worth(totals: Totals) -> list[tuple[str, str]]:
    """What the runs so far have had from the cache."""
    if totals.hit_rate is None:
        return [("Hits", "no run has read a layer yet")]
    demands = totals.hits + totals.misses
    return [
        (
            "Hits",
            f"{totals.hits} of {demands} reads ({totals.hit_rate:.0%}) "
            f"in {totals.runs} runs since {_moment(totals.since)}",
        ),
        (
            "Saved",
            f"{_size(totals.saved_bytes)}; {_size(totals.network_bytes)} were downloaded "
            f"in {totals.transfers} transfers",
        ),
    ]


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else ""


def _size(count: int) -> str:
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
