"""Options and environment become the objects of one run, here and nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from conforma.cache.options import CacheOptions, default_directory
from conforma.cancellation import Cancellation
from conforma.cli.network import registry_options, retry_policy
from conforma.cli.options import CacheChoice, Globals
from conforma.errors import CacheUnusable
from conforma.oci.options import ContentStore
from conforma.oci.places import Places
from conforma.oci.registry import Registry

if TYPE_CHECKING:
    from conforma.cache.direct import DirectLayers
    from conforma.cache.origins import Origins
    from conforma.cache.safe_cache import SafeCache
    from conforma.policy.source import Sources
    from conforma.trust.rekor_client import RekorClient

__all__ = ["open_layers", "open_log", "open_registry", "open_sources", "retry_policy"]

log = logging.getLogger(__name__)


def open_registry(
    settings: Globals,
    cancellation: Cancellation,
    *,
    mirrors: Sequence[str] = (),
    offline: bool = False,
    cache: CacheChoice | None = None,
    content: Callable[[], ContentStore | None] = lambda: None,
    small_requests: int | None = None,
    origins: Origins | None = None,
) -> Registry:
    """The one registry client of the run, which reads image layouts as well.

    ``small_requests`` is how many questions one registry gets at once,
    ``origins`` is told where content came from. Raises
    ``InputError`` for a mirror that is no image layout, and for flags about
    registries that mean nothing.
    """
    options = registry_options(
        settings,
        offline=offline,
        cache=cache,
        content=content,
        delivered=None if origins is None else origins.delivered,
    )
    if small_requests is not None:
        options = replace(options, small_requests=max(1, small_requests))
    return Places(options, cancellation, mirrors)


def open_sources(stack: ExitStack, settings: Globals, cancellation: Cancellation) -> Sources:
    """The sources of a run that reads policies but no images; ``stack`` closes them.

    Raises ``InputError`` for flags about registries that mean nothing.
    """
    from conforma.policy.source import Sources

    registry = stack.enter_context(open_registry(settings, cancellation))
    retry = retry_policy(settings)
    return stack.enter_context(Sources(lambda: registry, cancellation, retry=retry))


def open_log(
    settings: Globals, cancellation: Cancellation, *, offline: bool = False
) -> RekorClient:
    """The one client for transparency logs of the run."""
    from conforma.trust.rekor_client import RekorClient

    return RekorClient(registry_options(settings, offline=offline), cancellation)


def open_layers(
    choice: CacheChoice, cancellation: Cancellation, origins: Origins | None = None
) -> SafeCache | DirectLayers:
    """The layer cache, or layers without one if it is off or its directory cannot serve.

    ``origins`` is told what is read.
    """
    if not choice.enabled:
        from conforma.cache.direct import DirectLayers

        return DirectLayers(cancellation, origins=origins)
    from conforma.cache.safe_cache import SafeCache

    directory = Path(choice.directory) if choice.directory else default_directory()
    options = CacheOptions(directory=directory, verify=choice.verify, proof=choice.proof)
    if choice.max_bytes is not None:
        options = replace(options, max_bytes=choice.max_bytes)
    try:
        return SafeCache.open(options, cancellation, origins=origins)
    except CacheUnusable as error:
        from conforma.cache.direct import DirectLayers

        log.warning("layers are not cached in this run: %s", error.message)
        return DirectLayers(cancellation, origins=origins)
