"""Options and environment become the objects of one run, here and nowhere else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conforma.cache.direct import DirectLayers
from conforma.cache.options import CacheOptions, default_directory
from conforma.cancellation import Cancellation
from conforma.cli.options import CacheChoice, Globals
from conforma.errors import CacheUnusable, ConformaError
from conforma.oci.options import RegistryOptions
from conforma.oci.places import Places
from conforma.oci.registry import Registry
from conforma.oci.retry import RetryPolicy

if TYPE_CHECKING:
    from conforma.cache.safe_cache import SafeCache

log = logging.getLogger(__name__)


def retry_policy(settings: Globals) -> RetryPolicy:
    """The ``--retry-*`` flags."""
    return RetryPolicy(
        max_wait=float(settings.retry_max_wait),
        max_retry=settings.retry_max_retry,
        duration=float(settings.retry_duration),
        factor=settings.retry_factor,
        jitter=settings.retry_jitter,
    )


def open_registry(
    settings: Globals,
    cancellation: Cancellation,
    *,
    mirrors: Sequence[str] = (),
    offline: bool = False,
) -> Registry:
    """The one registry client of the run, which reads image layouts as well.

    Raises ``InputError`` for a mirror that is no image layout.
    """
    options = RegistryOptions(retry=retry_policy(settings), offline=offline)
    return Places(options, cancellation, mirrors)


def open_layers(choice: CacheChoice, cancellation: Cancellation) -> SafeCache | DirectLayers:
    """The layer cache, or layers without one if it is off or its directory cannot serve."""
    if not choice.enabled:
        return DirectLayers(cancellation)
    from conforma.cache.safe_cache import SafeCache

    directory = Path(choice.directory).expanduser() if choice.directory else default_directory()
    options = CacheOptions(directory=directory)
    if choice.max_bytes is not None:
        options = CacheOptions(directory=directory, max_bytes=choice.max_bytes)
    try:
        return SafeCache.open(options, cancellation)
    except CacheUnusable as error:
        log.warning("layers are not cached in this run: %s", error.message)
        return DirectLayers(cancellation)


class Once:
    """A function without arguments that is called at most once, failure included.

    Threads that come while it runs wait for its outcome.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: list[Any] = []
        self._error: ConformaError | None = None

    def __call__(self) -> Any:
        """What the function returned. Raises what it raised."""
        with self._lock:
            if self._error is not None:
                raise self._error
            if not self._made:
                try:
                    self._made.append(self._make())
                except ConformaError as error:
                    self._error = error
                    raise
            return self._made[0]
