"""What the commands of ``conforma cache`` share: their flags, and the cache they open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from conforma.cli.command import Flag, GoCommand, timeout_given
from conforma.cli.gotypes import GoBool
from conforma.cli.options import cache_choice

if TYPE_CHECKING:
    from pathlib import Path

    from conforma.cache.safe_cache import SafeCache
    from conforma.cancellation import Cancellation

JSON: Final = Flag(["--json", "-j", "as_json"], type=GoBool(), help="One line of JSON.")
_DIRECTORY: Final = Flag(["--cache-dir"], default="", help="Directory of the cache (EC_CACHE_DIR).")
_SIZE: Final = Flag(
    ["--cache-size"], default="", help="Limit of the cache, 20GiB unless given (EC_CACHE_SIZE)."
)


def cache_command(
    name: str, text: str, *flags: Flag, words: str = ""
) -> Callable[[Callable[..., Any]], click.Command]:
    """Declare a command on a cache directory; ``words`` is what it takes besides flags."""
    return click.command(
        cls=GoCommand,
        name=name,
        help=text,
        options_metavar=f"{words} [OPTIONS]".strip(),
        params=[*flags, _DIRECTORY, _SIZE],
    )


@contextmanager
def opened(
    ctx: click.Context,
    flags: Mapping[str, Any],
    *,
    writing: bool = False,
    filling: bool = False,
    **choices: Any,
) -> Iterator[tuple[SafeCache, Cancellation]]:
    """The cache that the flags name, whether or not validations use one.

    There is no time limit unless ``--timeout`` is given. ``choices`` are further
    members of :class:`~conforma.cache.options.CacheOptions`. Raises
    ``CacheUnusable`` for a directory that cannot serve, or that is read-only if
    we are ``writing``, and ``InputError`` for a size that is none, or for a
    directory with other things in it and no cache, unless we are ``filling`` it.
    """
    from pathlib import Path

    from msgspec.structs import replace

    from conforma.cache.options import CacheOptions, default_directory
    from conforma.cache.safe_cache import SafeCache
    from conforma.cli.signals import run_until_told
    from conforma.errors import CacheUnusable

    choice = cache_choice(
        no_cache=False, cache_dir=flags["cache_dir"], cache_size=flags["cache_size"]
    )
    directory = Path(choice.directory) if choice.directory else default_directory()
    if not filling:
        _refuse_foreign(directory)
    options = CacheOptions(directory=directory, **choices)
    if choice.max_bytes is not None:
        options = replace(options, max_bytes=choice.max_bytes)
    with ExitStack() as stack:
        cancellation = stack.enter_context(run_until_told(timeout_given(ctx)))
        cache = stack.enter_context(SafeCache.open(options, cancellation))
        if writing and not cache.store.writable:
            raise CacheUnusable(
                f"cannot change the cache {directory}: it is read-only for us",
                hint="run this as its owner, or choose another with --cache-dir or EC_CACHE_DIR",
            )
        yield cache, cancellation


def _refuse_foreign(directory: Path) -> None:
    """A mistyped directory is neither emptied, nor said to be an empty cache."""
    from conforma.cache.disk import VERSION
    from conforma.errors import InputError

    try:
        names = {path.name for path in directory.iterdir()}
    except OSError:
        return  # there is none yet, or opening it explains better what is wrong with it
    if names and VERSION not in names:
        raise InputError(
            f"{directory} holds other things and no cache",
            hint="name the directory of a cache with --cache-dir or EC_CACHE_DIR",
        )
