"""``conforma cache``: look after the layer cache, also while validations use it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from conforma.cli.cache_command import JSON, cache_command, opened
from conforma.cli.command import LazyGroup, refuse_words
from conforma.report.numbers import binary_size, counted

if TYPE_CHECKING:
    from conforma.cache.totals import Totals

_AREAS: Final = {"blobs": "Blobs", "layers": "Unpacked", "tocs": "Listings", "links": "Proofs"}
"""What people call the areas of a cache."""

command = LazyGroup(
    name="cache",
    help="Look after the layer cache. Everything is safe while validations use it.",
    commands_at={
        "clear": ("conforma.cli.cache:clear", "Remove everything that is not in use"),
        "export": ("conforma.cli.cache_transport:export_to", "Write blobs into an image layout"),
        "gc": ("conforma.cli.cache:gc", "Remove leftovers and what is over the limit"),
        "import": ("conforma.cli.cache_transport:import_from", "Take in an image layout"),
        "info": ("conforma.cli.cache:info", "Say what the cache holds and has saved"),
        "prefetch": ("conforma.cli.cache_transport:prefetch", "Bring in the layers of images"),
        "verify": ("conforma.cli.cache:verify", "Hash every entry again"),
    },
)


@cache_command(
    "info",
    "Say what the cache holds, when it was used, and what it has saved in all runs so far.",
    JSON,
)
@click.pass_context
def info(ctx: click.Context, /, **flags: Any) -> None:
    """Print the inventory and the totals."""
    refuse_words(ctx)
    with opened(ctx, flags) as (cache, _):
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
        ("Size", f"{binary_size(found.total)} of {binary_size(cache.options.max_bytes)}"),
        *(
            (_AREAS[area], f"{_entries(count)}, {binary_size(found.bytes[area])}")
            for area, count in found.entries.items()
        ),
        ("Leftovers", f"{found.partials} unfinished, {found.quarantined} quarantined"),
        ("Used", f"{document['firstUsed'] or 'never'} to {document['lastUsed'] or 'never'}"),
        *_worth(totals),
    ]
    for name, value in lines:
        click.echo(f"{name + ':':12}{value}")


@cache_command(
    "verify",
    "Hash every entry again; what is bad is quarantined, so that it is fetched anew.\n\n"
    "Exit status: 0 all is right, 1 something was bad, 3 the directory cannot be used.",
    JSON,
)
@click.pass_context
def verify(ctx: click.Context, /, **flags: Any) -> int:
    """Check everything and return the exit status."""
    checked, count, bad = 0, 0, []
    refuse_words(ctx)
    with opened(ctx, flags) as (cache, cancellation):
        for verdict in cache.upkeep().verify():
            cancellation.raise_if_cancelled()
            checked, count, bad = verdict.checked, verdict.bytes, verdict.bad
        fate = "quarantined" if cache.store.writable else "left where it is: the cache is read-only"
    if flags["as_json"]:
        from conforma import gojson

        click.echo(gojson.dumps({"checked": checked, "bytes": count, "bad": bad}))
    else:
        for name in bad:
            click.echo(f"bad, {fate}: {name}")
        click.echo(f"{_entries(checked)}, {binary_size(count)}: {len(bad)} bad")
    return 1 if bad else 0


@cache_command("gc", "Remove old leftovers and, least recently used first, what is over the limit.")
@click.pass_context
def gc(ctx: click.Context, /, **flags: Any) -> None:
    """Make the directory keep its limit."""
    refuse_words(ctx)
    with opened(ctx, flags, writing=True) as (cache, cancellation):
        click.echo(f"freed {binary_size(cache.collect(cancellation))}")


@cache_command("clear", "Remove everything that no running process reads or writes.")
@click.pass_context
def clear(ctx: click.Context, /, **flags: Any) -> None:
    """Empty the directory."""
    refuse_words(ctx)
    with opened(ctx, flags, writing=True) as (cache, _):
        freed = cache.upkeep().clear()
        left = cache.upkeep().inventory()
    kept = sum(left.entries.values()) + left.partials + left.quarantined
    stay = "is in use and stays" if kept == 1 else "are in use and stay"
    in_use = f"; {counted(kept, 'file')} {stay}" if kept else ""
    click.echo(f"freed {binary_size(freed)}{in_use}")


def _worth(totals: Totals) -> list[tuple[str, str]]:
    """What the runs so far have had from the cache."""
    if totals.hit_rate is None:
        return [("Hits", "no run has read a layer yet")]
    demands = totals.hits + totals.misses
    return [
        (
            "Hits",
            f"{totals.hits:,} of {counted(demands, 'read')} ({totals.hit_rate:.0%}) "
            f"in {counted(totals.runs, 'run')} since {_moment(totals.since)}",
        ),
        (
            "Saved",
            f"{binary_size(totals.saved_bytes)}; {binary_size(totals.network_bytes)} were downloaded "
            f"in {counted(totals.transfers, 'transfer')}",
        ),
    ]


def _entries(count: int) -> str:
    return counted(count, "entry", "entries")


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else ""
