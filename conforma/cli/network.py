"""How the program speaks to registries: what the flags mean, and what it tells about it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from conforma.errors import InputError

if TYPE_CHECKING:
    from conforma.cli.options import CacheChoice, Globals
    from conforma.oci.mirrors import Mirror
    from conforma.oci.options import (
        ContentStore,
        Delivery,
        QuestionSeen,
        RegistryOptions,
        RequestSeen,
    )
    from conforma.oci.registry import Registry
    from conforma.oci.retry import RetryPolicy

log = logging.getLogger(__name__)


def listen_address(text: str) -> tuple[str, int]:
    """Host and port that a ``--listen`` names; without a host every address of this machine.

    An IPv6 address is in brackets. Raises ``InputError``.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise InputError(
            f"--listen: {text!r} is not ADDRESS:PORT", hint="write it as 127.0.0.1:8080"
        )
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - as every server reads ":5000"


def registry_options(
    settings: Globals,
    *,
    offline: bool = False,
    cache: CacheChoice | None = None,
    content: Callable[[], ContentStore | None] = lambda: None,
    delivered: Callable[[Delivery], None] | None = None,
) -> RegistryOptions:
    """The settings of a registry client. Raises ``InputError`` for a flag that means nothing.

    ``cache`` says where processes agree about rates, ``content`` what earlier
    runs kept, and ``delivered`` is told what came whole.
    """
    from conforma.cache.options import default_directory
    from conforma.oci.limiter import rates_of
    from conforma.oci.options import RegistryOptions
    from conforma.oci.tracing import spans_observer

    observers = [spans_observer(os.environ)]
    talkative = log.isEnabledFor(logging.DEBUG)
    observers.append(tell_request if talkative else None)
    mirrors = _mirrors(settings.registry_mirror) if settings.registry_mirror else {}
    directory = Path(cache.directory) if cache and cache.directory else None
    return RegistryOptions(
        retry=retry_policy(settings),
        offline=offline,
        insecure=frozenset(settings.insecure_registry),
        mirrors=mirrors,
        rates=rates_of(settings.registry_rate),
        state=(directory or default_directory()) / "limits" if cache is not None else None,
        content=content,
        delivered=delivered,
        observer=_all_of([observer for observer in observers if observer is not None]),
        witness=tell_question if talkative else None,
    )


def _mirrors(texts: Iterable[str]) -> Mapping[str, Mirror]:
    from conforma.oci.mirrors import Mirror

    return {mirror.origin: mirror for mirror in map(Mirror.parse, texts)}


def retry_policy(settings: Globals) -> RetryPolicy:
    """The ``--retry-*`` flags."""
    from conforma.oci.retry import RetryPolicy

    return RetryPolicy(
        max_wait=float(settings.retry_max_wait),
        max_retry=settings.retry_max_retry,
        duration=float(settings.retry_duration),
        factor=settings.retry_factor,
        jitter=settings.retry_jitter,
    )


def tell_request(seen: RequestSeen) -> None:
    """A line for the log about one request. Nothing in it is secret."""
    fields = {
        "attempt": seen.attempt,
        "seconds": f"{seen.seconds:.4f}",
        "received": seen.received,
        "sent": seen.sent,
        "limiter": f"{seen.limiter:.3f}",
        "lane": f"{seen.lane:.3f}",
    }
    outcome = seen.problem if seen.status is None else seen.status
    log.debug("%s %s: %s", seen.method, seen.url, outcome, extra={"fields": fields})


def tell_question(seen: QuestionSeen) -> None:
    """A line for the log about one question, however it was answered."""
    fields = {
        "source": seen.source,
        "seconds": f"{seen.seconds:.4f}",
        "lock": f"{seen.lock:.3f}",
    }
    log.debug("%s of %s", seen.what, seen.name, extra={"fields": fields})


def tell_totals(registry: Registry) -> None:
    """A line for the log with what the run has asked of registries."""
    if log.isEnabledFor(logging.DEBUG):
        from msgspec.structs import asdict

        totals = asdict(registry.stats)
        shown = {name: f"{n:.3f}" if isinstance(n, float) else n for name, n in totals.items()}
        log.debug("asked of registries in this run", extra={"fields": shown})


def _all_of(
    observers: list[Callable[[RequestSeen], None]],
) -> Callable[[RequestSeen], None] | None:
    if len(observers) < 2:
        return observers[0] if observers else None

    def tell(seen: RequestSeen) -> None:
        for observer in observers:
            observer(seen)

    return tell
